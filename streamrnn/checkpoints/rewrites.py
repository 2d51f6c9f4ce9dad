"""Used files that are gone while new ones hold their rows: a rewritten source, not new rows.

Whatever merges, splits or rewrites files (a compaction, a nightly rewrite) leaves other files with
the rows of the old ones. Numbers of rows and digests add up, so that they are found; what is read
for that are only new files whose number of rows fits, and whose times do where footers say them.
Files that are gone for longer than since the last commit come last, as those of ordinary retention.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from posixpath import dirname
from typing import TypeVar

from streamrnn.checkpoints.manifest import UsedFile
from streamrnn.sources import Content, SourceFile, SourceOfFiles, sum_of

_STEPS = 20_000
"""Sums that are tried in all to find numbers of rows that add up."""

_FEW = 10
"""Files of which all subsets are tried."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Rewrite:
    """Used files that are gone, and the new files that hold their rows, `more` rows beside them."""

    old: tuple[UsedFile, ...]
    new: tuple[SourceFile, ...]
    more: int = 0


@dataclass
class Rewrites:
    """What was found; `unsettled`: there were more ways to add up than were tried."""

    found: list[Rewrite] = field(default_factory=list)
    unsettled: bool = False


class _New:
    """A new file; its rows and their content are read when they are asked for."""

    def __init__(self, file: SourceFile, reader: SourceOfFiles) -> None:
        self.file = file
        self.reader = reader

    @cached_property
    def rows(self) -> int:
        return self.reader.footer(self.file).rows

    @cached_property
    def times(self) -> tuple[int, int] | None:
        return self.reader.footer(self.file).times

    @cached_property
    def content(self) -> Content:
        return self.reader.content(self.file)


def find_rewrites(
    gone: Sequence[UsedFile], new: Sequence[SourceFile], reader: SourceOfFiles
) -> Rewrites:
    """The new files that hold the rows of files that are gone.

    Reads footers of all new files, and the columns of those whose rows add up. Raises DataError
    for a file that cannot be read.
    """
    search = _Search([_New(file, reader) for file in new] if gone else [])
    search.renamed([file for file in gone if file.content is None])
    known = [file for file in gone if file.content is not None and file.content.rows]
    for old in ([file for file in known if not file.gone], known):
        search.one_by_one(old)
        search.by_group(old)
    search.longer([file for file in known if not file.gone])
    return search.result


