"""What a replay will read: the used files in its range, or why there can be no replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.display import count, first_of, location
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.stream.checkpoints import Manifest, UsedFile, current_names, rows_of_no_file
from streamrnn.stream.config.notations import format_duration
from streamrnn.stream.config.values import OTHER_WAYS, OnChange, length_text
from streamrnn.stream.scoring import BoundPipeline
from streamrnn.stream.sources import Position, Source, SourceFile, canonical_name, shown_time
from streamrnn.stream.sources.formats.base import TICKS

_OTHERWISE = f"or use {OTHER_WAYS}."
_UNITS = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))


@dataclass(frozen=True)
class ReplayPlan:
    """The rows that a new model reads: rows of `files`, in order, up to `stop` in the last file.

    With `first`, only rows of this time, in ticks, or later are read. With `last`, only this many
    rows of each stream are read; then `gone` are used files before `files` that are missing: there
    can be a replay only if they have none of these rows. `most` is the largest possible number of
    rows. `range` describes the rows; `note` says what is missing, and is "" if nothing is.
    """

    files: tuple[SourceFile, ...]
    stop: Position | None
    most: int
    range: str
    first: int | None = None
    last: int | None = None
    gone: tuple[str, ...] = ()
    note: str = ""


def needs_replay(bound: BoundPipeline, last: Manifest, on_change: OnChange) -> bool:
    """Return whether a run into an output begins with a replay (or with its refusal).

    In kind independent a model has no state, so nothing is replayed.
    """
    may_have_state = bool(bound.layout.states) or bound.loaded.kind.needs_end
    return on_change == "replay" and last.model != bound.loaded.fingerprint and may_have_state


def plan_replay(
    bound: BoundPipeline,
    source: Source,
    manifest: Manifest,
    state: pa.Table | None,
    *,
    scored: int | None = None,
    force: bool = False,
) -> ReplayPlan:
    """Find the files of the rows that a new model reads before it scores new rows.

    `state` is the state at the commit `manifest`, `scored` the number of rows written and rejected
    up to it (default: as in the manifest). With `force`, rows that are in no file (of pipes and
    sessions) are left out. Raises ConfigError where there is nothing to replay (kind whole, a
    pipe), or for a length of time without a column of times; CheckpointError if files with rows in
    the range are gone, or if rows of the output were in no file.
    """
    config, output = bound.loaded.config, str(bound.loaded.config.sink.folder)
    path = location(output)
    if scored is None:
        scored = manifest.rows + manifest.named("rejects").rows
    _refuse_other_rows(bound, source, manifest, scored, path, force)
    wanted = config.model.replay
    listed = {file.name: file for file in source.files}
    names, position = current_names(manifest, listed, canonical_name(output)), manifest.position
    if position is not None:
        position = replace(position, file=names.get(position.file, position.file))
    used = [replace(file, path=names.get(file.path, file.path)) for file in manifest.sources]
    rows = [file for file in used if file.content is not None and file.content.rows]
    first, text = None, "all earlier rows"
    if isinstance(wanted, timedelta):
        tick, newest = _tick_ns(bound), _newest(state)
        text = "the rows since "
        if newest is not None:
            first = newest - 1000 * (wanted // timedelta(microseconds=1)) // tick
            lasts = [(file, _last(file)) for file in rows]  # None: the last time is unknown
            rows = [file for file, last in lasts if last is None or last >= first]
            text += shown_time(first, _time_type(bound))
    elif isinstance(wanted, int):
        text = f"the last {count(wanted, 'row')} of each stream"
    gone = [index for index, file in enumerate(rows) if file.path not in listed]
    lost = tuple(rows[index].path for index in gone)
    last = wanted if isinstance(wanted, int) else None
    if gone and last is None:
        raise CheckpointError(_gone([rows[i] for i in gone], bound, state, path))
    if gone:
        rows = rows[gone[-1] + 1 :]
        text += f", in the files after {lost[-1]}, which is not in the source"
    notes = []
    if (init := config.state.init) is not None:
        of_init = f"rows that [state] init = {location(init)} has seen"
        notes.append(f"{of_init} were replayed only if used files have them")
    if (other := rows_of_no_file(manifest, scored)) > 0:
        notes.append(f"{count(other, 'row')} in no used file: not replayed")
    return ReplayPlan(
        files=tuple(listed[file.path] for file in rows),
        stop=position,
        most=sum(file.content.rows for file in rows if file.content is not None),
        range=text,
        first=first,
        last=last,
        gone=lost,
        note="; ".join(notes),
    )


def _last(file: UsedFile) -> int | None:
    return None if file.content is None else file.content.last


def _refuse_other_rows(
    bound: BoundPipeline, source: Source, manifest: Manifest, rows: int, path: str, force: bool
) -> None:
    """Raise ConfigError or CheckpointError where rows of the output cannot be read again."""
    config = bound.loaded.config
    if bound.loaded.kind.needs_end:
        raise ConfigError(
            f'replay: kind "{bound.loaded.kind.name}" keeps no state from run to run, so a '
            "new model needs no earlier rows. To score new streams with it, use --new-model carry; "
            "to score more rows of earlier streams, start over with --full-refresh."
        )
    if source.of_files is None:
        raise ConfigError(
            "replay: a pipe cannot be read again. Set [source] path to files with the earlier "
            f"rows, {_OTHERWISE}"
        )
    lost = rows_of_no_file(manifest, rows)
    if manifest.positions and not lost:
        raise CheckpointError(
            f"replay: {path} has the state of rows that `process` scored, which are in no file of "
            f"the source. Score the log again into another [sink] path, {_OTHERWISE}"
        )
    if lost > 0 and not force:
        raise CheckpointError(
            f"replay: {path} has {count(lost, 'row')} that are in none of its used files, such as "
            "rows of a pipe or a session. Either put these rows into files and score the files "
            "into another [sink] path, or leave the rows out of the replay with --force, "
            f"{_OTHERWISE}"
        )
    if config.state.init is not None and config.model.replay == "all":
        raise CheckpointError(
            f"replay: {path} began from [state] init = {location(config.state.init)}, so not "
            "all of its rows are in this source. Say how far back to read: [model] replay = "
            f'"90d", or a number of rows of each stream; {_OTHERWISE}'
        )


def _time_type(bound: BoundPipeline) -> pa.DataType:
    return bound.schema.field(str(bound.loaded.config.source.time)).type


def _tick_ns(bound: BoundPipeline) -> int:
    """Return the length of a tick of the time column, in nanoseconds.

    Raises ConfigError unless there is such a column, of timestamps or dates.
    """
    name = bound.loaded.config.source.time
    kind = None if name is None else _time_type(bound)
    if kind is not None and pa.types.is_timestamp(kind):
        return 10**9 // TICKS[kind.unit]
    if kind is not None and pa.types.is_date(kind):
        return 86_400 * 10**9 if pa.types.is_date32(kind) else 10**6
    shown = length_text(bound.loaded.config.model.replay)
    raise ConfigError(
        f'[model] replay = "{shown}": expected [source] time to be a column of timestamps or '
        f"dates, received {kind or 'none'}. Set replay to a number of rows of each stream, "
        'or to "all".'
    )


def _newest(state: pa.Table | None) -> int | None:
    """Return the newest time of the output, in ticks; None if no stream has a time."""
    if state is None or "last_time" not in state.column_names:
        return None
    newest = pc.max(state.column("last_time"))
    if not newest.is_valid:
        return None
    kind = pa.int32() if pa.types.is_date32(newest.type) else pa.int64()
    ticks: int = newest.cast(kind).as_py()
    return ticks


def _gone(
    files: Sequence[UsedFile], bound: BoundPipeline, state: pa.Table | None, path: str
) -> str:
    """Return the message for missing files in range, with the range that is available."""
    times = [_last(file) for file in files]
    newest, there = _newest(state), None
    if newest is not None and None not in times:
        last = max(time for time in times if time is not None)
        there = _length(newest - last, bound)
    are, them = ("is", "it") if len(files) == 1 else ("are", "them")
    range_there = (
        f"or read only the rows after {them}, with [model] replay = "
        f'"{format_duration(there)}" or less, '
        if there
        else ""
    )
    return (
        f"replay: {count(len(files), 'used file')} of {path} with rows to read {are} not in the "
        f"source: {first_of([file.path for file in files])}. Add {them} to [source] path, "
        f"{range_there}{_OTHERWISE}"
    )


def _length(ticks: int, bound: BoundPipeline) -> timedelta | None:
    """Return a round length of time that is shorter than this many ticks; None if there is none."""
    try:
        tick = _tick_ns(bound)
    except ConfigError:
        return None
    length = timedelta(microseconds=((ticks - 1) * tick) // 1000)
    for unit in _UNITS:
        if length >= 10 * unit:
            return length // unit * unit
    return length if length > timedelta() else None
