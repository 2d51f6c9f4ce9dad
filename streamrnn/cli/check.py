"""`streamrnn validate`, `explain` and `compile`: what comes before a run."""

from typing import Annotated

import typer

from streamrnn.cli.report import Json, Quiet, Set, Verbose, facts, print_json

PipelineFile = Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline file (TOML).")]


def validate(
    pipeline: PipelineFile,
    overrides: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check a pipeline file. Reads the file, the model and the schema of the data."""
    from streamrnn.pipeline import Pipeline

    notes = Pipeline.from_toml(pipeline, overrides or []).validate()
    if as_json:
        print_json({"valid": True, "notes": notes})
    elif not quiet:
        print("\n".join([f"{pipeline} is valid", *(f"note: {note}" for note in notes)]))


def compile_pipeline(
    pipeline: PipelineFile,
    overrides: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compile a pipeline's kernels before its first run. For a container image or a new node."""
    from streamrnn.pipeline import Pipeline

    found = Pipeline.from_toml(pipeline, overrides or []).compile_kernels()
    if as_json:
        print_json({**found._asdict(), "folder": str(found.folder)})
    elif not quiet:
        print(
            f"{found.kernels} kernels ready, {found.new} of them compiled now: "
            f"{found.bytes / 1e6:.1f} MB in {found.folder}\n"
            "Usable by this user, or if root compiled them by every user who can read the folder, "
            "on CPUs like this one. XDG_CACHE_HOME sets where the folder is."
        )


def explain(
    pipeline: PipelineFile,
    overrides: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what a run would do. Files, rows, streams, memory, and where it would resume."""
    from streamrnn.pipeline import Pipeline

    plan = Pipeline.from_toml(pipeline, overrides or []).explain()
    if as_json:
        print_json(plan)
    else:
        print(facts(plan))
