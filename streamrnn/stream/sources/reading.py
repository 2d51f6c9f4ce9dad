"""Record batches of files, one after another, from any position, and of a stream on stdin."""

import sys
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import DataError, StreamRNNError
from streamrnn.stream.sources.base import Source, SourceBatch
from streamrnn.stream.sources.casts import cast_columns
from streamrnn.stream.sources.content import NOTHING, Content, Reading
from streamrnn.stream.sources.contract import Feature
from streamrnn.stream.sources.files import SourceFile, etag
from streamrnn.stream.sources.formats import FileReader, UnparsedError
from streamrnn.stream.sources.opening import SourceFiles, one_line
from streamrnn.stream.sources.position import Origin, Position
from streamrnn.stream.sources.schema import (
    NamesInFiles,
    common_schema,
    in_earlier_types,
    new_names,
    select,
    used_schema,
    with_new_names,
)

# Limits a record batch of several slices: they are copied, and offsets of strings have 32 bits.
_MOST_BYTES = 64 << 20
# A run can stop only after a record batch: on an object store, reading 256 files may take 10 s.
_MOST_SLICES = 256


class FileSlice(NamedTuple):
    """Consecutive rows of one file, from `first_row` on, and the position after the last of them.

    `etag` and `opened_ns` are as in `Reading`, `cast` and `offset` as in `SourceBatch`, `unfit` is
    as in `Hints`.
    """

    batch: pa.RecordBatch
    path: str
    first_row: int
    position: Position
    etag: str
    opened_ns: int
    cast: int
    offset: str
    unfit: Mapping[int, str]


