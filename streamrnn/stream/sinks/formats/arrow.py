"""Parts as Arrow IPC files: one record batch per group of rows."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from streamrnn.base.storage import Output, canonical


class ArrowFormat:
    """Arrow IPC files, which can be memory-mapped."""

    suffix = ".arrow"

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> "ArrowGroups":
        """Create a writer of one record batch per group."""
        return ArrowGroups(output, schema)

    def batches(
        self, source: pa.NativeFile, rows: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read all rows of a file in order, at most `rows` at a time; None means all columns."""
        reader = pa.ipc.open_file(source)
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            if columns is not None:
                batch = batch.select([n for n in batch.schema.names if n in columns])
            batch.validate(full=True)
            for first in range(0, batch.num_rows, rows):
                yield batch.slice(first, rows)

    def rows(self, source: pa.NativeFile) -> int:
        """Return the number of rows of a file."""
        reader = pa.ipc.open_file(source)
        return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))

    def schema(self, source: pa.NativeFile) -> pa.Schema:
        """Return the schema of a file."""
        return pa.ipc.open_file(source).schema


class ArrowGroups:
    """An Arrow file being written."""

    def __init__(self, output: Output, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_file(output, schema)

    def write(self, table: pa.Table) -> None:
        """Add a record batch."""
        if table.num_rows:
            self._writer.write_table(canonical(table), max_chunksize=table.num_rows)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()

    def abandon(self) -> None:
        """Do nothing: the underlying file ignores further writes."""
