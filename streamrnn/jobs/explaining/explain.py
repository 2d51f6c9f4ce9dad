"""Check a pipeline, and explain what a run would do, as values or as a Mermaid flowchart."""

import json
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamrnn.base.display import count, listed, location, short_model
from streamrnn.errors import CheckpointError
from streamrnn.jobs.engines import epoch_rows
from streamrnn.jobs.explaining.rounding import rounding_errors
from streamrnn.jobs.preflight import (
    after_rule,
    check_sink,
    features_of,
    open_source,
    plan_first_run,
    refuse_own_output,
    run_config,
    seen_before,
    warnings_of,
    with_target,
)
from streamrnn.jobs.running import (
    ReplayPlan,
    RunPublisher,
    needs_replay,
    note_on_order,
    plan_replay,
)
from streamrnn.nn.models.steps import notes_on_steps
from streamrnn.nn.models.summary import box, box_text, graph_lines
from streamrnn.stream.checkpoints import (
    Manifest,
    check_same_pipeline,
    check_schema,
    has_manifest,
    load_state,
    partitioning_in,
    plan_sources,
    read_manifest,
    row_filters,
)
from streamrnn.stream.config import SIDE_OUTPUTS, side_filters
from streamrnn.stream.config.values import length_text
from streamrnn.stream.scoring import LoadedPipeline, Summary, starting_table
from streamrnn.stream.scoring.bind import BoundPipeline
from streamrnn.stream.sources import FileSource, SourceFile, canonical_name, note_on_offset
from streamrnn.stream.sources.formats import Footer

_LARGE_GROUP = 4_000_000
_SHOWN = 3


def validate(loaded: LoadedPipeline) -> list[str]:
    """Check everything that can be checked without computing; return notes.

    Raises what a run would raise before its first row, such as ConfigError, DTypeError,
    MissingFileError, StateError, CheckpointError, or UnsupportedError without a plug-in.
    """
    last = _last_commit(loaded)
    source = _files_of(loaded, last)
    if source is None:
        return ["the source has no files to check: columns are checked when rows are read"]
    bound = _bind(loaded, source)
    RunPublisher(loaded.config, Summary()).check(bound.emitter.schema)
    used = set() if last is None else {file.path for file in last.sources}
    wide, _ = with_target(bound, source)
    wide.check_schemas([file for file in source.files if file.name not in used])
    notes: list[str] = []
    if last is None:
        starting_table(bound, None, "", notes, on_change=loaded.config.model.on_change)
    else:
        path = str(loaded.config.sink.folder)
        _check_same(bound, last, path)
        if (plan := _replay(bound, source, last, path)) is not None:
            notes.append(f"the new model replays {plan.range}: at most {count(plan.most, 'row')}")
        elif last.model != loaded.fingerprint or loaded.config.state.map:
            starting_table(
                bound,
                load_state(path),
                f"the state of {path}",
                notes,
                on_change=loaded.config.model.on_change,
                earlier_map=last.config.get("state.map", {}),
            )
    refuse_own_output(loaded, source.files)
    return notes + _notes(loaded, source) + warnings_of(loaded, features_of(loaded, source))


def _check_same(bound: BoundPipeline, last: Manifest, path: str) -> None:
    loaded = bound.loaded
    may_differ = loaded.config.model.on_change != "error"
    check_same_pipeline(last, loaded.fingerprint, run_config(bound), path, new_model=may_differ)
    check_schema(last, bound.emitter.schema, path)