class FileSource(SourceFiles):
    """The record batches of a list of files: at most `rows` rows each, of one file or several."""

    replayable = True

    def subset(self, files: Sequence[SourceFile]) -> "FileSource":
        """Return a source of some of the files, with the schema of the whole source."""
        assert self.schema is not None  # read now, from the first of all files
        subset = copy(self)
        subset.files, subset._footers, subset._last_common = list(files), {}, None
        subset.table = None  # only planning a run needs a table's history; workers do not
        return subset

    def with_columns(self, names: Sequence[str]) -> "FileSource":
        """Return a source of the same files that reads these columns too."""
        columns = None if self.columns is None else list(dict.fromkeys([*self.columns, *names]))
        wide = self.of_columns(columns)
        if wide.roles is not None:
            wide.roles = [*wide.roles, *names]
        return wide

    def of_columns(self, names: Sequence[str] | None) -> "FileSource":
        """Return a source of the same files that reads these columns only; None: all columns."""
        source = copy(self)
        source.files, source.columns = list(self.files), names and list(names)
        source._schema, source._first, source._last_common = None, "", None
        return source

    @property
    def of_files(self) -> "FileSource":
        return self

    def offset(self) -> str:
        """Return an offset other than UTC in the first rows of text files; "" for none.

        Raises DataError.
        """
        texts = (file for file in self.files if not self._format_of(file).typed)
        offsets = (next(self._slices_of(file, None, None)).offset for file in texts)
        return next(filter(None, offsets), "") if self.time is not None else ""

    def content(self, file: SourceFile, rows: int | None = None) -> Content:
        """Return the content of the first `rows` rows of a file (None: all). Raises DataError."""
        stop = None if rows is None else Position(file.name, 0, 0, rows)
        content = NOTHING
        for batch in self._gathered(self._slices_of(file, None, stop), NOTHING):
            content = batch.readings[file.name].content
        return content

    def batches(
        self,
        start: Position | None = None,
        before: Content | None = None,
        stop: Position | None = None,
    ) -> Iterator[SourceBatch]:
        """Read all record batches from `start` (a position in the first file), in order.

        `before` is the content of the rows before `start`, `stop` (a position in the last file) the
        first row that is not read. The end of a file without rows is a position, too. If a file
        cannot be read to its end, the rows before the error are yielded, then DataError is raised.
        """
        slices = (each for file in self.files for each in self._slices_of(file, start, stop))
        yield from self._gathered(slices, before or NOTHING)

    def _gathered(self, slices: Iterable[FileSlice], before: Content) -> Iterator[SourceBatch]:
        """Yield batches; consecutive small slices with the same columns are joined into one."""
        waiting: list[FileSlice] = []
        last = Reading(before)
        free_rows = free_bytes = 0
        schema: pa.Schema | None = None
        try:
            for each in slices:
                batch = each.batch
                size, width = batch.num_rows, batch.nbytes
                if waiting and (
                    size > free_rows
                    or width > free_bytes
                    or len(waiting) == _MOST_SLICES
                    or not batch.schema.equals(schema)
                ):
                    joined, last = self._joined(waiting, last)
                    yield joined
                    waiting = []
                if not waiting:
                    free_rows, free_bytes, schema = self.rows, _MOST_BYTES, batch.schema
                waiting.append(each)
                free_rows -= size
                free_bytes -= width
        except Exception:
            if waiting:
                yield self._joined(waiting, last)[0]
            raise
        if waiting:
            yield self._joined(waiting, last)[0]

    def _joined(self, slices: Sequence[FileSlice], last: Reading) -> tuple[SourceBatch, Reading]:
        """Return the slices as one batch, and what has been read of the last slice's file by then.

        `last` is what had been read, before these slices, of the file of the first slice.
        """
        batch = slices[0].batch
        if len(slices) > 1:
            batch = pa.concat_batches([each.batch for each in slices])
        sizes = [each.batch.num_rows for each in slices]
        readings: dict[str, Reading] = {}
        contents = Content.of_slices(batch, self.time, sizes, self.schema)
        for each, content in zip(slices, contents, strict=True):
            if each.first_row:
                content += last.content
            last = Reading(content, each.etag, each.opened_ns)
            readings[each.position.file] = last
        paths, first_rows = [each.path for each in slices], [each.first_row for each in slices]
        origin = Origin.of_slices(paths, first_rows, sizes, self.by_time)
        for each in slices:
            origin = origin.with_unfit(each.path, each.unfit)
        cast = sum(each.cast for each in slices)
        offset = max(each.offset for each in slices)
        return SourceBatch(batch, origin, slices[-1].position, readings, cast, offset), last

    def _slices_of(
        self, file: SourceFile, start: Position | None, stop: Position | None
    ) -> Iterator[FileSlice]:
        """Yield the slices of a file; positions in other files do not count."""
        start, stop = (p if p is not None and p.file == file.name else None for p in (start, stop))
        if start is not None and start.done:
            return
        opened = time.time_ns()
        stream = self._stream(file)
        reader, version = self._reader(file, stream), etag(stream)
        schemas = own, schema = self._common(file, reader)
        changed = sum(a.type != b.type for a, b in zip(own, self.schema, strict=True))
        ends = list(accumulate(self._footer(file, reader, None).groups))
        rows = ends[-1] if ends else 0
        # Counted from the first row: a rewritten file may have other row groups.
        at = Position.at(file.name, ends, start.file_row if start else 0)
        if not 0 <= at.file_row <= rows:
            raise DataError(
                f"{file.path}: the run cannot resume at row {at.file_row:,}: the file has "
                f"{rows:,} rows. Restore the file, or start over with --full-refresh."
            )
        end = None if stop is None else stop.file_row
        batches = iter([pa.RecordBatch.from_pylist([], schema=schema)])
        if not at.done:
            read = self._sorted if self.by_time else self._cast
            batches = read(file, reader, schemas, at, end)
        try:
            for batch in batches:
                first, cast = at.file_row, changed * batch.num_rows
                at = Position.at(file.name, ends, first + batch.num_rows)
                offset = reader.offset(self.time) if self.time is not None else ""
                unfit = reader.unfit or {}
                why = {row: unfit.pop(row) for row in sorted(unfit) if row < at.file_row}
                yield FileSlice(batch, file.path, first, at, version, opened, cast, offset, why)
        except UnparsedError as error:
            if not self._reads_as_double(file, error):
                raise self._unparsed(file, error) from None
            yield from self._slices_of(file, at, stop)
        except StreamRNNError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{file.path}: cannot be read after row {at.file_row}: {one_line(error)}. "
                "The file is damaged, or changed while it was read. Write it again."
            ) from error

    def _sorted(
        self,
        file: SourceFile,
        reader: FileReader,
        schemas: tuple[pa.Schema, pa.Schema],
        start: Position,
        end: int | None,
    ) -> Iterator[pa.RecordBatch]:
        """Read the rows from `start` to `end`, counted in the order of their time, null last.

        Rows of one time keep their order. All rows of the file are in memory.
        """
        first = Position(start.file, 0, 0, 0)
        whole = pa.Table.from_batches(list(self._cast(file, reader, schemas, first, None)))
        order = pc.sort_indices(whole[self.time])  # stable
        if reader.unfit:
            place = np.argsort(order)
            unfit = reader.unfit.items()
            reader.unfit = {int(place[row]): why for row, why in unfit if row < len(place)}
        end = len(order) if end is None else end
        for row in range(start.file_row, end, self.rows):
            rows = order.slice(row, min(self.rows, end - row))
            yield from whole.take(rows).combine_chunks().to_batches()

    def _cast(
        self,
        file: SourceFile,
        reader: FileReader,
        schemas: tuple[pa.Schema, pa.Schema],
        start: Position,
        end: int | None,
    ) -> Iterator[pa.RecordBatch]:
        """Read the rows from `start` to `end` (None: all), and cast them."""
        (own, schema), first = schemas, start.file_row
        # A column in the file takes precedence over a partition of that name.
        present, skip = set(reader.schema.names), start.row
        wanted = [name for name in own.names if name in present]
        for whole in reader.batches(start.row_group, self.rows, wanted):
            left = whole.slice(min(skip, whole.num_rows))
            skip -= whole.num_rows - left.num_rows
            if not left.num_rows:
                continue
            batch = select(left, own, self._partitions(file))
            if end is not None:
                batch = batch.slice(0, end - first)
            if own != schema:
                of, unfit = self._first, reader.unfit
                batch = cast_columns(batch, schema, file.path, first, of, unfit, types=True)
            first += batch.num_rows
            yield batch
            if end is not None and first >= end:
                return


