"""The interface of a format of parts."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from streamrnn.base.storage import Output


class PartFormat(Protocol):
    """A file format of parts, whose names end in `suffix`.

    Tables can index the files of `INDEXED_FORMATS` in `config/values.py`.
    """

    suffix: str

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> "GroupWriter":
        """Create a writer to a new file; `first` are the rows that will be written first.

        Equal rows in equal groups give equal bytes.
        """

    def batches(
        self, source: pa.NativeFile, rows: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read all rows of a file made by `create`, in order, at most `rows` at a time.

        With `columns`, only these are read, in the order of the file; unknown ones are left out.
        Raises pa.ArrowException for a damaged file.
        """

    def rows(self, source: pa.NativeFile) -> int:
        """Return the number of rows of a file. Raises pa.ArrowException for a damaged one."""

    def schema(self, source: pa.NativeFile) -> pa.Schema:
        """Return the schema of a file. Raises pa.ArrowException for a damaged one."""


class GroupWriter(Protocol):
    """Writes groups of rows to one file."""

    def write(self, table: pa.Table) -> None:
        """Add a group of rows."""

    def close(self) -> None:
        """Write the end of the file."""

    def abandon(self) -> None:
        """Prevent further writes, also on garbage collection."""