def explain(loaded: LoadedPipeline) -> dict[str, Any]:
    """Return the plan of a run as values that JSON can hold. Raises what `validate` raises."""
    config = loaded.config
    committed = _last_commit(loaded)
    source = _files_of(loaded, committed)
    bound = None if source is None else _bind(loaded, source)
    features = features_of(loaded, source)
    titles = RunPublisher(config, Summary()).titles
    filters = side_filters(config.canonical())
    plan: dict[str, Any] = {
        "model": location(config.model.path),
        "model_fingerprint": short_model(loaded.fingerprint),
        "precision": loaded.model.precision,
        "inputs": [
            {
                "name": name,
                "type": kind,
                "shape": list(shape),
                "columns": loaded.input_columns[name],
            }
            for name, shape, kind in loaded.model.input_specs
        ],
        "features": [asdict(item) for item in features],
        "kind": config.window.kind,
        "kind_because": loaded.choice.why,
        "lanes": config.window.lanes,
        "steps": config.window.steps,
        "output": None if config.sink.path is None else location(config.sink.path),
        **{name: filters.get(name) for name, side in SIDE_OUTPUTS.items() if side.where},
        "partition_by": list(config.sink.partition_by),
        **({"publishes": titles} if titles else {}),
        "output_columns": list(loaded.names),
        "emit": config.output.emit,
    }
    if source is None or bound is None:
        return plan
    streams = committed.state_rows if committed else 0
    resume, files = _next_run(bound, source, committed)
    errors, warnings = rounding_errors(loaded)
    notes = _notes(loaded, source) + warnings_of(loaded, features) + warnings
    return {
        **plan,
        "precision_errors": [error.as_dict() for error in errors],
        "output_columns": bound.emitter.schema.names,
        "files": len(source.files),
        "order": config.source.order,
        "first_files": [file.path for file in source.files[:_SHOWN]],
        "last_file": source.files[-1].path,
        "rows": source.total_rows(),
        "state_bytes_per_stream": _stream_bytes(bound),
        "memory": _memory_of(bound, source, files, streams),
        **resume,
        **_shared(bound, source, files, committed),
        "notes": notes,
    }


def feature_statistics(loaded: LoadedPipeline) -> list[dict[str, Any]]:
    """Return what footers and model say about each feature. Raises what `validate` raises."""
    source = _files_of(loaded, _last_commit(loaded))
    if source is not None:
        _bind(loaded, source)
    return [asdict(item) for item in features_of(loaded, source)]


def _last_commit(loaded: LoadedPipeline) -> Manifest | None:
    check_sink(loaded.config)
    path = loaded.config.sink.folder
    return None if path is None or not has_manifest(path) else read_manifest(path)


def _files_of(loaded: LoadedPipeline, last: Manifest | None) -> FileSource | None:
    """Return the source if the pipeline file names one that has files, else None."""
    if loaded.config.source.path is None:
        return None
    source = open_source(loaded)
    source.earlier = {} if last is None else last.config.get("source.schema", {})
    return source.of_files


def _bind(loaded: LoadedPipeline, source: FileSource) -> BoundPipeline:
    bound = loaded.bind(source.schema, source.name)
    if loaded.config.source.order == "time":
        source.files = source.in_time_order(source.files)
    config = loaded.config.canonical()
    partitioning_in(config, bound.emitter.schema)  # raises what a run would raise
    row_filters(side_filters(config), bound.emitter.schema)
    return bound


def _next_run(
    bound: BoundPipeline, source: FileSource, last: Manifest | None
) -> tuple[dict[str, Any], Sequence[SourceFile]]:
    """Return where a run would resume, how many files are new or gone, and all files to read."""
    loaded, files = bound.loaded, source.files
    if last is None:
        _, plan = plan_first_run(loaded, source)
        return {"resume": None, "new_files": len(plan.files), "vanished_files": 0}, plan.files
    path = str(loaded.config.sink.folder)
    resume: dict[str, Any] = {
        "commit": last.commit,
        "time": last.time,
        "rows": last.rows,
        "streams": last.state_rows,
    }
    try:
        _check_same(bound, last, path)
        plan = plan_sources(
            last,
            source.files,
            source,
            home=canonical_name(path),
            seen=partial(seen_before, loaded, source),
            select=after_rule(loaded, source),
        )
        replay = _replay(bound, source, last, path)
    except CheckpointError as error:
        return {"resume": resume, "would_refuse": str(error)}, files
    position = plan.position
    if position is not None:
        resume |= {"file": plan.files[0].path, "row": position.file_row}
    facts = {"resume": resume}
    if replay is not None:
        facts["replay"] = {
            "range": replay.range,
            "files": len(replay.files),
            "rows_at_most": replay.most,
        }
    new = len(plan.files) - (position is not None)
    return {**facts, "new_files": new, "vanished_files": len(plan.vanished)}, plan.files


