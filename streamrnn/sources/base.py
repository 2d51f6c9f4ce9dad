"""What a source of record batches has to say and do."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from streamrnn.sources.content import UNREAD, Content, Reading
from streamrnn.sources.files import SourceFile
from streamrnn.sources.formats import Footer
from streamrnn.sources.origin import Origin
from streamrnn.sources.position import Position
from streamrnn.sources.timeline import FileTimes


@dataclass(frozen=True)
class SourceBatch:
    """One record batch, the place of its first row, and the position behind its last.

    `reading` is of all rows of the file before that position.
    """

    batch: pa.RecordBatch
    file: str
    first_row: int
    position: Position
    reading: Reading = UNREAD

    @property
    def origin(self) -> Origin:
        """Where each of its rows comes from."""
        return Origin.consecutive(self.file, self.first_row, self.batch.num_rows)


class Source(Protocol):
    """Record batches with positions. Nothing is opened before it is asked for.

    `replayable`: it can be read again, so that a run can resume within it; otherwise it is read
    once, to its end. `files` are those to read, in order; none of a source that has no files.
    `time` names the column whose range files know, if there is one.
    """

    replayable: bool
    files: list[SourceFile]
    time: str | None

    @property
    def name(self) -> str:
        """What messages call the place that the schema is from."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns in use, dictionaries decoded. Raises DataError."""

    @property
    def identity(self) -> Hashable:
        """What it holds, as far as can be told without reading it: another one if that changes."""

    @property
    def of_files(self) -> SourceOfFiles | None:
        """Itself, where what it holds is files that can be read again; None for a pipe."""

    def total_rows(self) -> int | None:
        """Rows of all files; None where that cannot be known before they are read."""

    def times(self, files: Sequence[SourceFile]) -> list[FileTimes]:
        """The times of those of its files that say them without being read, in their order."""

    def in_time_order(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Its files in the order of their earliest times. Raises DataError if one does not say."""

    def batches(
        self, start: Position | None = None, before: Content | None = None
    ) -> Iterator[SourceBatch]:
        """All record batches, or those from `start` on, a position that a batch of it had.

        `before` is the content of the rows before `start`. Raises DataError, with the place, for
        what cannot be read to its end.
        """


class SourceOfFiles(Source, Protocol):
    """A source whose files a later run finds again, and knows by what they hold.

    `order`: names of columns as earlier runs had them, where the files have the same ones.
    """

    order: list[str]

    def footer(self, file: SourceFile) -> Footer:
        """What a file says of its rows without their being read. Raises DataError."""

    def content(self, file: SourceFile, rows: int | None = None) -> Content:
        """What the first `rows` rows of a file hold (default: all). Raises DataError."""

    def is_complete(self, file: SourceFile) -> bool:
        """Whether it is there whole: a file that is still written may not be."""

    def total_rows(self) -> int:
        """Rows of all files."""

    def largest_group(self) -> int:
        """Rows of the largest group, or batch, that is read at once."""

    def check_schemas(self) -> None:
        """Raise DataError if a file lacks a column in use or has it with another type."""
