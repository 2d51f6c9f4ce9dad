"""Hive partitions of an output: folders `date=2013-01-05/origin=JFK/`.

The columns of the folders are not stored in the files, as the tools that read such folders expect:
pyarrow refuses a column that is in both with different types, and other tools take the folder's
value. `Partitioning.complete` restores the columns with their types.

All ASCII characters but letters, digits and `-_.` are percent-encoded, which Hive, Spark, pyarrow,
Polars and DuckDB decode. Other characters are written as they are, because Spark decodes byte by
byte.

Rows of many partitions are written in bounded memory, to few files per partition. A partition with
enough rows for a group is written at once, as in a plain folder; other rows wait. When too many
bytes wait, partitions without rows in the newest batch get their file: in the order of time, they
are probably finished. If too many bytes still wait, the rows are spilled unsorted to one file in
staging, and read back when their partition is finished: so partitions that take turns have one file
per commit.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import methodcaller

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamrnn.base.storage import Files, side_by_side, sink_errors
from streamrnn.errors import DataError
from streamrnn.stream.sinks import part
from streamrnn.stream.sinks.part import NULL, PartWriter, StagedPart, partition_values

MOST_PARTITIONS = 10_000
"""Largest number of partitions of one commit, each of which has at least one file of its own."""
BUFFER = 32 << 20
"""Largest number of bytes of rows that wait."""
OPEN = 8
"""Largest number of open files of large partitions: each buffers a group of rows."""
SYNCING = 8
"""Number of files synced side by side: a disk takes about as long for several as for one."""

_ENCODED = re.compile(r"[^A-Za-z0-9_.\-\x80-\U0010ffff]")
_LONGEST = 255  # bytes in the name of a folder
_FIRST, _LAST = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31, in days from 1970
_DAY = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
_CLOCK = {"year": pc.year, "month": pc.month, "hour": pc.hour}


@dataclass(frozen=True)
class PartitionColumn:
    """One level of folders, `field`: the value of `source`, or a `function` of it ("": none).

    The function is year (int32), month (1 to 12, int32), day (a date) or hour (0 to 23, int32), in
    the time zone of the column, or of `clock`, a timestamp type, if set.
    """

    field: pa.Field
    source: str
    function: str = ""
    clock: pa.DataType | None = None

    def of(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the values (N,) of N rows."""
        column = batch.column(self.source)
        if not self.function and not pa.types.is_date(column.type):
            return column
        if self.clock is not None:
            column = column.view(self.clock)
        if pa.types.is_timestamp(column.type) and column.type.tz:
            column = pc.local_timestamp(column)
        self._check_years(column)
        if not self.function:
            return column
        if self.function == "day":
            if pa.types.is_timestamp(column.type):
                column = pc.floor_temporal(column, unit="day")
            return column.cast(pa.date32())
        return _CLOCK[self.function](column).cast(pa.int32())

    def _check_years(self, times: pa.Array) -> None:
        """Raise DataError for a time outside the years 1 to 9999.

        Arrow reads dates in other years neither from folders nor from other texts; its calendar
        ends in the year 32,767.
        """
        kind = times.type
        one_day = 1 if pa.types.is_date32(kind) else _DAY[kind.unit]
        ticks = times.view(pa.int32() if pa.types.is_date32(kind) else pa.int64())
        for end in (end.as_py() for end in pc.min_max(ticks).values()):
            if end is not None and not _FIRST <= end // one_day <= _LAST:
                text = pa.scalar(end, ticks.type).cast(kind).cast(pa.string()).as_py()
                raise DataError(
                    f"[sink] partition_by: column {self.source!r} has the time {text}, but folders "
                    "can have dates of the years 1 to 9999 only. Fix the time (is its unit right?),"
                    " or remove the partition"
                )

    def folders(self, values: pa.Array) -> list[str]:
        """Return the folder of each value. Raises DataError if no folder can stand for a value.

        >>> PartitionColumn(pa.field("id", pa.string()), "id").folders(pa.array(["a/b", None]))
        ['id=a%2Fb', 'id=__HIVE_DEFAULT_PARTITION__']
        """
        return [f"{self.field.name}={self._text(t)}" for t in values.cast(pa.string()).to_pylist()]

    def _text(self, text: str | None) -> str:
        if text is None:
            return NULL
        if text in ("", NULL):
            raise DataError(
                f"[sink] partition_by: column {self.source!r} has the value {text!r}, which "
                "readers of folders take for null; replace it by null or another text"
            )
        encoded = _ENCODED.sub(lambda sign: f"%{ord(sign[0]):02X}", text)
        if len(f"{self.field.name}={encoded}".encode()) > _LONGEST:
            raise DataError(
                f"[sink] partition_by: column {self.source!r} has the value {text[:40]!r}… of "
                f"{len(text)} characters; the name of a folder has at most {_LONGEST} bytes. "
                "Choose a column with shorter values"
            )
        return encoded