def _replay(
    bound: BoundPipeline, source: FileSource, last: Manifest, path: str
) -> ReplayPlan | None:
    if not needs_replay(bound, last, bound.loaded.config.model.on_change):
        return None
    return plan_replay(bound, source, last, load_state(path))


def _shared(
    bound: BoundPipeline, source: FileSource, files: Sequence[SourceFile], last: Manifest | None
) -> dict[str, Any]:
    """Return how workers would share the run; nothing for a run in this process."""
    engine = bound.loaded.config.engine
    if engine.type == "local":
        return {}
    epochs = epoch_rows(source.subset(files), bound.loaded)
    last_shards = len(last.shards) if last is not None else 0
    row = sum(_width(field.type) for field in bound.schema) + _OFFSET  # from worker to worker
    shards = engine.shards or (last_shards if last_shards > 1 else None)
    return {
        "engine": {
            "type": engine.type,
            "address": location(engine.address),
            "shards": shards,  # None: 2 per CPU of the cluster
            "epochs": len(epochs),
            "epoch_rows": max(epochs, default=0),
            "epoch_bytes": int(max(epochs, default=0) * row),
        }
    }


def _notes(loaded: LoadedPipeline, source: FileSource) -> list[str]:
    notes = [] if loaded.choice.note is None else [loaded.choice.note]
    notes += notes_on_steps(loaded.model, loaded.runner.own)
    largest = source.largest_group()
    if largest > _LARGE_GROUP:
        notes.append(
            f"a row group has {largest:,} rows. A row group is read as a whole, so memory grows "
            "with its size; write smaller groups (row_group_size)"
        )
    if loaded.kind.needs_end:
        notes.append(f"kind {loaded.kind.name} keeps all rows in memory until the input ends")
    if idle := length_text(loaded.config.state.idle):
        notes.append(
            f"[state] idle = {json.dumps(idle)}: a stream starts again after a longer silence, and "
            "is dropped at a commit when its last row is older than the newest row by more than "
            "twice that time"
        )
    offset, config = source.offset(), loaded.config.source
    if offset and not config.time_zone:
        notes.append(note_on_offset(str(config.time), offset))
    if note := note_on_order(source, source.files, config.order):
        notes.append(note)
    return notes


def mermaid(loaded: LoadedPipeline) -> str:
    """Return source, features, window, layers, outputs, sink and state as a flowchart.

    It takes its facts from `explain`, and raises the same errors.
    """
    plan, config = explain(loaded), loaded.config
    source, sink = config.source, config.sink
    graph = loaded.model.graph
    names = {id(node): f"layer{index}" for index, node in enumerate(graph.nodes)}
    first, last = (
        list(dict.fromkeys(names[id(symbol.node)] for symbol in symbols))
        for symbols in (graph.inputs, graph.outputs)
    )
    features = [feature.name for feature in source.features] + list(source.time_features)
    keys = [f"key: {', '.join(source.key)}", *([f"time: {source.time}"] if source.time else [])]
    files, committed, resume = [], [], plan.get("resume")
    if "files" in plan:
        new = f", {plan['new_files']:,} of them new" if "new_files" in plan else ""
        files = [f"{count(plan['files'], 'file')}{new}", count(plan["rows"], "row")]
    if resume is not None:
        committed = [f"commit {resume['commit']}", count(resume["rows"], "row")]
    lines = [
        "flowchart TB",
        _store("source", "source", location(source.path or "process()"), *files),
        box("features", "features", listed(features), *keys),
        box(
            "window",
            f"window: {config.window.kind}",
            f"{config.window.lanes:,} lanes × {config.window.steps:,} steps",
        ),
        f'subgraph model["{box_text("model", location(config.model.path))}"]',
        *(f"    {line}" for line in graph_lines(loaded.model)),
        "end",
        box("outputs", "outputs", listed(loaded.names), f"emit: {config.output.emit}"),
        _store("sink", "sink", location(sink.path or "process()"), *committed),
        "source --> features --> window",
        *(f"window --> {name}" for name in first),
        *(f"{name} --> outputs" for name in last),
        "outputs --> sink",
    ]
    if (size := plan.get("state_bytes_per_stream")) is not None:  # the model reads the state
        streams = count(plan["memory"]["streams"], "stream")
        lines.append(_store("state", "state", streams, f"{size:,} bytes each"))
        lines += ["state <--> model", "state -.- sink"]
    if sink.folder is not None and source.bad == "reject":
        rejects = _store("rejects", "rejects", location(sink.rejects or ""))
        lines += [rejects, "features -->|rejected rows| rejects"]
    return "\n".join([lines[0], *(f"    {line}" for line in lines[1:])])


