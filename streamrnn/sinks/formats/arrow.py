"""Parts as Arrow IPC files: one record batch a group of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from streamrnn.storage import Output


class ArrowFormat:
    """Arrow IPC files, which can be mapped into memory."""

    suffix = ".arrow"

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> ArrowGroups:
        """A writer of one record batch a group."""
        return ArrowGroups(output, schema)

    def batches(self, source: pa.NativeFile, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows of a file, in order, `rows` at most at a time."""
        reader = pa.ipc.open_file(source)
        for at in range(reader.num_record_batches):
            batch = reader.get_batch(at)
            batch.validate(full=True)
            for first in range(0, batch.num_rows, rows):
                yield batch.slice(first, rows)


class ArrowGroups:
    """An Arrow file being written."""

    def __init__(self, output: Output, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_file(output, schema)

    def write(self, table: pa.Table) -> None:
        """Add a record batch."""
        if table.num_rows:
            self._writer.write_table(_settled(table), max_chunksize=table.num_rows)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()

    def abandon(self) -> None:
        """Nothing: the file below takes no more bytes."""


def _settled(table: pa.Table) -> pa.Table:
    """One chunk a column, and zeros under nulls, where an Arrow file would hold whatever is there:
    equal rows are equal bytes."""
    table = table.combine_chunks()
    rows = pa.array(np.arange(len(table)))
    columns = [column.take(rows) if column.null_count else column for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)
