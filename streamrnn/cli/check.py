"""`streamrnn validate`, `explain` and `compile`: the commands before a run."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from streamrnn.base.display import count
from streamrnn.cli.report import Json, Quiet, Set, Verbose, facts, print_json, print_table

PipelineFile = Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline file (TOML).")]
_LISTS = ("output_columns", "first_files")


def validate(
    pipeline: PipelineFile,
    overrides: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check a pipeline file. Reads the file, the model, and the schema and footers of the data."""
    from streamrnn.jobs.pipeline import Pipeline

    job = Pipeline.from_toml(pipeline, overrides or [])
    notes, features = job.validate(), job.feature_statistics()
    if as_json:
        print_json({"valid": True, "notes": notes, "features": features})
    elif not quiet:
        print(f"{pipeline} is valid")
        _print_features(features)
        print(*(f"note: {note}\n" for note in notes), sep="", end="")


def compile_pipeline(
    pipeline: PipelineFile,
    overrides: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compile a pipeline's kernels before its first run, in a container image or on a new node."""
    from streamrnn.jobs.pipeline import Pipeline

    compiled = Pipeline.from_toml(pipeline, overrides or []).compile_kernels()
    if as_json:
        print_json({**compiled._asdict(), "folder": str(compiled.folder)})
    elif not quiet:
        print(
            f"{compiled.kernels} kernels ready, {compiled.new} of them compiled now: "
            f"{compiled.bytes / 1e6:.1f} MB in {compiled.folder}\n"
            "This user can load them on CPUs like this one; if root compiled them, so can every "
            "user who can read the folder. Set XDG_CACHE_HOME to move the folder."
        )


def explain(
    pipeline: PipelineFile,
    overrides: Set = None,
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print the pipeline as a Mermaid flowchart.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what a run would do: files, rows, streams, memory, and where it would resume.

    With a [model] precision below float32, the first 20,000 rows are scored in float32, too, and
    the outputs are compared.
    """
    if mermaid and as_json:
        raise typer.BadParameter("--mermaid cannot be combined with --json")
    from streamrnn.jobs.pipeline import Pipeline

    job = Pipeline.from_toml(pipeline, overrides or [])
    if mermaid:
        print(job.mermaid())
        return
    plan = job.explain()
    if as_json:
        print_json(plan)
        return
    features, inputs = plan.pop("features"), plan.pop("inputs")
    errors = plan.pop("precision_errors", [])
    print(facts(_in_words(plan)))
    for item in inputs:
        kind = f"{item['type']} {tuple(item['shape'])}"
        print(f"input {item['name']} ({kind}): {', '.join(item['columns'])}")
    _print_features(features)
    if errors:
        rows = (
            [error["output"], *(_short(error[name]) for name in ("largest", "rms", "growth"))]
            for error in errors
        )
        head = f"output in {errors[0]['precision']}, minus float32"  # in the unit of the output
        print_table([head, "largest", "rms", "growth"], rows)


def _in_words(plan: Mapping[str, Any]) -> dict[str, Any]:
    words = {
        name: ", ".join(map(str, value)) if name in _LISTS else value
        for name, value in plan.items()
    }
    if "memory" in plan:
        memory = plan["memory"]
        mib = {name: f"{size / 2**20:,.0f}" for name, size in memory.items()}
        words["memory"] = (
            f"about {mib['total']} MiB: {mib['process']} for the process, {mib['batches']} for "
            f"record batches, {mib['state']} for {count(memory['streams'], 'stream')}; each new "
            f"stream takes {memory['per_stream']:,} bytes"
        )
        words["resume"] = _resume(plan["resume"])
    if "replay" in plan:
        replay = plan["replay"]
        files, rows = count(replay["files"], "file"), count(replay["rows_at_most"], "row")
        words["replay"] = (
            f"{replay['range']}: at most {rows} of {files}, into the states of the new model"
        )
    if "engine" in plan:
        engine, shards = plan["engine"], plan["engine"]["shards"]
        words["engine"] = (
            f"{engine['type']} at {engine['address']}: "
            f"{'2 shards per CPU' if shards is None else count(shards, 'shard')}, "
            f"{count(engine['epochs'], 'epoch')} of up to {engine['epoch_rows']:,} rows, "
            f"{engine['epoch_bytes'] / 1e6:,.0f} MB each"
        )
    if "would_refuse" in plan:
        words["would_refuse"] = plan["would_refuse"].splitlines()
    if "notes" in words and not words["notes"]:
        del words["notes"]
    return words


def _resume(resume: Mapping[str, Any] | None) -> str:
    if resume is None:
        return "nothing committed yet: this is the first run"
    words = f"commit {resume['commit']} ({resume['time']}), {count(resume['rows'], 'row')}"
    if "file" in resume:
        words += f", then row {resume['row']:,} of {resume['file']}"
    return f"{words}, {count(resume['streams'], 'stream')}"


def _short(number: float | None) -> str | None:
    return None if number is None else f"{number:.3g}"


def _print_features(features: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of all features if one has statistics, or is scaled by the model."""
    shown = ("nulls", "minimum", "maximum", "mean", "deviation")
    used = [name for name in shown if any(item[name] is not None for item in features)]
    if used:
        rows = ([item["name"], *(item[name] for name in used)] for item in features)
        print_table(["feature", *used], rows)