class _Search:
    """What was found so far, and the new files that are left."""

    def __init__(self, new: list[_New]) -> None:
        self.new = [each for each in new if each.rows]
        self.result = Rewrites()
        self._matched: set[str] = set()
        self._steps = _STEPS

    def _take(self, old: Sequence[UsedFile], new: Sequence[_New], more: int = 0) -> None:
        rewrite = Rewrite(tuple(old), tuple(each.file for each in new), more)
        self.result.found.append(rewrite)
        self._matched |= {file.path for file in old}
        delta = {each.file.name for each in new}
        self.new = [each for each in self.new if each.file.name not in delta]

    def _left(self, old: Sequence[UsedFile]) -> list[UsedFile]:
        return [file for file in old if file.path not in self._matched]

    def renamed(self, old: list[UsedFile]) -> None:
        """Of files that an older version used only footers are known."""
        footers = {(file.size, file.identity): file for file in old}
        sizes = {size for size, _ in footers}
        for each in list(self.new):
            file = each.file
            if file.size in sizes and (found := footers.get((file.size, file.identity()))):
                self._take([found], [each])

    def one_by_one(self, old: list[UsedFile]) -> None:
        """One file for one other."""
        by_content: dict[tuple[int, int], list[UsedFile]] = {}
        fitting: set[tuple[int, tuple[int, int] | None]] = set()
        for file in self._left(old):
            content = _content(file)
            by_content.setdefault(_key(content), []).append(file)
            fitting |= {(content.rows, _times(content)), (content.rows, None)}
        untimed = all(times is None for _, times in fitting)
        for each in list(self.new):
            if (each.rows, None if untimed else each.times) in fitting:
                same = by_content.get(_key(each.content))
                if same:
                    self._take([same.pop()], [each])

    def by_group(self, old: list[UsedFile]) -> None:
        """New files of one folder, then all of them, for some that are gone from wherever."""
        folders = dict.fromkeys(dirname(each.file.name) for each in self.new)
        for folder in [*folders, None]:
            self._one_for_some(self._group(folder), old, folder)
            group = self._group(folder)
            within = self._candidates(old, group, folder)
            if not (group and within):
                continue
            for match in (self._all_for_some, self._some_for_all, self._some_for_some):
                if match(within, group):
                    break

    def _all_for_some(self, old: list[UsedFile], new: list[_New]) -> bool:
        """All that are gone for some of the others."""
        rows = sum(_content(file).rows for file in old)
        ways = self._adding_up([each.rows for each in new], rows)
        return any(self._same(old, [new[i] for i in some]) for some in ways)

    def _some_for_all(self, old: list[UsedFile], new: list[_New]) -> bool:
        """Some that are gone for all the others."""
        ways = self._adding_up([_content(file).rows for file in old], sum(n.rows for n in new))
        return any(self._same([old[i] for i in some], new) for some in ways)

    def _some_for_some(self, old: list[UsedFile], new: list[_New]) -> bool:
        """Any of a few files for any of a few others, the most of them first."""
        if max(len(old), len(new)) > _FEW:
            return False
        rows = {sum(each.rows for each in some) for some in _subsets(new)}
        fitting = [some for some in _subsets(old) if sum_of(map(_content, some)).rows in rows]
        if not fitting:
            return False
        contents = {_key(sum_of(each.content for each in some)): some for some in _subsets(new)}
        for some in fitting:
            if found := contents.get(_key(sum_of(map(_content, some)))):
                self._take(some, found)
                return True
        return False

    def _one_for_some(self, group: list[_New], old: list[UsedFile], folder: str | None) -> None:
        for each in group:
            if self._steps:
                self._some_for_all(self._candidates(old, [each], folder), [each])

    def longer(self, old: list[UsedFile]) -> None:
        """A file that begins with the rows of all that are gone (from its folder, or wherever), and
        has others behind them."""
        for each in list(self.new):
            folder = dirname(each.file.name)
            left = self._left(old)
            for files in ([file for file in left if dirname(file.path) == folder], left):
                if _begins_with(each, files):
                    rows = sum(_content(file).rows for file in files)
                    self._take(files, [each], each.rows - rows)
                    break

    def _group(self, folder: str | None) -> list[_New]:
        return [each for each in self.new if folder in (None, dirname(each.file.name))]

    def _candidates(
        self, old: list[UsedFile], new: list[_New], folder: str | None
    ) -> list[UsedFile]:
        """Files that are gone whose rows may be in the new ones, as far as times tell; without
        times those of the same folder, or all for all new files."""
        left = self._left(old)
        times = [each.times for each in new if each.times is not None]
        if times and len(times) == len(new):
            first, last = min(t[0] for t in times), max(t[1] for t in times)
            return [file for file in left if _lies_within(_content(file), first, last)]
        return [file for file in left if folder in (None, dirname(file.path))]

    def _same(self, old: list[UsedFile], new: list[_New]) -> bool:
        """Take them if they hold the same rows."""
        total = sum_of(map(_content, old))
        if not _fits(old, new) or not total.holds_the_rows_of(sum_of(n.content for n in new)):
            return False
        self._take(old, new)
        return True

    def _adding_up(self, rows: list[int], total: int) -> Iterator[tuple[int, ...]]:
        """Which of the numbers add up to `total`; all of them alone if they do."""
        if not rows or not total or sum(rows) < total:
            return
        if sum(rows) == total:
            yield tuple(range(len(rows)))
            return
        order = sorted(range(len(rows)), key=lambda i: -rows[i])
        waiting: list[tuple[int, int, tuple[int, ...]]] = [(0, total, ())]
        while waiting:
            if not self._steps:
                self.result.unsettled = True
                return
            self._steps -= 1
            at, left, chosen = waiting.pop()
            if left == 0:
                yield tuple(sorted(chosen))
            elif at < len(rows):
                waiting.append((at + 1, left, chosen))
                if rows[order[at]] <= left:
                    waiting.append((at + 1, left - rows[order[at]], (*chosen, order[at])))


def _subsets(items: list[_Item]) -> Iterator[tuple[_Item, ...]]:
    """All subsets with members, the largest first."""
    for size in range(len(items), 0, -1):
        yield from combinations(items, size)


def _times(content: Content) -> tuple[int, int] | None:
    if content.first is None or content.last is None:
        return None
    return content.first, content.last


def _key(content: Content) -> tuple[int, int]:
    return content.rows, content.digest


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


def _lies_within(content: Content, first: int, last: int) -> bool:
    if content.first is None or content.last is None:
        return True
    return first <= content.first and content.last <= last


def _begins_with(new: _New, old: list[UsedFile]) -> bool:
    total = sum_of(map(_content, old))
    if not 0 < total.rows < new.rows:
        return False
    if new.times is not None and not _lies_within(total, *new.times):
        return False
    return new.reader.content(new.file, total.rows).holds_the_rows_of(total)
