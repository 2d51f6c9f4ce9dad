"""Rows and files that go back in time: find the files that cause it, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.checkpoints import UsedFile
from streamrnn.display import first_of
from streamrnn.errors import LateRowError
from streamrnn.sources import FileTimes, Source, SourceFile, last_with, steps_back
from streamrnn.states.positions import CallPosition

_IF_EXPECTED = 'If late rows are expected, set [source] late to "drop", "reject" or "apply".'


def note_on_order(source: Source, files: Sequence[SourceFile], order: str) -> str | None:
    """Return a note if times go back between consecutive files; None if not, or not known."""
    if source.time is None or order == "time":
        return None
    pairs = steps_back(source.times(files))
    if not pairs:
        return None
    kind = source.schema.field(source.time).type
    before, after = pairs[0]
    more = f", and so on {len(pairs)} times" if len(pairs) > 1 else ""
    return (
        f"times go back from file to file: {after.shown(kind)} is read after "
        f"{before.shown(kind)}{more}. This is fine if they hold different streams; otherwise set "
        '[source] order = "time"'
    )


def name_the_files(
    error: LateRowError, source: Source, used: Sequence[UsedFile], order: str
) -> LateRowError:
    """Add to the error which file was read before the late row, if footers show it.

    `used` are the files that earlier runs read. If one of the same times is gone, the file of the
    row may replace it.
    """
    times = source.times(source.files)
    index = next((i for i, item in enumerate(times) if item.path == error.file), None)
    if index is None or source.time is None:
        return error
    kind = source.schema.field(source.time).type
    error = _with_the_file_before(error, times, index, used, kind, order)
    gone = _times_of(file for file in used if file.gone)
    first, last = times[index].first, times[index].last
    replaced = [item for item in gone if item.first <= last and first <= item.last]
    if not replaced:
        return error
    return error.because(f"{error.args[1]} {_reload(replaced, times[index], kind)}")


def name_the_position(
    error: LateRowError, position: CallPosition, state: pa.Table, column: str
) -> LateRowError:
    """Add to the error that `state` has rows of `process`, and how to leave them out."""
    newest = pc.max(state["last_time"]).cast(pa.string())
    return error.because(
        f"The state is from a checkpoint of `process`, whose last position is {position!r}: no "
        "list of files says which rows it has. If this row is one of them, leave out the files "
        f'that `process` has read, with [source] after = {{ time = "{newest}" }}: the newest '
        f"{column} in the state; or with {{ path = … }} or {{ partition = … }}. {error.args[1]}"
    )


def _with_the_file_before(
    error: LateRowError,
    times: Sequence[FileTimes],
    index: int,
    used: Sequence[UsedFile],
    kind: pa.DataType,
    order: str,
) -> LateRowError:
    """Add which file was read before the one at `index`, that of the late row, if known."""
    if (ahead := last_with(times[:index], error.last)) is not None:
        return error.because(_read_before(ahead.shown(kind), times[index].shown(kind), order))
    if last_with(times[index : index + 1], error.last) is not None:
        return error
    if (ahead := last_with(_times_of(used), error.last)) is None:
        return error
    return error.because(
        f"An earlier run read {ahead.shown(kind)}, before this file. To score all files in order "
        f"of their times, start over with --full-refresh. {_IF_EXPECTED}"
    )


def _times_of(used: Iterable[UsedFile]) -> list[FileTimes]:
    """Return the times of the used files that have any."""
    return [
        FileTimes(file.path, file.content.first, file.content.last)
        for file in used
        if file.content is not None
        and file.content.first is not None
        and file.content.last is not None
    ]


def _reload(replaced: Sequence[FileTimes], by: FileTimes, kind: pa.DataType) -> str:
    """Return how to score a file in place of those that are gone."""
    options = " ".join(f"--reload-file {item.path}" for item in replaced[:3])
    return (
        f"Used, and gone from the source: {first_of([item.shown(kind) for item in replaced])}. If "
        f"{by.path} replaces {'it' if len(replaced) == 1 else 'them'}, rerun with {options}."
    )


def _read_before(ahead: str, own: str, order: str) -> str:
    fix = (
        "Their times overlap: merge and sort them by time."
        if order == "time"
        else 'Files are read in order of their names; with [source] order = "time" they are '
        "read in order of their earliest times."
    )
    return f"{ahead} was read before {own}. {fix} {_IF_EXPECTED}"
