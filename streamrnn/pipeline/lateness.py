"""Rows and files that go back in time: which files are to blame, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from streamrnn.checkpoints import UsedFile
from streamrnn.errors import LateRowError
from streamrnn.sources import FileTimes, Source, SourceFile, last_with, steps_back

_BY_NATURE = 'If rows come late by nature, set [source] late to "drop", "reject" or "apply".'


def note_on_order(source: Source, files: Sequence[SourceFile], order: str) -> str | None:
    """A note where the times of consecutive files go back; None where they do not, or none know."""
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
        f"{before.shown(kind)}{more}. Right if they hold other streams; otherwise set [source] "
        'order = "time"'
    )


def name_the_files(
    error: LateRowError, source: Source, used: Sequence[UsedFile], order: str
) -> LateRowError:
    """The error with the file that was ahead of the late row, where footers tell which it was.

    `used` are the files that earlier runs read.
    """
    times = source.times(source.files)
    at = next((i for i, each in enumerate(times) if each.path == error.file), None)
    if at is None or source.time is None:
        return error
    kind = source.schema.field(source.time).type
    if (ahead := last_with(times[:at], error.last)) is not None:
        return error.because(_read_before(ahead.shown(kind), times[at].shown(kind), order))
    if last_with(times[at : at + 1], error.last) is not None:
        return error
    earlier = [
        FileTimes(file.path, file.content.first, file.content.last)
        for file in used
        if file.content is not None
        and file.content.first is not None
        and file.content.last is not None
    ]
    if (ahead := last_with(earlier, error.last)) is None:
        return error
    return error.because(
        f"An earlier run read {ahead.shown(kind)}: this file came after it. To score all files in "
        f"the order of their times, start over with --full-refresh. {_BY_NATURE}"
    )


def _read_before(ahead: str, own: str, order: str) -> str:
    cure = (
        "Their times overlap: merge and sort them by time."
        if order == "time"
        else 'Files are read in the order of their names; with [source] order = "time" they are '
        "read in the order of their earliest times."
    )
    return f"{ahead} was read before {own}. {cure} {_BY_NATURE}"
