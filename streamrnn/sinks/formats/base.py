"""What a format of parts has to say and do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from streamrnn.storage import Output


class PartFormat(Protocol):
    """How the rows of a part stand in a file. `suffix` ends the names of its files."""

    suffix: str

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> GroupWriter:
        """A writer into a new file; `first` are the rows that will be written first.

        Equal rows in equal groups give equal bytes.
        """

    def batches(self, source: pa.NativeFile, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows of a file that `create` made, in order, `rows` at most at a time.

        Raises pa.ArrowException for a damaged file.
        """


class GroupWriter(Protocol):
    """Writes groups of rows into one file."""

    def write(self, table: pa.Table) -> None:
        """Add a group of rows."""

    def close(self) -> None:
        """Write the end of the file."""

    def abandon(self) -> None:
        """Write nothing more, whatever becomes of this object."""
