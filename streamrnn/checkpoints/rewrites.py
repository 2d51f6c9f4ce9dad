"""Used files that are gone while new ones hold their rows: a rewritten source, not new rows.

Whatever merges, splits or rewrites files (a compaction, a nightly rewrite) leaves other files with
the rows of the old ones. Numbers of rows and digests add up, so that they are found one by one or
by folder; what is read for that are only new files whose number of rows fits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from posixpath import dirname

from streamrnn.checkpoints.manifest import UsedFile
from streamrnn.sources import Content, ParquetSource, SourceFile, sum_of

_STEPS = 5_000
"""Sums that are tried to find files whose numbers of rows add up: enough for 12 files."""


@dataclass(frozen=True)
class Rewrite:
    """Used files that are gone, and the new files that hold the same rows."""

    old: tuple[UsedFile, ...]
    new: tuple[SourceFile, ...]


class _New:
    """A new file; its rows and their content are read when they are asked for."""

    def __init__(self, file: SourceFile, reader: ParquetSource) -> None:
        self.file = file
        self._reader = reader

    @cached_property
    def rows(self) -> int:
        return self._reader.footer(self.file).rows

    @cached_property
    def times(self) -> tuple[int, int] | None:
        return self._reader.footer(self.file).times

    @cached_property
    def content(self) -> Content:
        return self._reader.content(self.file)


def find_rewrites(
    gone: Sequence[UsedFile], new: Sequence[SourceFile], reader: ParquetSource
) -> list[Rewrite]:
    """The new files that hold the rows of files that are gone.

    Reads footers of all new files, and the columns of those whose rows add up. Raises DataError
    for a file that cannot be read.
    """
    if not gone or not new:
        return []
    old = [file for file in gone if file.content is not None and file.content.rows]
    found = list(_same_footers(gone, new))
    taken = {file.name for rewrite in found for file in rewrite.new}
    fresh = [_New(file, reader) for file in new if file.name not in taken]
    fresh = [file for file in fresh if file.rows]
    for match in (_one_by_one, _by_folder, _all_in_some):
        for olds, news in match(old, fresh):
            found.append(Rewrite(tuple(olds), tuple(each.file for each in news)))
            old = [file for file in old if file not in olds]
            fresh = [file for file in fresh if file not in news]
    return found


_Match = tuple[list[UsedFile], list[_New]]


def _same_footers(gone: Sequence[UsedFile], new: Sequence[SourceFile]) -> Iterator[Rewrite]:
    """Of files that an older version used only footers are known: those that were renamed."""
    known = {(file.size, file.identity): file for file in gone if file.content is None}
    sizes = {size for size, _ in known}
    for file in new:
        if file.size in sizes and (old := known.get((file.size, file.identity()))):
            yield Rewrite((old,), (file,))


def _one_by_one(old: list[UsedFile], new: list[_New]) -> Iterator[_Match]:
    by_rows: dict[int, list[UsedFile]] = {}
    for file in old:
        by_rows.setdefault(_content(file).rows, []).append(file)
    for each in new:
        for file in by_rows.get(each.rows, []):
            if _fits([file], [each]) and _content(file).holds_the_rows_of(each.content):
                yield [file], [each]
                by_rows[each.rows].remove(file)
                break


def _by_folder(old: list[UsedFile], new: list[_New]) -> Iterator[_Match]:
    folders: dict[str, tuple[list[UsedFile], list[_New]]] = {}
    for each in new:
        folders.setdefault(dirname(each.file.name), ([], []))[1].append(each)
    for file in old:
        if (folder := dirname(file.path)) in folders:
            folders[folder][0].append(file)
    for olds, news in folders.values():
        yield from _within(olds, news)


def _within(old: list[UsedFile], new: list[_New]) -> Iterator[_Match]:
    """Some old ones in one new file, or all old ones in some of the new ones."""
    for each in new:
        inside = [file for file in old if _lies_within(file, each)]
        for some in _adding_up([_content(file).rows for file in inside], each.rows):
            olds = [inside[i] for i in some]
            if sum_of(map(_content, olds)).holds_the_rows_of(each.content):
                yield olds, [each]
                old = [file for file in old if file not in olds]
                new = [other for other in new if other is not each]
                break
    yield from _all_in_some(old, new)


def _all_in_some(old: list[UsedFile], new: list[_New]) -> Iterator[_Match]:
    total = sum_of(map(_content, old))
    for some in _adding_up([each.rows for each in new], total.rows):
        news = [new[i] for i in some]
        if _fits(old, news) and total.holds_the_rows_of(sum_of(each.content for each in news)):
            yield old, news
            return


def _content(file: UsedFile) -> Content:
    assert file.content is not None
    return file.content


def _fits(old: list[UsedFile], new: list[_New]) -> bool:
    """Whether rows, and times where footers say them, are such that it may be the same rows."""
    total = sum_of(map(_content, old))
    if total.rows != sum(each.rows for each in new):
        return False
    times = [each.times for each in new if each.times is not None]
    if len(times) < len(new) or total.first is None:
        return True
    return (total.first, total.last) == (min(t[0] for t in times), max(t[1] for t in times))


def _lies_within(file: UsedFile, new: _New) -> bool:
    content = _content(file)
    if new.times is None or content.first is None or content.last is None:
        return True
    return new.times[0] <= content.first and content.last <= new.times[1]


def _adding_up(rows: list[int], total: int) -> Iterator[tuple[int, ...]]:
    """Which of the numbers add up to `total`: all of them first; ends after `_STEPS` tries."""
    if not rows or not total:
        return
    everything = tuple(range(len(rows)))
    if sum(rows) == total:
        yield everything
        return
    steps = 0
    waiting: list[tuple[int, int, tuple[int, ...]]] = [(0, total, ())]
    while waiting and steps < _STEPS:
        steps += 1
        at, left, chosen = waiting.pop()
        if left == 0:
            yield chosen
        elif at < len(rows):
            waiting.append((at + 1, left, chosen))
            if rows[at] <= left:
                waiting.append((at + 1, left - rows[at], (*chosen, at)))
