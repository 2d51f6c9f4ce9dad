"""Rows and files that go back in time, or leave a gap: which files cause it, and how to fix it."""

from collections.abc import Container, Iterable, Iterator, Sequence
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.display import count, first_of, location
from streamrnn.errors import LateRowError
from streamrnn.jobs.outputs import commit_before
from streamrnn.jobs.running.destination import Destination
from streamrnn.stream.checkpoints import UsedFile
from streamrnn.stream.sources import (
    FileTimes,
    Source,
    SourceFile,
    last_with,
    shown_time,
    steps_back,
)
from streamrnn.stream.sources.files import Hive
from streamrnn.stream.states.positions import CallPosition

_TELLING = 4
"""Smallest number of used files that show how long a usual file and a usual gap are."""
_IF_EXPECTED = 'If late rows are expected, set [source] late to "drop", "reject" or "apply".'


def note_on_order(source: Source, files: Sequence[SourceFile], order: str) -> str | None:
    """Return a note if times go back between consecutive files in an `order` other than "time"."""
    if source.time is None or order == "time":
        return None
    pairs = steps_back(source.times(files))
    if not pairs:
        return None
    kind = source.schema.field(source.time).type
    before, after = pairs[0]
    more = f" (the first of {len(pairs)} such places)" if len(pairs) > 1 else ""
    return (
        f"times go back from file to file: {after.shown(kind)} is read after "
        f"{before.shown(kind)}{more}. This is fine if they hold different streams; otherwise set "
        '[source] order = "time"'
    )


