"""Find rewritten sources: used files that are gone while new files hold their rows.

A compaction or a nightly rewrite leaves new files with the rows of the old ones. Row counts and
digests are additive, so such files can be found. If used files are gone, the footers of all new
files are read, and the columns only of files whose row counts and times can match. Files that were
already gone at an earlier commit are tried last, as ordinary retention has probably removed them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from posixpath import dirname
from typing import TypeVar

from streamrnn.stream.checkpoints.manifest import UsedFile
from streamrnn.stream.sources import Content, FileSource, SourceFile, sum_of
from streamrnn.stream.sources.formats import Footer

_STEPS = 20_000
"""Largest number of sums that are tried to find row counts that add up."""

_FEW = 10
"""Largest number of files whose subsets are all tried."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Rewrite:
    """Used files that are gone, and the new files with their rows and `more` new rows."""

    old: tuple[UsedFile, ...]
    new: tuple[SourceFile, ...]
    more: int = 0


@dataclass
class _New:
    """A new file; its footer and its content are read on first use."""

    file: SourceFile
    reader: FileSource

    @cached_property
    def footer(self) -> Footer:
        return self.reader.footer(self.file)

    @cached_property
    def content(self) -> Content:
        return self.reader.content(self.file)


def find_rewrites(
    gone: Sequence[UsedFile], new: Sequence[SourceFile], reader: FileSource
) -> "Rewrites":
    """Find the new files that hold the rows of files that are gone.

    Raises DataError for a file that cannot be read.
    """
    search = Rewrites([_New(file, reader) for file in new] if gone else [])
    search.renamed([file for file in gone if file.content is None])
    read = [file for file in gone if file.content is not None and file.content.rows]
    for old in ([file for file in read if not file.gone], read):
        search.one_by_one(old)
        search.by_group(old)
    search.longer([file for file in read if not file.gone])
    return search


