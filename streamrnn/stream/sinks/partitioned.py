"""Rows of many partitions, written in bounded memory, to few files per partition.

Rows wait, divided by partition. A partition with enough rows for a group is written at once, as in
a plain folder. When too many bytes wait, partitions without rows in the newest batch get their
file: if rows come in the order of time, they are probably finished. If too many bytes still wait
(every batch has rows of all partitions), the rows are spilled unsorted to one file in staging, and
read back when their partition is finished: so partitions that take turns have one file per commit,
however many they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import methodcaller

import pyarrow as pa

from streamrnn.base.storage import Files, side_by_side, sink_errors
from streamrnn.stream.sinks import part
from streamrnn.stream.sinks.part import PartWriter, StagedPart
from streamrnn.stream.sinks.partitions import Partitioning, check_count

BUFFER = 32 << 20
"""Largest number of bytes of rows that wait."""
OPEN = 8
"""Largest number of open files of large partitions: each buffers a group of rows."""
SYNCING = 8
"""Number of files synced side by side: a disk takes about as long for several as for one."""


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
        """Write a batch; return its number."""
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
        """Read a batch back."""
        with sink_errors("read", self._path):
            if self._reader is None:
                self._source = self._files.open(self.name)
                self._reader = pa.ipc.open_file(self._source)
            return self._reader.get_batch(number)

    def close(self) -> None:
        """Close the file."""
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
        """Write all waiting rows to a file in staging."""
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
        """End the part of a partition; it is synced with the next ones."""
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
