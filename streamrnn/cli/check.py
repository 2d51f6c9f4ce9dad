"""`streamrnn validate` and `streamrnn explain`: what a run would do, without doing it."""

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
    """Check a pipeline. Reads the file, the model and the schema of the data."""
    from streamrnn.pipeline import Pipeline

    notes = Pipeline.from_toml(pipeline, overrides or []).validate()
    if as_json:
        print_json({"valid": True, "notes": notes})
    elif not quiet:
        print("\n".join([f"{pipeline} is valid", *(f"note: {note}" for note in notes)]))


def explain(
    pipeline: PipelineFile,
    overrides: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what a run would do. Files, rows, streams, memory, and where it would go on."""
    from streamrnn.pipeline import Pipeline

    plan = Pipeline.from_toml(pipeline, overrides or []).explain()
    if as_json:
        print_json(plan)
    else:
        print(facts(plan))