def _store(name: str, *facts: str) -> str:
    return f'{name}[("{box_text(*facts)}")]'


# ---- memory
#
# The factors are measured (peak resident memory of runs with 2 to 64 features, 20 to 500,000
# streams and batches of 10,000 to 1,000,000 rows); tests/jobs/explaining/test_memory.py compares
# them with runs.

_KERNELS = 95 << 20
"""Bytes of Numba, LLVM and the compiled kernels, all loaded when the first batch is scored."""
_BUFFERS, _BUFFERED_ROWS = 85 << 20, 131072
"""Bytes of the buffers of readers, writers and threads, and the number of rows that fill them."""
_BATCHES = 4.2
"""Record batches held at a time: one is read, one sorted, one scored, and some wait."""
_COPIES = 2
"""Copies of a batch's columns and features: as read, and sorted by stream."""
_ROW = 24
"""Bytes of a row's slot, time and position."""
_STREAM = 200
"""Bytes of a stream besides its state: its key, here and in the index, and copies for a commit."""
_LOADING = 2.7
"""Copies of a state while it is read from an output."""
_GROUP = 0.6
"""Share of a decoded row group that is held while batches are cut from it."""
_OFFSET = 4
"""Bytes of a row's offset in its row range."""
_TEXT = 18
"""Bytes of a text or another value without a fixed width."""


def _stream_bytes(bound: BoundPipeline) -> int:
    """Return the number of bytes of one stream in the state table."""
    layout = bound.layout
    waiting = layout.waiting_rows * len(bound.loaded.contract.feature_names())
    return 4 * (sum(layout.states.values()) + waiting) + 24


def _memory_of(
    bound: BoundPipeline, source: FileSource, files: Sequence[SourceFile], streams: int
) -> dict[str, int]:
    """Estimate the peak memory, in bytes, of a run over `files` that loads `streams` streams.

    Returns its total and its parts: `process` (libraries and model), `batches`, `state` of the
    `streams`, and `per_stream`, the bytes that each new stream adds.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        process = pages * os.sysconf("SC_PAGE_SIZE")  # resident now
    except OSError:  # macOS: the peak so far, in bytes
        process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    process += 4 * bound.loaded.model.count_params()
    process += 0 if "llvmlite" in sys.modules else _KERNELS
    batches = _batch_bytes(bound, [source.footer(file) for file in files])
    per_stream = _stream_bytes(bound) + _STREAM
    state = streams * max(per_stream, int(_LOADING * _stream_bytes(bound)))
    return {
        "total": process + batches + state,
        "process": process,
        "batches": batches,
        "state": state,
        "streams": streams,
        "per_stream": per_stream,
    }


def _batch_bytes(bound: BoundPipeline, footers: Sequence[Footer]) -> int:
    loaded, rows = bound.loaded, sum(footer.rows for footer in footers)
    group = max((rows for footer in footers for rows in footer.groups), default=0)
    features = len(loaded.contract.feature_names())
    stored = sum(_width(field.type) for field in bound.schema)
    row = _COPIES * (stored + 4 * features) + 4 * len(loaded.names) + _ROW
    held = min(rows, _BATCHES * loaded.config.source.batch_rows)
    if loaded.kind.needs_end:
        held = rows
    buffers = _BUFFERS * min(1.0, rows / _BUFFERED_ROWS)
    return int(held * row + _GROUP * stored * group + buffers)


def _width(kind: pa.DataType) -> float:
    try:
        return float(kind.bit_width) / 8
    except ValueError:
        return _TEXT