def note_on_gap(files: Sequence[UsedFile], used: int, kind: pa.DataType) -> str | None:
    """Return a note if a file seems to be missing before one of the files after the first `used`.

    A file seems to be missing if the time without rows exceeds the longest gap between used files
    by more than half of that gap, or half of the median length of a file if this is longer. If
    there are too few files to show what is usual, there is no note.
    """
    earlier = sorted(_times_of(files[:used]), key=attrgetter("first"))
    if len(earlier) < _TELLING:
        return None
    longest = max(gap for _, gap in _gaps(earlier))
    length = sorted(file.last - file.first for file in earlier)[len(earlier) // 2]
    now = {file.path for file in files[used:]}
    every = sorted(_times_of(files), key=attrgetter("first"))
    for file, gap in _gaps(every):
        if file.path in now and gap > longest + max(length, longest) / 2:
            end = shown_time(file.first - gap, kind)
            return (
                f"there are no rows between {end} and {file.shown(kind)}, a longer gap than any "
                "between earlier files: is a file missing?"
            )
    return None


def _gaps(files: Sequence[FileTimes]) -> Iterator[tuple[FileTimes, int]]:
    """Yield each file but the first, in order of time, with the ticks without a row before it."""
    end = files[0].last
    for file in files[1:]:
        yield file, max(file.first - end, 0)
        end = max(end, file.last)


def name_the_files(
    error: LateRowError, source: Source, used: Sequence[UsedFile], order: str, output: Destination
) -> LateRowError:
    """Add to the error which file was read before the late row, if footers show it.

    `used` are the files that earlier runs read. If used files with overlapping times are gone, the
    error also says how to rerun in case the late row's file replaces them.
    """
    times = source.times(source.files)
    index = next((i for i, item in enumerate(times) if item.path == error.file), None)
    if index is None or source.time is None:
        return error
    kind = source.schema.field(source.time).type
    if (ahead := last_with(times[:index], error.last)) is not None:
        fix = (
            "Their times overlap: merge and sort them by time."
            if order == "time"
            else 'Files are read in order of their names; with [source] order = "time" they are '
            "read in order of their earliest times."
        )
        read = f"{ahead.shown(kind)} was read before {times[index].shown(kind)}"
        error = error.because(f"{read}. {fix} {_IF_EXPECTED}")
    elif last_with(times[index : index + 1], error.last) is None:
        ahead = last_with(_times_of(used), error.last)
        if ahead is not None:
            absent = {file.path for file in used if file.gone}
            fix = _rewind(output, absent, times[index].first, source.files[index].name, order)
            error = error.because(
                f"An earlier run read {ahead.shown(kind)}, before this file. {fix} {_IF_EXPECTED}"
            )
    gone = _times_of(file for file in used if file.gone)
    first, last = times[index].first, times[index].last
    replaced = [item for item in gone if item.first <= last and first <= item.last]
    if not replaced:
        return error
    options = " ".join(f"--reload-file {item.path}" for item in replaced[:3])
    return error.because(
        f"{error.args[1]} The source no longer has files that earlier runs used: "
        f"{first_of([item.shown(kind) for item in replaced])}. If {times[index].path} replaces "
        f"{'it' if len(replaced) == 1 else 'them'}, rerun with {options}."
    )


def name_the_order(error: LateRowError, source: Source, used: Sequence[UsedFile]) -> LateRowError:
    """Add to the error that sorting the file would fix it.

    Sorting would not fix it if an earlier file ends after this one begins; then nothing is added.
    """
    index = next((i for i, file in enumerate(source.files) if file.path == error.file), 0)
    times = source.times(source.files[: index + 1])
    if not times or len(times) <= index:
        return error
    before = [*times[:-1], *_times_of(used)]
    alone = all(item.last <= times[-1].first for item in before)
    return error.cured_by_sorting() if alone else error


def name_the_position(
    error: LateRowError, position: CallPosition | None, state: pa.Table, column: str, live: int
) -> LateRowError:
    """Add to the error that `state` has rows of `process` or sessions, and how to leave them out.

    `live` is the number of rows of sessions; 0: the state is from `process`.
    """
    newest = pc.max(state["last_time"]).cast(pa.string())
    calls, origin = "`process`", "The state is from a checkpoint of `process`"
    if live:
        calls, origin = "sessions", f"The output has {count(live, 'row')} of sessions"
    where = "" if position is None else f", whose last position is {position!r}"
    return error.because(
        f"{origin}{where}: no list of files says which rows it has. If this row is one of them, "
        "leave out the files "
        f'that {calls} read, with [source] after = {{ time = "{newest}" }}: the newest '
        f"{column} in the state; or with {{ path = … }} or {{ partition = … }}. {error.args[1]}"
    )


def _rewind(output: Destination, absent: Container[str], first: int, late: str, order: str) -> str:
    """Return how to score the file `late`, whose times begin at `first`, before later files.

    `absent` are the used files that the source lacks.
    """
    last = output.last
    later = [file.path for file in _times_of(last.sources) if file.last > first] if last else []
    target = commit_before(last, later) if last and later else None
    if last is None or target is None:
        return "To score all files in order of their times, start over with --full-refresh."
    again = [file.path for file in last.sources[target.sources :]]
    paths = [late, *again]
    by_name = order != "time" and min(paths, key=Hive(paths).order) != late
    missing = [name for name in again if name in absent]
    back = f"streamrnn rewind {location(str(output.place))} --before {later[0]}"
    setting = 'set [source] order = "time", ' if by_name else ""
    advice = (
        f"To score this file before later ones, {setting}go back with `{back}`, and rerun: "
        f"{count(len(again), 'used file')} {'is' if len(again) == 1 else 'are'} then scored "
        "again."
    )
    if missing:
        advice += (
            f" The source does not have {first_of(missing)}: run the pipeline for "
            f"{'it' if len(missing) == 1 else 'these'} again, too, in the order of time."
        )
    return advice


def _times_of(used: Iterable[UsedFile]) -> list[FileTimes]:
    """Return the times of the used files whose times are known."""
    return [
        FileTimes(file.path, file.content.first, file.content.last)
        for file in used
        if file.content is not None
        and file.content.first is not None
        and file.content.last is not None
    ]
