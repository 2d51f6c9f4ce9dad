"""Check a pipeline, and explain what a run would do, without running it."""

from __future__ import annotations

from collections.abc import Sequence

from streamrnn.checkpoints import (
    Manifest,
    check_same_pipeline,
    has_manifest,
    plan_sources,
    read_manifest,
)
from streamrnn.errors import CheckpointError
from streamrnn.pipeline.lateness import note_on_order
from streamrnn.pipeline.preflight import open_source, refuse_own_output, run_config
from streamrnn.scoring import starting_table
from streamrnn.scoring.bind import BoundPipeline, LoadedPipeline
from streamrnn.scoring.options import RunOptions
from streamrnn.sources import SourceFile, SourceOfFiles, canonical_name

_LARGE_GROUP = 4_000_000


def validate(loaded: LoadedPipeline) -> list[str]:
    """Check everything that can be checked without computing; return notes.

    Raises what a run would raise: ConfigError, DataError, StateError, MissingFileError.
    """
    last = _last_commit(loaded)
    source = _files_of(loaded, last)
    if source is None:
        return ["the source has no files to check: its columns are checked when it is read"]
    bound = _bind(loaded, source)
    used = set() if last is None else {file.path for file in last.sources}
    source.check_schemas([file for file in source.files if file.name not in used])
    notes: list[str] = []
    starting_table(bound, None, "", notes)
    refuse_own_output(loaded, source)
    return notes + _notes(loaded, source)


def explain(loaded: LoadedPipeline) -> dict[str, str | int | None]:
    """Return the plan of a run as plain values; raises what `validate` raises."""
    config = loaded.config
    plan: dict[str, str | int | None] = {
        "model": config.model.path,
        "model fingerprint": loaded.fingerprint[:16],
        "features": ", ".join(loaded.contract.feature_names()),
        "kind": config.window.kind,
        "lanes x steps": f"{config.window.lanes} x {config.window.steps}",
        "output": config.sink.path,
        "output columns": ", ".join(loaded.names),
        "emit": config.output.emit,
    }
    last = _last_commit(loaded)
    source = _files_of(loaded, last)
    if source is None:
        return plan
    bound = _bind(loaded, source)
    rows = source.total_rows()
    plan["output columns"] = ", ".join(bound.emitter.schema.names)
    plan["files"] = len(source.files)
    plan["order"] = f"by {config.source.order}: {_names(source.files)}"
    plan["rows"] = rows
    plan["state per stream"] = f"{_stream_bytes(bound):,} bytes"
    plan |= _memory(loaded, bound, rows)
    plan |= _committed(loaded, bound, source, last)
    if note := note_on_order(source, source.files, config.source.order):
        plan["note"] = note
    return plan


def _names(files: Sequence[SourceFile]) -> str:
    paths = [file.path for file in files]
    return ", ".join(paths if len(paths) < 5 else [*paths[:3], "…", paths[-1]])


def _last_commit(loaded: LoadedPipeline) -> Manifest | None:
    """Return the last commit of the output; None before the first."""
    path = loaded.config.sink.folder
    return None if path is None or not has_manifest(path) else read_manifest(path)


def _files_of(loaded: LoadedPipeline, last: Manifest | None) -> SourceOfFiles | None:
    """Return the source if the pipeline file names one that has files, else None."""
    if loaded.config.source.path is None:
        return None
    source = open_source(loaded, RunOptions())
    source.earlier = {} if last is None else last.config.get("source.schema", {})
    return source.of_files


def _bind(loaded: LoadedPipeline, source: SourceOfFiles) -> BoundPipeline:
    bound = loaded.bind(source.schema, source.name)
    if loaded.config.source.order == "time":
        source.files = source.in_time_order(source.files)
    return bound


def _stream_bytes(bound: BoundPipeline) -> int:
    layout = bound.layout
    waiting = layout.waiting_rows * len(bound.loaded.contract.feature_names())
    return 4 * (sum(layout.states.values()) + waiting) + 24


def _memory(loaded: LoadedPipeline, bound: BoundPipeline, rows: int) -> dict[str, str]:
    width = len(loaded.contract.feature_names()) + len(loaded.names)
    batch = 4 * width * loaded.config.source.batch_rows
    if loaded.kind.needs_end:
        return {
            "memory": f"about {_mib(4 * width * rows)}: kind {loaded.kind.name} keeps all {rows:,} "
            "rows in memory"
        }
    return {
        "memory": f"about {_mib(4 * batch)} for record batches, and {_stream_bytes(bound):,} bytes "
        "per stream, whatever the length of the source"
    }


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _committed(
    loaded: LoadedPipeline, bound: BoundPipeline, source: SourceOfFiles, last: Manifest | None
) -> dict[str, str | int | None]:
    path = loaded.config.sink.folder
    if path is None or last is None:
        return {"would resume from": "nothing: this is the first run"}
    reported: dict[str, str | int | None] = {
        "would resume from": f"commit {last.commit} ({last.time}), {last.rows:,} rows written",
        "streams": last.state_rows,
    }
    try:
        check_same_pipeline(last, loaded.fingerprint, run_config(bound), path)
        plan = plan_sources(last, source.files, source, home=canonical_name(path))
    except CheckpointError as error:
        return {**reported, "would refuse": str(error)}
    position = plan.position
    new = len(plan.files) - (position is not None)
    place = f"row {position.file_row:,} of {plan.files[0].path}, then " if position else ""
    return {**reported, "next": f"{place}{new} new file(s)", "vanished files": len(plan.vanished)}


def _notes(loaded: LoadedPipeline, source: SourceOfFiles) -> list[str]:
    notes = []
    largest = source.largest_group()
    if largest > _LARGE_GROUP:
        notes.append(
            f"a row group has {largest:,} rows. A row group is read as a whole, so memory grows "
            "with its size; write smaller ones (row_group_size)"
        )
    if loaded.kind.needs_end:
        notes.append(f"kind {loaded.kind.name} keeps all rows in memory until the input ends")
    if note := note_on_order(source, source.files, loaded.config.source.order):
        notes.append(note)
    return notes
