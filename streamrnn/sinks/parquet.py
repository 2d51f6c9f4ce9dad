"""One part of the output: a Parquet file, written in staging."""

from dataclasses import dataclass
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.sinks.files import Files, telling

# Readers skip and parallelize by row group: many tiny ones cost more than this buffer.
GROUP_ROWS = 131072


@dataclass(frozen=True)
class Part:
    """A finished part. `commit` is the number of the commit that wrote it."""

    name: str
    rows: int
    bytes: int
    sha256: str
    commit: int

    @property
    def staged(self) -> str:
        """Its name in staging: no two commits share one, so a leftover is never taken for it."""
        return f"{self.commit:05d}-{self.name}.tmp"


class PartWriter:
    """Writes batches of one schema into one Parquet file.

    `files` and `name` say where it is written (in staging), `part_name` and `commit` what it will
    be. Batches are gathered into row groups of at least `GROUP_ROWS` rows. Raises SinkError.
    """

    def __init__(
        self, files: Files, name: str, schema: pa.Schema, part_name: str, commit: int
    ) -> None:
        self.schema = schema
        self.rows = 0
        self._part_name = part_name
        self._commit = commit
        self._path = files.show(name)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._output = files.create(name)
        # Floats hardly ever repeat: a dictionary of them costs time and saves nothing.
        words = [field.name for field in schema if not pa.types.is_floating(field.type)]
        with telling("write", self._path):
            self._writer = pq.ParquetWriter(self._output, schema, use_dictionary=words)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; raises SinkError. The batch must have the schema of the part."""
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self.rows += batch.num_rows
        if self._waiting_rows >= GROUP_ROWS:
            self._write_group()

    def _write_group(self) -> None:
        table = pa.Table.from_batches(self._waiting, self.schema)
        self._waiting, self._waiting_rows = [], 0
        with telling("write", self._path):
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def finish(self) -> Part:
        """Write what waits, sync and close: from here the part is whole and lasts."""
        output = self._output
        try:
            if self._waiting_rows or not self.rows:
                self._write_group()
            with telling("write", self._path):
                self._writer.close()
            output.finish()
        finally:
            self.abandon()
        return Part(self._part_name, self.rows, output.bytes, output.sha256, self._commit)

    def abandon(self) -> None:
        """Close, finished or not; what is not stays in staging until the next start removes it."""
        self._writer.is_open = False  # or pyarrow would write the footer when it is collected
        self._output.close()

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.abandon()