class Rewrites:
    """The rewrites that were matched so far, and the remaining new files.

    `unresolved`: not all ways in which rows may add up were tried.
    """

    def __init__(self, new: list[_New]) -> None:
        self.new = [item for item in new if item.footer.rows]
        self.matches: list[Rewrite] = []
        self.unresolved = False
        self._matched: set[str] = set()
        self._steps = _STEPS

    def _take(self, old: Sequence[UsedFile], new: Sequence[_New], more: int = 0) -> None:
        rewrite = Rewrite(tuple(old), tuple(item.file for item in new), more)
        self.matches.append(rewrite)
        self._matched |= {file.path for file in old}
        matched = {item.file.name for item in new}
        self.new = [item for item in self.new if item.file.name not in matched]

    def _left(self, old: Sequence[UsedFile]) -> list[UsedFile]:
        return [file for file in old if file.path not in self._matched]

    def renamed(self, old: list[UsedFile]) -> None:
        """Match files that no run has read, by their size and footer."""
        footers = {(file.size, file.identity): file for file in old}
        sizes = {size for size, _ in footers}
        for item in list(self.new):
            file = item.file
            if file.size in sizes and (same := footers.get((file.size, file.identity()))):
                self._take([same], [item])

    def one_by_one(self, old: list[UsedFile]) -> None:
        """Match single files that are gone with single new files."""
        by_content: dict[tuple[int, int], list[UsedFile]] = {}
        fitting: set[tuple[int, tuple[int, int] | None]] = set()
        for file in self._left(old):
            content = _content(file)
            by_content.setdefault(_key(content), []).append(file)
            fitting.add((content.rows, None))
            if content.first is not None and content.last is not None:
                fitting.add((content.rows, (content.first, content.last)))
        untimed = all(times is None for _, times in fitting)
        for item in list(self.new):
            if (item.footer.rows, None if untimed else item.footer.times) in fitting:
                same = by_content.get(_key(item.content))
                if same:
                    self._take([same.pop()], [item])

    def by_group(self, old: list[UsedFile]) -> None:
        """Match the new files of each folder, then all new files, with files that are gone."""
        folders = dict.fromkeys(dirname(item.file.name) for item in self.new)
        for folder in [*folders, None]:
            for item in self._group(folder):
                if self._steps:
                    self._some_for_all(self._candidates(old, [item], folder), [item])
            group = self._group(folder)
            within = self._candidates(old, group, folder)
            if not (group and within):
                continue
            for match in (self._all_for_some, self._some_for_all, self._some_for_some):
                if match(within, group):
                    break

    def _all_for_some(self, old: list[UsedFile], new: list[_New]) -> bool:
        """Match all files that are gone with some new files."""
        rows = sum(_content(file).rows for file in old)
        ways = self._adding_up([item.footer.rows for item in new], rows)
        return any(self._same(old, [new[i] for i in some]) for some in ways)

    def _some_for_all(self, old: list[UsedFile], new: list[_New]) -> bool:
        """Match some files that are gone with all new files."""
        rows = sum(item.footer.rows for item in new)
        ways = self._adding_up([_content(file).rows for file in old], rows)
        return any(self._same([old[i] for i in some], new) for some in ways)

    def _some_for_some(self, old: list[UsedFile], new: list[_New]) -> bool:
        """Match any subset of `old` with any subset of `new`, if both lists are short.

        Larger subsets of `old` are tried first.
        """
        if max(len(old), len(new)) > _FEW:
            return False
        rows = {sum(item.footer.rows for item in some) for some in _subsets(new)}
        fitting = [some for some in _subsets(old) if sum_of(map(_content, some)).rows in rows]
        if not fitting:
            return False
        contents = {_key(sum_of(item.content for item in some)): some for some in _subsets(new)}
        for some in fitting:
            if same := contents.get(_key(sum_of(map(_content, some)))):
                self._take(some, same)
                return True
        return False

    def longer(self, old: list[UsedFile]) -> None:
        """Match each new file that begins with the rows of files that are gone, and has more rows.

        All files that are gone from its folder are tried together first, then all that are gone.
        """
        for item in list(self.new):
            folder = dirname(item.file.name)
            left = self._left(old)
            for files in ([file for file in left if dirname(file.path) == folder], left):
                total, footer = sum_of(map(_content, files)), item.footer
                if not 0 < total.rows < footer.rows:
                    continue
                if footer.times is not None and not _lies_within(total, *footer.times):
                    continue
                if item.reader.content(item.file, total.rows).holds_the_rows_of(total):
                    self._take(files, [item], footer.rows - total.rows)
                    break

    def _group(self, folder: str | None) -> list[_New]:
        return [item for item in self.new if folder in (None, dirname(item.file.name))]

    def _candidates(
        self, old: list[UsedFile], new: list[_New], folder: str | None
    ) -> list[UsedFile]:
        """Find the files that are gone and whose rows, by their times, may be in the new files.

        If a new file has no times, these are the files from the folder (None: all).
        """
        left = self._left(old)
        times = [item.footer.times for item in new if item.footer.times is not None]
        if times and len(times) == len(new):
            first, last = min(t[0] for t in times), max(t[1] for t in times)
            return [file for file in left if _lies_within(_content(file), first, last)]
        return [file for file in left if folder in (None, dirname(file.path))]

    def _same(self, old: list[UsedFile], new: list[_New]) -> bool:
        """Record a match, and return True, if old and new files hold the same rows."""
        total = sum_of(map(_content, old))
        if total.rows != sum(item.footer.rows for item in new):
            return False
        times = [item.footer.times for item in new if item.footer.times is not None]
        if len(times) == len(new) and total.first is not None:
            first, last = min(t[0] for t in times), max(t[1] for t in times)
            if (total.first, total.last) != (first, last):
                return False
        if not total.holds_the_rows_of(sum_of(item.content for item in new)):
            return False
        self._take(old, new)
        return True

    def _adding_up(self, rows: list[int], total: int) -> Iterator[tuple[int, ...]]:
        """Yield each choice of `rows`, as indices, that sums to `total`, until no steps are left.

        If all `rows` together sum to `total`, only this choice is yielded.
        """
        if not rows or not total or sum(rows) < total:
            return
        if sum(rows) == total:
            yield tuple(range(len(rows)))
            return
        order = sorted(range(len(rows)), key=lambda i: -rows[i])
        waiting: list[tuple[int, int, tuple[int, ...]]] = [(0, total, ())]
        while waiting:
            if not self._steps:
                self.unresolved = True
                return
            self._steps -= 1
            index, left, chosen = waiting.pop()
            if left == 0:
                yield tuple(sorted(chosen))
            elif index < len(rows):
                waiting.append((index + 1, left, chosen))
                if rows[order[index]] <= left:
                    item = order[index]
                    waiting.append((index + 1, left - rows[item], (*chosen, item)))


def _subsets(items: list[_Item]) -> Iterator[tuple[_Item, ...]]:
    """Yield all non-empty subsets, the largest first."""
    for size in range(len(items), 0, -1):
        yield from combinations(items, size)


def _key(content: Content) -> tuple[int, int]:
    return content.rows, content.digest


def _content(file: UsedFile) -> Content:
    assert file.content is not None
    return file.content


def _lies_within(content: Content, first: int, last: int) -> bool:
    if content.first is None or content.last is None:
        return True
    return first <= content.first and content.last <= last
