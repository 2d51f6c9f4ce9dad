"""Files that state the types of their columns: Parquet and Arrow IPC."""

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.stream.sources.formats.base import (
    TICKS,
    ColumnStatistics,
    FileFormat,
    FileReader,
    Footer,
    Hints,
)

_UNITS = {"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
_INT64 = 1 << 63
# Decoding fewer rows takes less time than handing them to threads (100 instead of 200 µs).
_FEW_ROWS = 4096


class ParquetReader(FileReader):
    """One open Parquet file, with statistics in its footer."""

    def __init__(self, stream: pa.NativeFile, hints: Hints) -> None:
        # pre_buffer=False bounds memory (20 MB instead of 319 MB for a 321 MB file).
        self._file = pq.ParquetFile(stream, pre_buffer=False)
        self.schema: pa.Schema = self._file.schema_arrow

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        metadata = self._file.metadata
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        sizes = [group.num_rows for group in groups]
        if kind is None:
            return Footer(sizes, None)
        names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        if time not in names:
            return Footer(sizes, None)
        index = names.index(time)
        column = metadata.schema.column(index)
        chunks = [group.column(index) for group in groups if group.num_rows]
        ranges = [_range(chunk, column, kind) for chunk in chunks]
        recorded = [ends for ends in ranges if ends]
        times = None
        if recorded and len(recorded) == len(ranges):
            times = min(first for first, _ in recorded), max(last for _, last in recorded)
        return Footer(sizes, times, column.physical_type)

    def statistics(self, columns: Sequence[str]) -> dict[str, ColumnStatistics]:
        metadata = self._file.metadata
        paths = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        return {
            name: sum(
                (_chunk_statistics(group.column(paths[name]), group.num_rows) for group in groups),
                ColumnStatistics(),
            )
            for name in columns
            if name in paths
        }

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        metadata = self._file.metadata
        groups = list(range(group, metadata.num_row_groups))
        batches: Iterator[pa.RecordBatch] = self._file.iter_batches(
            rows, row_groups=groups, columns=columns, use_threads=metadata.num_rows > _FEW_ROWS
        )
        return batches


def _chunk_statistics(chunk: pq.ColumnChunkMetaData, rows: int) -> ColumnStatistics:
    statistics = chunk.statistics
    if statistics is None or not statistics.has_null_count:
        return ColumnStatistics(rows, unrecorded=rows)
    nulls = statistics.null_count
    if not statistics.has_min_max:
        return ColumnStatistics(rows, nulls, unrecorded=rows - nulls)
    if statistics.logical_type.type in ("DATE", "TIMESTAMP"):  # Python's do not reach all of them
        return ColumnStatistics(rows, nulls)
    return ColumnStatistics(rows, nulls, _number(statistics.min), _number(statistics.max))


def _number(value: object) -> float | None:
    # Writers store a minimum of zero as -0.0.
    return float(value) + 0.0 if isinstance(value, int | float | Decimal) else None


def _range(
    chunk: pq.ColumnChunkMetaData, column: pq.ColumnSchema, kind: pa.DataType
) -> tuple[int, int] | None:
    statistics = chunk.statistics
    if statistics is None or not statistics.has_min_max:
        return None
    if pa.types.is_timestamp(kind):
        unit = _UNITS.get(json.loads(column.logical_type.to_json()).get("timeUnit", ""))
        if unit is None or column.physical_type != "INT64":
            return None
        ends = (statistics.min_raw, statistics.max_raw)
        first, last = (end * TICKS[kind.unit] // TICKS[unit] for end in ends)
        return (first, last) if -_INT64 <= first <= last < _INT64 else None  # cannot be cast
    if pa.types.is_date(kind):
        # The raw values are days (Parquet has no date64); Python's dates do not reach all of them.
        is_date = column.logical_type.type == "DATE"
        return (statistics.min_raw, statistics.max_raw) if is_date else None
    ends = (statistics.min, statistics.max)
    return ends if all(isinstance(end, int) for end in ends) else None


PARQUET = FileFormat("Parquet", (".parquet", ".pq"), ParquetReader)


_MAGIC = b"ARROW1"


class ArrowReader(FileReader):
    """One open Arrow IPC file or stream: its first bytes, not its name, decide which of the two.

    Values are validated before use. A stream has no footer.
    """

    def __init__(self, stream: pa.NativeFile, hints: Hints) -> None:
        self._stream = stream
        start = stream.read(len(_MAGIC))
        stream.seek(0)
        self._file = pa.ipc.open_file(stream) if start == _MAGIC else None
        self.schema: pa.Schema = (self._file or pa.ipc.open_stream(stream)).schema
        if self._file is None:
            stream.seek(max(stream.size() - 8, 0))
            if stream.read() != b"\xff\xff\xff\xff\0\0\0\0":
                raise pa.ArrowInvalid(
                    "the end of the stream is missing: is it still being written?"
                )

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        """Return the number of rows of each record batch, of which only one column is read."""
        one = pa.ipc.IpcReadOptions(included_fields=[0])
        return Footer([batch.num_rows for batch in self._from(0, one)], None, "record batches")

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in self._from(group):
            batch = batch.select(columns)
            batch.validate(full=True)
            for first in range(0, batch.num_rows, rows):
                yield batch.slice(first, rows)

    def _from(
        self, group: int, options: pa.ipc.IpcReadOptions | None = None
    ) -> Iterator[pa.RecordBatch]:
        if self._file is None:
            self._stream.seek(0)
            yield from islice(pa.ipc.open_stream(self._stream, options=options), group, None)
            return
        file = self._file if options is None else pa.ipc.open_file(self._stream, options=options)
        for i in range(group, file.num_record_batches):
            yield file.get_batch(i)


ARROW = FileFormat("Arrow IPC", (".arrow", ".feather", ".ipc", ".arrows"), ArrowReader)