STDIN = "stdin"
# The errors that pyarrow raises for damaged bytes; names that are not UTF-8 raise ValueError.
DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, RecursionError)


@dataclass(eq=False, repr=False)
class StreamSource(Source):
    """The record batches of an Arrow IPC stream, at most `rows` rows each, which can be read once.

    Stdin must hold one Arrow stream and nothing else. Stdin is read until its writer closes it, so
    a socket that stays open keeps the run waiting. If a `stream` is given, bytes after the Arrow
    stream are not read.

    The values in use are validated first, because damaged offsets could point anywhere. (This takes
    11 to 22 ms for 100 MB, a fifth of the time to read them.)
    """

    replayable = False
    name = STDIN
    columns: Sequence[str] | None
    rows: int
    stream: BinaryIO | None = None
    features: Mapping[str, Feature] = field(default_factory=dict)
    renames: NamesInFiles = field(default_factory=dict)
    rejects: bool = False

    def __post_init__(self) -> None:
        self.time: str | None = None
        self.earlier: Mapping[str, str] = {}
        self.files: list[SourceFile] = []

    @cached_property
    def _input(self) -> "_Input":
        return _Input(self.stream or sys.stdin.buffer)

    @cached_property
    def _reader(self) -> pa.RecordBatchReader:
        return pa.ipc.open_stream(self._input)

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns in use. Raises DataError."""
        return in_earlier_types(self._own, self.earlier)

    @cached_property
    def _new_names(self) -> dict[str, str]:
        return new_names(self._reader.schema.names, self.renames, STDIN)

    @cached_property
    def _own(self) -> pa.Schema:
        try:
            schema = with_new_names(self._reader.schema, self._new_names)
            return used_schema(schema, self.columns, STDIN)
        except StreamRNNError:
            raise
        except DAMAGE as error:
            raise DataError(
                f"{STDIN}: expected an Arrow IPC stream, received other data: {error}. To write "
                "one in Python: pyarrow.ipc.new_stream(sys.stdout.buffer, schema)"
            ) from error

    @property
    def identity(self) -> Hashable:
        return STDIN

    def batches(
        self, start: Position | None = None, before: Content | None = None
    ) -> Iterator[SourceBatch]:
        """Read all record batches; rows before `start` are read and skipped.

        Raises DataError if the stream is damaged or truncated, if its end-of-stream marker is
        missing (its writer may have been stopped early), or, on stdin, if more bytes follow.
        """
        origin = "earlier runs"
        own, schema = common_schema(self.schema, self._own, STDIN, origin, self.features)
        changed = sum(a.type != b.type for a, b in zip(own, self.schema, strict=True))
        old = {new: old for old, new in self._new_names.items()}
        names = [old.get(name, name) for name in own.names]
        row, skip = 0, start.file_row if start else 0
        try:
            for whole in self._reader:
                used = whole.select(names).rename_columns(own.names)
                used.validate(full=True)
                skipped = min(max(skip - row, 0), used.num_rows)
                row += skipped
                for first in range(skipped, used.num_rows, self.rows):
                    batch = select(used.slice(first, self.rows), own)
                    places = Origin.consecutive(STDIN, row, batch.num_rows)
                    if own != schema:
                        unfit: dict[int, str] | None = {} if self.rejects else None
                        batch = cast_columns(batch, schema, STDIN, row, origin, unfit)
                        places = places.with_unfit(STDIN, unfit or {})
                    row += batch.num_rows
                    position = Position(STDIN, 0, 0, row)
                    yield SourceBatch(batch, places, position, cast=changed * batch.num_rows)
        except DAMAGE as error:
            problem = "ends early" if self._input.ended else "is damaged"
            raise DataError(
                f"{STDIN}: the Arrow stream {problem} after row {row}: {error}. Rerun its writer."
            ) from error
        if self._input.ended:
            raise DataError(
                f"{STDIN}: the Arrow stream ends early after row {row}: expected the end-of-stream "
                "marker, received the end of the input. Its writer was stopped, or did not close "
                "the stream: in Python, call writer.close()."
            )
        if self.stream is None and self._input.read(1):
            raise DataError(
                f"{STDIN}: there are extra bytes after the end of the Arrow stream, which has "
                f"{row} rows: expected one stream and nothing else. Write all record batches to "
                "one stream, or write files and set [source] path to their folder."
            )


class _Input:
    """A binary stream that records whether a read was cut short by the end of the input.

    pyarrow also accepts the end of the input between two messages as the end of an Arrow stream. It
    does not read beyond the end-of-stream marker.
    """

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.ended = self.ended or len(data) < size
        return data