@dataclass(frozen=True)
class Partitioning:
    """The levels of folders of an output whose rows have `schema`, all carried columns included."""

    columns: tuple[PartitionColumn, ...]
    schema: pa.Schema

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """Names and types of the partition columns, in the order of the folders."""
        return tuple(column.field for column in self.columns)

    @property
    def file_schema(self) -> pa.Schema:
        """The schema of the files: without the columns that the folders have."""
        apart = {field.name for field in self.fields}
        return pa.schema([field for field in self.schema if field.name not in apart])

    def split(self, batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield the folder and rows of each partition of a batch, in the order of their first rows.

        Raises DataError for a value that no folder can stand for, or too many partitions.
        """
        if not batch.num_rows:
            return
        levels: list[tuple[list[str], NDArray[np.int64]]] = []
        code_N = np.zeros(batch.num_rows, np.int64)
        for column in self.columns:
            coded = column.of(batch).dictionary_encode(null_encoding="encode")
            check_count(len(coded.dictionary))
            index_N = coded.indices.to_numpy(zero_copy_only=False)
            levels.append((column.folders(coded.dictionary), index_N))
            code_N, firsts = _numbered(code_N.astype(np.int64) * len(coded.dictionary) + index_N)
        inside = batch.select(self.file_schema.names)
        if (code_N[1:] < code_N[:-1]).any():
            inside = inside.take(pa.array(np.argsort(code_N, kind="stable")))
        start = 0
        for row, size in zip(firsts, np.bincount(code_N).tolist(), strict=True):
            folder = "/".join(texts[index_N[row]] for texts, index_N in levels)
            yield folder, inside.slice(start, size)
            start += size

    def complete(self, batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
        """Return rows of a part, with the columns of its folders added, columns of functions last.

        The batch may have only some of the file's columns. Raises DataError for folders of another
        output, pa.ArrowException for a folder's value that is not of its column's type.
        """
        texts = partition_values(name)
        if list(texts) != [field.name for field in self.fields]:
            raise DataError(
                f"{name}: expected folders of {', '.join(f.name for f in self.fields)}, received "
                f"{', '.join(texts) or 'none'}"
            )
        folders = [field for field in self.fields if field.name not in self.schema.names]
        arrays = {}
        for column in (*self.schema, *folders):
            if column.name in texts:
                value = pa.scalar(texts[column.name], pa.string()).cast(column.type)
                arrays[column] = pa.repeat(value, batch.num_rows)
            elif column.name in batch.schema.names:
                arrays[column] = batch.column(column.name)
        return pa.RecordBatch.from_arrays(list(arrays.values()), schema=pa.schema(list(arrays)))


def _numbered(code_N: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
    """Return the number (N,) of each row's code, and the first row of each code.

    Codes are numbered in the order of their first rows. The numbers have the smallest type, which
    is sorted fastest.
    """
    _, first, inverse = np.unique(code_N, return_index=True, return_inverse=True)
    check_count(len(first))
    by_first = np.argsort(first)
    number = np.empty(len(first), np.min_scalar_type(len(first)))
    number[by_first] = np.arange(len(first))
    return number[inverse], first[by_first].tolist()


def check_count(partitions: int) -> None:
    """Raise DataError for too many partitions in one commit."""
    if partitions > MOST_PARTITIONS:
        raise DataError(
            f"[sink] partition_by: there are more than {MOST_PARTITIONS:,} partitions in one "
            "commit, each of which has files of its own. Choose a column with fewer values, such "
            "as day instead of hour, or none"
        )


@dataclass
class _Partition:
    """The rows of one folder that are in no finished part: spilled rows, then waiting ones."""

    folder: str
    spilled: list[tuple["_Spill", int]] = field(default_factory=list)
    waiting: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    writer: PartWriter | None = None
    batch: int = 0


class _Spill:
    """A file in staging, whose record batches are read back by their numbers."""

    def __init__(self, files: Files, name: str, schema: pa.Schema) -> None:
        self.name = name
        self._files = files
        self._output = files.create(name)
        self._path = files.show(name)
        self._writer = pa.ipc.new_file(self._output, schema)
        self._count = 0
        self._reader: pa.ipc.RecordBatchFileReader | None = None
        self._source: pa.NativeFile | None = None

    def add(self, batch: pa.RecordBatch) -> int:
        """Write a batch, and return its number."""
        with sink_errors("write", self._path):
            self._writer.write_batch(batch)
        self._count += 1
        return self._count - 1

    def end(self) -> None:
        """End the file, without making it durable."""
        with sink_errors("write", self._path):
            self._writer.close()
        if self._files.local:
            self._output.close()
        else:
            self._output.finish()

    def read(self, number: int) -> pa.RecordBatch:
        with sink_errors("read", self._path):
            if self._reader is None:
                self._source = self._files.open(self.name)
                self._reader = pa.ipc.open_file(self._source)
            return self._reader.get_batch(number)

    def close(self) -> None:
        self._output.close()
        if self._source is not None:
            self._source.close()


class PartitionedWriter:
    """Writes batches of one schema to parts, one or more per partition.

    `create` makes the writer of the part of a folder, `spill_name` the name of a file in staging.
    Rows keep their order within a partition. Raises SinkError, and DataError for values that no
    folder can stand for.
    """

    def __init__(
        self,
        files: Files,
        partitioning: Partitioning,
        create: Callable[[str, int], PartWriter],
        spill_name: str,
    ) -> None:
        self._files = files
        self._partitioning = partitioning
        self._schema = partitioning.file_schema
        self._create = create
        self._spill_name = spill_name
        self._partitions: dict[str, _Partition] = {}
        self._folders: set[str] = set()
        self._open: dict[str, _Partition] = {}  # least recently used first
        self._spills: list[_Spill] = []
        self._ending: list[PartWriter] = []
        self._finished: list[StagedPart] = []
        self._created = 0
        self._batch = 0
        self._bytes = self._received = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch, which has all carried columns."""
        self._batch += 1
        size = batch.nbytes
        self._received += size
        for folder, rows in self._partitioning.split(batch):
            partition = self._partitions.setdefault(folder, _Partition(folder))
            share = size * rows.num_rows // batch.num_rows
            partition.waiting.append(rows)
            partition.rows += rows.num_rows
            partition.bytes += share
            partition.batch = self._batch
            self._bytes += share
            if partition.rows >= part.GROUP_ROWS:
                self._stream(partition)
        self._folders.update(self._partitions)
        check_count(len(self._folders))
        # Rows share the memory of their batch: a few that wait keep all of it alive, so the bytes
        # received are bounded, too.
        if self._bytes > BUFFER or self._received > 4 * BUFFER:
            for partition in list(self._partitions.values()):
                if partition.batch < self._batch:
                    self._finish(partition)
            if not self._bytes:
                self._received = 0
            if self._bytes > BUFFER // 2 or self._received > 4 * BUFFER:
                self._spill()

    def _spill(self) -> None:
        name = f"{self._spill_name}-{len(self._spills):03d}.arrow.tmp"
        spill = _Spill(self._files, name, self._schema)
        self._spills.append(spill)
        for partition in self._partitions.values():
            if partition.waiting:
                rows = pa.concat_batches(partition.waiting)
                partition.spilled.append((spill, spill.add(rows)))
                self._forget(partition)
        spill.end()
        self._received = 0

    def _forget(self, partition: _Partition) -> None:
        self._bytes -= partition.bytes
        partition.waiting, partition.rows, partition.bytes = [], 0, 0

    def _stream(self, partition: _Partition) -> None:
        """Write all rows of a large partition to its part, which stays open."""
        if self._open.pop(partition.folder, None) is None and len(self._open) == OPEN:
            self._finish(next(iter(self._open.values())))
        self._drain(partition)
        self._open[partition.folder] = partition

    def _drain(self, partition: _Partition) -> PartWriter:
        """Write all rows of a partition to its part; return its writer."""
        if partition.writer is None:
            partition.writer = self._create(partition.folder, self._created)
            self._created += 1
        for spill, number in partition.spilled:
            partition.writer.write(spill.read(number))
        for rows in partition.waiting:
            partition.writer.write(rows)
        partition.spilled = []
        self._forget(partition)
        return partition.writer

    def _finish(self, partition: _Partition) -> None:
        """End the part of a partition; it is synced together with other parts."""
        self._ending.append(self._drain(partition))
        self._open.pop(partition.folder, None)
        del self._partitions[partition.folder]
        if len(self._ending) >= SYNCING:
            self._sync()

    def _sync(self) -> None:
        self._finished += side_by_side(methodcaller("finish"), self._ending)
        self._ending = []

    def finish(self) -> tuple[StagedPart, ...]:
        """Write the rows that wait, sync and close all parts."""
        try:
            while self._partitions:
                self._finish(next(iter(self._partitions.values())))
            self._sync()
        finally:
            self.abandon()
        for spill in self._spills:
            self._files.delete(spill.name)
        return tuple(self._finished)

    def abandon(self) -> None:
        """Close; unfinished files stay in staging until the next start removes them."""
        for partition in self._partitions.values():
            if partition.writer is not None:
                partition.writer.abandon()
        for writer in self._ending:
            writer.abandon()
        self._ending = []
        self._partitions, self._open = {}, {}
        for spill in self._spills:
            spill.close()
