"""Parts as Parquet files: one row group per group of rows."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streamrnn.base.storage import Output

SAMPLE = 8192
"""Number of rows sampled to estimate whether the values of a column repeat."""

LONG = 64
"""Mean number of bytes from which values are too long to be keys."""


class ParquetFormat:
    """Parquet files."""

    suffix = ".parquet"

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> "ParquetGroups":
        """Create a writer with dictionaries for the columns whose values repeat in `first`."""
        return ParquetGroups(output, schema, [n for n in first.column_names if _repeats(first[n])])

    def batches(
        self, source: pa.NativeFile, rows: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read all rows of a file in order, at most `rows` at a time; None means all columns."""
        file = pq.ParquetFile(source, pre_buffer=False)
        batches: Iterator[pa.RecordBatch] = file.iter_batches(
            rows, columns=None if columns is None else list(columns)
        )
        return batches

    def rows(self, source: pa.NativeFile) -> int:
        """Return the number of rows of a file, from its footer."""
        rows: int = pq.ParquetFile(source, pre_buffer=False).metadata.num_rows
        return rows

    def schema(self, source: pa.NativeFile) -> pa.Schema:
        """Return the schema of a file, from its footer."""
        return pq.ParquetFile(source, pre_buffer=False).schema_arrow


class ParquetGroups:
    """A Parquet file being written."""

    def __init__(self, output: Output, schema: pa.Schema, dictionaries: list[str]) -> None:
        self._writer = pq.ParquetWriter(output, schema, use_dictionary=dictionaries)

    def write(self, table: pa.Table) -> None:
        """Add a row group."""
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()

    def abandon(self) -> None:
        """Prevent the footer that pyarrow would write on garbage collection."""
        self._writer.is_open = False


def _repeats(column: pa.ChunkedArray) -> bool:
    """Return whether a dictionary of the values pays off.

    For text, a random sample decides whether values occur twice or more on average. Floats hardly
    ever repeat. With 2,000,000 rows, 100,000 keys per row group took 158 ms and 11.6 MB with a
    dictionary, 57 ms and 9.9 MB without; 10,000 keys took equal time, and 4.1 MB instead of 10.1.
    """
    kind = column.type
    if pa.types.is_floating(kind):
        return False
    short = column.nbytes < min(LONG * len(column), 1 << 30)  # else a sample would cost too much
    if not short or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return True
    rows = np.random.default_rng(0).integers(0, len(column), SAMPLE)
    distinct: int = pc.count_distinct(column.take(pa.array(rows))).as_py()
    return distinct < SAMPLE * 15 // 16  # 94 % are distinct if each occurs twice in 131,072 rows
