"""Record batches of files, one after another, from any position."""

import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace

import pyarrow as pa

from streamrnn.errors import DataError
from streamrnn.stream.sources.base import SourceBatch
from streamrnn.stream.sources.casts import cast_columns
from streamrnn.stream.sources.content import NOTHING, Content
from streamrnn.stream.sources.files import SourceFile, etag
from streamrnn.stream.sources.formats import FileReader, UnparsedError
from streamrnn.stream.sources.gathering import Piece, gather_pieces
from streamrnn.stream.sources.opening import SourceFiles, one_line
from streamrnn.stream.sources.position import Cursor, Position, position_within
from streamrnn.stream.sources.schema import select
from streamrnn.stream.sources.sorting import in_time_order


class FileSource(SourceFiles):
    """The record batches of a list of files: at most `rows` rows each, of one file or several."""

    replayable = True

    def subset(self, files: Sequence[SourceFile]) -> "FileSource":
        """Return a source of some of the files, in the schema of all of them."""
        assert self.schema is not None  # found by now, from the first file
        subset = copy(self)
        subset.files, subset._footers, subset._last_common = list(files), {}, None
        subset.table = None  # its history is of use to whoever plans a run, not to a worker
        return subset

    def with_columns(self, names: Sequence[str]) -> "FileSource":
        """Return a source of the same files that reads these columns too."""
        columns = None if self.columns is None else list(dict.fromkeys([*self.columns, *names]))
        wide = self._reading(columns)
        if wide._roles is not None:
            wide._roles = [*wide._roles, *names]
        return wide

    def of_columns(self, names: Sequence[str]) -> "FileSource":
        """Return a source of the same files that reads these columns only."""
        return self._reading(list(names))

    def _reading(self, columns: Sequence[str] | None) -> "FileSource":
        found = copy(self)
        found.files, found.columns = list(self.files), columns
        found._schema, found._first, found._last_common = None, "", None
        return found

    @property
    def of_files(self) -> "FileSource":
        """The source itself."""
        return self

    def offset(self) -> str:
        """Return an offset of the text of times in UTC that is not that of UTC; "" for none.

        The first rows of files of text are read. Raises DataError.
        """
        texts = (file for file in self.files if not self._format_of(file).typed)
        found = (next(self._pieces_of(file, None, None)).offset for file in texts)
        return next(filter(None, found), "") if self.time is not None else ""

    def content(self, file: SourceFile, rows: int | None = None) -> Content:
        """Read the first `rows` rows of a file (default: all) and return their content.

        Raises DataError if the file cannot be read or lacks a column in use.
        """
        content = NOTHING
        for piece in self._pieces_of(file, None, None):
            batch = piece.batch if rows is None else piece.batch.slice(0, rows - content.rows)
            content += Content.of(batch, self.time, self.schema)
            if batch.num_rows < piece.batch.num_rows:
                break
        return content

    def batches(
        self,
        start: Position | None = None,
        before: Content | None = None,
        stop: Position | None = None,
    ) -> Iterator[SourceBatch]:
        """Read all record batches from `start` (a position in the first file), in order.

        `before` is the content of the rows before `start`, `stop` (a position in the last file) the
        first row that is not read. A file without rows gives a piece without rows, so that its end
        is a position too. Raises DataError, which names the file, if a file cannot be read to its
        end, after the rows before it.
        """
        pieces = (
            piece
            for file in self.files
            for piece in self._pieces_of(
                file, position_within(file.name, start), position_within(file.name, stop)
            )
        )
        return gather_pieces(pieces, self.rows, before or NOTHING, self._contents)

    def _contents(self, batch: pa.RecordBatch, sizes: Sequence[int]) -> list[Content]:
        return Content.of_pieces(batch, self.time, sizes, self.schema)

    def _pieces_of(
        self, file: SourceFile, start: Position | None, stop: Position | None
    ) -> Iterator[Piece]:
        if start is not None and start.done:
            return
        opened = time.time_ns()
        stream = self._stream(file)
        reader, version = self._reader(file, stream), etag(stream)
        schemas = own, schema = self._common(file, reader)
        changed = sum(a.type != b.type for a, b in zip(own, self.schema, strict=True))
        sizes = self._footer(file, reader, None).groups
        # Counted from the first row: a rewritten file may have other row groups.
        cursor = Cursor(file.name, sizes, 0, 0, 0).after(start.file_row if start else 0)
        if start is not None and not 0 <= start.file_row <= sum(sizes):
            raise DataError(
                f"{file.path}: the run cannot resume at row {start.file_row:,}: the file has "
                f"{sum(sizes):,} rows. Restore the file, or start over with --full-refresh."
            )
        if cursor.row_group >= len(sizes):
            batch = pa.RecordBatch.from_pylist([], schema=schema)
            position = cursor.position()
            yield Piece(
                batch, file.path, cursor.file_row, position, version, opened, 0, self._by_time
            )
            return
        end = None if stop is None else stop.file_row
        read = self._sorted if self._by_time else self._cast
        try:
            for batch in read(file, reader, schemas, cursor, end):
                first, values = cursor.file_row, changed * batch.num_rows
                cursor = cursor.after(batch.num_rows)
                position = cursor.position()
                offset = reader.offset(self.time) if self.time is not None else ""
                yield Piece(
                    batch,
                    file.path,
                    first,
                    position,
                    version,
                    opened,
                    values,
                    self._by_time,
                    offset,
                )
        except UnparsedError as error:
            raise self._unparsed(file, error) from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{file.path}: cannot be read after row {cursor.file_row}: {one_line(error)}. "
                "The file is damaged or was changed during the read. Write it again."
            ) from error

    def _sorted(
        self,
        file: SourceFile,
        reader: FileReader,
        schemas: tuple[pa.Schema, pa.Schema],
        start: Cursor,
        end: int | None,
    ) -> Iterator[pa.RecordBatch]:
        """Read the rows from `start` to `end`, counted in the order of their time."""
        whole = self._cast(file, reader, schemas, replace(start, row_group=0, row=0, file_row=0))
        return in_time_order(whole, str(self.time), self.rows, start.file_row, end)

    def _cast(
        self,
        file: SourceFile,
        reader: FileReader,
        schemas: tuple[pa.Schema, pa.Schema],
        start: Cursor,
        end: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Read the rows from `start` to `end` (None: the last), and cast them."""
        (own, schema), first = schemas, start.file_row
        for batch in self._read(file, reader, own, start):
            if end is not None:
                batch = batch.slice(0, end - first)
            if own != schema:
                batch = cast_columns(batch, schema, file.path, first, self._first)
            first += batch.num_rows
            yield batch
            if end is not None and first >= end:
                return

    def _read(
        self, file: SourceFile, reader: FileReader, schema: pa.Schema, start: Cursor
    ) -> Iterator[pa.RecordBatch]:
        # A column in the file takes precedence over a partition of that name.
        present = set(reader.schema.names)
        wanted = [name for name in schema.names if name in present]
        skip = start.row
        for batch in reader.batches(start.row_group, self.rows, wanted):
            left = batch.slice(min(skip, batch.num_rows))
            skip -= batch.num_rows - left.num_rows
            if left.num_rows:
                yield select(left, schema, self._partitions(file))
