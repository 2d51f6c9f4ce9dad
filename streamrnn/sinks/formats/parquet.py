"""Parts as Parquet files: one row group a group of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streamrnn.storage import Output

SAMPLE = 8192
"""Rows that are looked at to say whether the values of a column repeat."""

LONG = 64
"""Bytes of a value that is no key."""


class ParquetFormat:
    """Parquet, read by everything."""

    suffix = ".parquet"

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> ParquetGroups:
        """A writer that uses dictionaries for the columns whose values repeat in `first`."""
        return ParquetGroups(output, schema, [n for n in first.column_names if _repeats(first[n])])

    def batches(self, source: pa.NativeFile, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows of a file, in order, `rows` at most at a time."""
        batches: Iterator[pa.RecordBatch] = pq.ParquetFile(source, pre_buffer=False).iter_batches(
            rows
        )
        return batches


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
        """Write no footer, which pyarrow would do when the writer is collected."""
        self._writer.is_open = False


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether a dictionary of the values is worth its time and space: of text, whether some
    random rows say that each comes twice or more; floats hardly ever do.

    Of 2,000,000 rows, 100,000 keys in a row group took 158 ms and 11.6 MB with a dictionary,
    57 ms and 9.9 MB without; 10,000 keys took as long with it, and 4.1 MB instead of 10.1.
    """
    kind = column.type
    if pa.types.is_floating(kind):
        return False
    short = column.nbytes < min(LONG * len(column), 1 << 30)  # or to take some would be too much
    if not short or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return True
    rows = np.random.default_rng(0).integers(0, len(column), SAMPLE)
    distinct: int = pc.count_distinct(column.take(pa.array(rows))).as_py()
    return distinct < SAMPLE * 15 // 16  # 94 % are where each comes twice in 131,072 rows
