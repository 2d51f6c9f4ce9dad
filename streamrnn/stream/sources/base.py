"""The interface of a source of record batches."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Bools
from streamrnn.stream.sources.content import Content, Reading
from streamrnn.stream.sources.files import SourceFile
from streamrnn.stream.sources.position import Origin, Position
from streamrnn.stream.sources.times import FileTimes

if TYPE_CHECKING:
    from streamrnn.stream.sources.reading import FileSource


@dataclass(frozen=True)
class SourceBatch:
    """One record batch, the origin of its rows, and the position after it.

    `readings`: name of a file -> what has been read of the file up to the end of the batch, for
    each file that has rows or ends in the batch. `cast` counts the values of columns that have
    another type in their file than in the source's schema. `offset` is an offset other than UTC in
    the text of times; "" for none.
    """

    batch: pa.RecordBatch
    origin: Origin
    position: Position
    readings: Mapping[str, Reading] = field(default_factory=dict)
    cast: int = 0
    offset: str = ""

    def kept(self, keep_N: Bools) -> Self:
        """Return the batch with only the rows to keep, at the same position."""
        if keep_N.all():
            return self
        rows = np.flatnonzero(keep_N)
        return replace(self, batch=self.batch.take(pa.array(rows)), origin=self.origin.take(rows))


class Source(Protocol):
    """Record batches with positions. Files are opened lazily; a source need not consist of files.

    `replayable`: the source can be read again, so that a run can resume within it; otherwise it is
    read once, to its end. `files`: the files to read, in order; empty for a source without files.
    `time`: the time column (files may record its range); None without one. `earlier`: columns and
    types, as text, of the first file of earlier runs, in order; to be set before `schema` is used.
    """

    replayable: bool
    files: list[SourceFile]
    time: str | None
    earlier: Mapping[str, str]

    @property
    def name(self) -> str:
        """The origin of the schema, for messages."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns in use, dictionaries decoded. Raises DataError."""

    @property
    def identity(self) -> Hashable:
        """A value that changes when the contents do, as far as is known without reading them."""

    @property
    def of_files(self) -> "FileSource | None":
        """The source itself if it consists of files that can be read again; None for a pipe."""
        return None

    def total_rows(self) -> int | None:
        """Return the number of rows of all files; None if unknown before they are read."""
        return None

    def times(self, files: Sequence[SourceFile]) -> list[FileTimes]:
        """Return the first and last times of the files whose footers record them, in order."""
        return []

    def in_time_order(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Sort files by their earliest times. Raises DataError if a file with rows records none."""
        return []

    def batches(
        self, start: Position | None = None, before: Content | None = None
    ) -> Iterator[SourceBatch]:
        """Read all record batches, or those from `start` on: the `position` after an earlier batch.

        `before` is the content of the rows before `start`. Raises DataError if the source cannot be
        read to its end.
        """
