"""Cut the rows of a source into epochs, one commit each, and epochs into workers' row ranges."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from streamrnn.stream.scoring import LoadedPipeline
from streamrnn.stream.sources import Position, SourceFile, SourceOfFiles


@dataclass(frozen=True)
class RowRange:
    """Consecutive rows of some files, which one worker reads.

    They begin at `start` in the first file (None: its beginning) and end before `stop` in the last
    one (None: its end). `first` is the number of the first row in the input of the run.
    """

    files: tuple[SourceFile, ...]
    start: Position | None
    stop: Position | None
    first: int
    rows: int


@dataclass(frozen=True)
class Epoch:
    """The row ranges of one commit, and the position after them; None at the end of the source."""

    row_ranges: tuple[RowRange, ...]
    position: Position | None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(row_range.rows for row_range in self.row_ranges)


class _Group(NamedTuple):
    """A row group, or the rest of one: its file, and its number of rows.

    `start` is the position of its first row, `number` the number of that row in the input.
    """

    file: SourceFile
    start: Position
    rows: int
    number: int


def cut(
    source: SourceOfFiles, start: Position | None, scored: int, epoch_rows: int, range_rows: int
) -> list[Epoch]:
    """Cut the rows of the source from `start` on, at row groups, into epochs of row ranges.

    `scored` is the number of rows of the run before `start`. An epoch or a row range has at least
    one row group, but otherwise no more rows than its limit. Footers are read, rows are not.
    """
    groups = list(_groups(source, start, scored))
    epochs = []
    for epoch, following in _runs(groups, epoch_rows):
        row_ranges = tuple(
            _row_range(own, after or following) for own, after in _runs(epoch, range_rows)
        )
        end = epoch[-1]
        epochs.append(Epoch(row_ranges, None if following is None else _end(end, following)))
    return epochs


def epoch_rows(source: SourceOfFiles, loaded: LoadedPipeline) -> list[int]:
    """Return the number of rows of each epoch of a run over all files of a source."""
    rows = rows_of_an_epoch(source, loaded)
    return [epoch.rows for epoch in cut(source, None, 0, rows, rows)]


def rows_of_an_epoch(source: SourceOfFiles, loaded: LoadedPipeline) -> int:
    """Return [engine] epoch_rows, or the number of all rows if the kind needs the end."""
    if loaded.kind.needs_end:
        return max(1, source.total_rows())
    return loaded.config.engine.epoch_rows


def _groups(source: SourceOfFiles, start: Position | None, scored: int) -> Iterator[_Group]:
    """Yield the row groups of all files; a file without rows yields one empty group."""
    number = scored
    for file in source.files:
        begin = start.file_row if start is not None and start.file == file.name else 0
        sizes = source.footer(file).groups
        row, left = 0, False
        for index, size in enumerate(sizes):
            skipped = min(max(begin - row, 0), size)
            if size > skipped:
                position = Position(file.name, index, skipped, row + skipped, False)
                yield _Group(file, position, size - skipped, number)
                number += size - skipped
                left = True
            row += size
        if not left:
            yield _Group(file, Position(file.name, len(sizes), 0, row, False), 0, number)


def _runs(groups: Sequence[_Group], rows: int) -> Iterator[tuple[Sequence[_Group], _Group | None]]:
    """Divide row groups into runs; yield each with the row group after it.

    A run has at most `rows` rows, or a single row group with rows.
    """
    first = total = 0
    for index, group in enumerate(groups):
        if index > first and total and total + group.rows > rows:
            yield groups[first:index], group
            first, total = index, 0
        total += group.rows
    if groups:
        yield groups[first:], None


def _row_range(groups: Sequence[_Group], following: _Group | None) -> RowRange:
    files = tuple(file for file, _ in groupby(group.file for group in groups))
    start = groups[0].start
    goes_on = following is not None and following.file == files[-1]
    return RowRange(
        files=files,
        start=start if start.file_row else None,
        stop=following.start if goes_on and following is not None else None,
        first=groups[0].number,
        rows=sum(group.rows for group in groups),
    )


def _end(last: _Group, following: _Group) -> Position:
    """Return the position after a row group: in the same file, or at the end of its file."""
    if following.file == last.file:
        return following.start
    row = last.start.file_row + last.rows
    return Position(last.file.name, last.start.row_group + (last.rows > 0), 0, row, True)
