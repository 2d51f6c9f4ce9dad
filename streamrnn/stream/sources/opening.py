"""The files of a source: how each is opened, which columns it has, what its footer says."""

import json
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import pyarrow as pa

from streamrnn.errors import ConfigError, DataError, DTypeError, MissingFileError, StreamRNNError
from streamrnn.stream.sources.base import Source
from streamrnn.stream.sources.casts import type_named, value_type, widening
from streamrnn.stream.sources.contract import READ_AS_IDS, Feature
from streamrnn.stream.sources.files import SourceFile
from streamrnn.stream.sources.formats import (
    ColumnStatistics,
    FileFormat,
    FileReader,
    Footer,
    Hints,
    UnparsedError,
    format_of,
    shows_rows,
)
from streamrnn.stream.sources.schema import (
    NamesInFiles,
    check_present,
    common_schema,
    in_earlier_types,
    new_names,
    refuse_unknown_types,
    used_schema,
    with_new_names,
)
from streamrnn.stream.sources.tables import Table
from streamrnn.stream.sources.times import FileTimes, require_times

_EARLIER = "the files of earlier runs"
# Text files of more bytes certainly have rows.
_HEADER = 1 << 20
# The types of times, as texts: another text in a column of one of these makes the column text.
_TIMES = (
    *(f"timestamp[{unit}{zone}]" for unit in ("us", "ns") for zone in ("", ", tz=UTC")),
    "int64",
)
# The columns of a file, and the columns of its partitions.
_Columns = tuple[pa.Schema, list[tuple[str, pa.DataType]]]


@dataclass(eq=False, repr=False)
class SourceFiles(Source):
    """Files that have the columns of the first file, read in batches of at most `rows` rows.

    `columns`: the columns in use (None: all of the first file). Values are cast to the types of the
    first file, or of earlier runs, if the cast changes no value; the columns `features` are not
    cast: each file may have them in any type that can be read. `renames`: old names that files may
    have for columns. `format`: the format of all files; "auto" goes by suffix. `types` (column ->
    type) go before the types of files. `delimiter` and `null_values` are for CSV. In text files,
    columns outside `roles` (None: there are none) are text if no file has values for them. `table`:
    the table to which the files belong. `by_time`: the rows of each file are read, and positions
    counted, in the order of time. `numbers`: the features that are read as numbers. With `rejects`,
    a value that its column cannot hold is null, and the origin of its row says why.
    """

    files: list[SourceFile]
    columns: Sequence[str] | None
    rows: int
    time: str | None = None
    format: str = "auto"
    features: Mapping[str, Feature] = field(default_factory=dict)
    renames: NamesInFiles = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    delimiter: str = ""
    null_values: Sequence[str] = ()
    table: Table | None = None
    roles: Collection[str] | None = None
    by_time: bool = False
    numbers: Collection[str] = ()
    rejects: bool = False

    def __post_init__(self) -> None:
        self.earlier: Mapping[str, str] = {}
        self._kinds = {n: type_named(t) or pa.type_for_alias(t) for n, t in self.types.items()}
        self.features = {n: f for n, f in self.features.items() if n not in self._kinds}
        # The columns that text files may have as integers or as floats, by new and old names, and
        # those that are floats in a file, as was found on reading it.
        alone = set(self.features).intersection(self.numbers)
        self._floats = alone.union(*(self.renames.get(name, ()) for name in alone))
        self._as_double: set[tuple[str, str]] = set()
        self._first = ""
        self._schema: pa.Schema | None = None
        self._footers: dict[str, Footer] = {}
        self._counts: dict[SourceFile, int] = {}  # of text files: counting reads them
        self._last_common: tuple[_Columns, tuple[pa.Schema, pa.Schema]] | None = None

    @property
    def name(self) -> str:
        """The path of the first file, whose schema all must have; for an empty table, its path."""
        return self.files[0].path if self.files or self.table is None else self.table.root

    @property
    def identity(self) -> Hashable:
        return tuple(self.files)

    @property
    def schema(self) -> pa.Schema:
        if self._schema is None:
            self._first = _EARLIER if self.earlier else ""
            names = list(self.earlier if self.columns is None else self.columns)
            kinds = [self._kinds.get(n) or type_named(self.earlier.get(n, "")) for n in names]
            if names and None not in kinds:
                used = pa.schema(list(zip(names, kinds, strict=True)))
                self._schema = self._with_types(used, self.files, self.features)
            else:
                first, used = self._first_readable()
                self._first = self._first or first.path
                self._schema = in_earlier_types(used, self.earlier, self._kinds)
        return self._schema

    def _first_readable(self) -> tuple[SourceFile, pa.Schema]:
        """Return the first readable file, and its columns in use.

        Files that are damaged, or have no rows yet, are skipped, as are, after earlier runs, files
        without these columns: such a file may have been used already; if not, reading it raises an
        error. Raises the error of the first file if all are skipped.
        """
        if not self.files and self.table is not None:
            raise MissingFileError(
                f"{self.table.root}: {self.table.version} of the table has no rows yet. Append "
                "some, or wait for them with --follow."
            )
        errors: list[StreamRNNError] = []
        for file in self.files:
            if file.size and self.awaits_rows(file):
                message = "the file has no rows yet. Add some, or wait with --follow."
                errors.append(MissingFileError(f"{file.path}: {message}"))
                continue
            try:
                reader = self._open(file)
            except DataError as error:
                errors.append(error)
                continue
            try:
                columns = self._columns(file, reader)
                refuse_unknown_types(self._kinds, columns.names, self.columns, file.path)
                used = used_schema(columns, self.columns, file.path)
                used = self._without_text(file, used)
                later = self.files[self.files.index(file) + 1 :]
                used = self._with_types(used, later, used.names)
                if self.roles is None or all(self._format_of(file).typed for file in self.files):
                    return file, used
                # Columns of the output without values become text: once there are values, the
                # output cannot change its types.
                empty = {f.name for f in used if pa.types.is_null(f.type)}.difference(self.roles)
                texts = (f.with_type(pa.string()) if f.name in empty else f for f in used)
                return file, pa.schema(texts)
            except DataError as error:
                if not self.earlier:
                    raise
                errors.append(error)
        raise errors[0]

    def _without_text(self, file: SourceFile, used: pa.Schema) -> pa.Schema:
        """Raise DTypeError if a column of numbers or times is text, and name the first text in it.

        One text among many numbers makes a column text: naming that type alone would not help.
        With `rejects`, such a column gets the type of most of its first values.
        """
        if self._format_of(file).typed:
            return used
        for name in filter(used.names.__contains__, [self.time, *self.numbers]):
            if not pa.types.is_string(used.field(name).type) or name in self._kinds:
                continue
            kinds = _TIMES if name == self.time else ("double",)
            errors = [self._unfit(file, name, kind) for kind in kinds]
            if error := max(filter(None, errors), key=lambda error: error.row, default=None):
                kind = kinds[errors.index(error)]
                if self.rejects and (error.row or self._fits_some(file, name, kind)):
                    used = used.set(used.get_field_index(name), pa.field(name, type_named(kind)))
                    continue
                advice = READ_AS_IDS.format(name)
                if name == self.time:
                    advice = (
                        ", or write times such as 2013-01-31 08:00:00, with Z or an offset if they "
                        "have a zone"
                    )
                raise DTypeError(f"{file.path}: {error}. {self._correct(file, error)}{advice}")
        return used

    def _unfit(self, file: SourceFile, name: str, kind: str) -> UnparsedError | None:
        """Return the error about a column's first text that is not a value of a type, if any."""
        try:
            for _ in replace(self, rejects=False)._read_as(file, name, kind):
                pass
        except UnparsedError as error:
            return error
        except (pa.ArrowException, OSError, ValueError):  # a damaged file: the run says so
            pass
        return None

    def _fits_some(self, file: SourceFile, name: str, kind: str) -> bool:
        """Return whether a column has texts that are values of a type."""
        with self._readable(file):
            return any(part[0].null_count < len(part) for part in self._read_as(file, name, kind))

    def _read_as(self, file: SourceFile, name: str, kind: str) -> Iterator[pa.RecordBatch]:
        hints = replace(self, types={**self.types, name: kind})._hints(file)
        reader = self._format_of(file).open(self._stream(file), hints)
        new = self._new_names(file, reader.schema.names)
        columns = [column for column in reader.schema.names if new.get(column, column) == name]
        return reader.batches(0, self.rows, columns)

    def _with_types(
        self, used: pa.Schema, files: Sequence[SourceFile], names: Collection[str]
    ) -> pa.Schema:
        """Return the columns in use, with types for those in `names` that have type null.

        Each of these gets its type in the first text file of `files` that has values for it.
        """
        for file in files:
            pending = [f.name for f in used if f.name in names and pa.types.is_null(f.type)]
            if not pending:
                break
            if self._format_of(file).typed:
                continue
            with suppress(DataError):
                columns = self._columns(file, self._open(file))
                for name in set(pending).intersection(columns.names):
                    index = used.get_field_index(name)
                    used = used.set(index, pa.field(name, value_type(columns.field(name).type)))
        return used

    def footer(self, file: SourceFile) -> Footer:
        """Read the footer of a file, once."""
        if file.name not in self._footers:
            kind = self.schema.field(self.time).type if self.time is not None else None
            footer = self._footer(file, self._open(file), kind)
            if self.time in (parts := self._partitions(file)) and footer.times is None:
                value = parts[str(self.time)].as_py()  # all rows have this time
                footer = replace(footer, times=(value, value) if isinstance(value, int) else None)
            self._footers[file.name] = footer
        return self._footers[file.name]

    def total_rows(self) -> int:
        return sum(map(self._rows_of, self.files))

    def _rows_of(self, file: SourceFile) -> int:
        footer = self._footers.get(file.name)
        if footer is None and file.rows is not None:
            return file.rows
        return (self._footer(file, self._open(file), None) if footer is None else footer).rows

    def _footer(self, file: SourceFile, reader: FileReader, kind: pa.DataType | None) -> Footer:
        """Read the footer of an open file; with `kind`, the type of its times, also their range."""
        with self._readable(file):
            footer = reader.footer(None if kind is None else self.time, kind)
        if not self._format_of(file).typed:
            self._counts[file] = footer.rows
        if self.by_time:  # read as one group, since any of its rows may be the earliest
            footer = replace(footer, groups=[footer.rows] if footer.rows else [])
        return footer

    def times(self, files: Sequence[SourceFile]) -> list[FileTimes]:
        if self.time is None:
            return []
        ranges = ((file.path, self.footer(file).times) for file in files)
        return [FileTimes(path, *times) for path, times in ranges if times is not None]

    def in_time_order(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Sort files by their earliest times (an empty file: time 0); ties keep their order."""
        need = '[source] order = "time" requires the minimum'
        for file in files:
            if (footer := self.footer(file)).rows:
                require_times(footer, file, self.time, need)
        return sorted(files, key=lambda file: (self.footer(file).times or (0, 0))[0])

    def largest_group(self) -> int:
        """Return the number of rows of the largest row group."""
        return max((n for file in self.files for n in self.footer(file).groups), default=0)

    def statistics(self, columns: Sequence[str]) -> dict[str, ColumnStatistics]:
        """Return what the footers of all files record about these columns. Raises DataError."""
        total = dict.fromkeys(columns, ColumnStatistics())
        for file in self.files:
            reader, rows = self._open(file), self.footer(file).rows
            recorded = reader.statistics(columns)
            constants = self._partitions(file)
            for name in columns:
                if name not in reader.schema.names and name in constants:
                    total[name] += ColumnStatistics.of_constant(constants[name], rows)
                else:
                    total[name] += recorded.get(name, ColumnStatistics(rows, unrecorded=rows))
        return total

    def check_schemas(self, files: Sequence[SourceFile]) -> None:
        """Raise DataError or DTypeError unless each file has the columns, in usable types."""
        for file in files:
            self._common(file, self._open(file))

    def is_complete(self, file: SourceFile) -> bool:
        """Return whether a file can be opened: one that is still being written has no footer.

        A text file must have rows, and end with a newline: it is read to its end.
        """
        try:
            reader = self._open(file)
            return self._format_of(file).typed or self._footer(file, reader, None).rows > 0
        except DataError:
            return False

    def awaits_rows(self, file: SourceFile) -> bool:
        """Return whether a text file has no more than a header: its writer has only begun."""
        format = self._format_of(file)
        if format.typed or file.size > _HEADER:
            return False
        try:
            if shows_rows(self._stream(file), format.header):
                return False
            return not file.size or not self._footer(file, self._open(file), None).rows
        except DataError:  # the run says what is wrong
            return False

    def _open(self, file: SourceFile) -> FileReader:
        return self._reader(file, self._stream(file))

    def _stream(self, file: SourceFile) -> pa.NativeFile:
        try:
            return file.open()
        except FileNotFoundError as error:
            raise DataError(f"{file.path}: the file was removed before it could be read") from error
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file.path}: cannot be opened: {one_line(error)}") from error

    def _reader(self, file: SourceFile, stream: pa.NativeFile) -> FileReader:
        format = self._format_of(file)
        if not format.header and (self.delimiter or self.null_values):
            key = "delimiter" if self.delimiter else "null_values"
            raise ConfigError(
                f"[source] {key} is for CSV, but the format of {file.path} is {format.name}. "
                "Remove the key."
            )
        hints = self._hints(file)
        with self._readable(file):
            try:
                reader = format.open(stream, hints)
            except UnparsedError as error:
                if not self._reads_as_double(file, error):
                    raise
                return self._reader(file, stream)
        reader.unfit = hints.unfit
        names = self._new_names(file, reader.schema.names)
        return _RenamingReader(reader, names) if names else reader

    @contextmanager
    def _readable(self, file: SourceFile) -> Iterator[None]:
        try:
            yield
        except UnparsedError as error:
            raise self._unparsed(file, error) from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{file.path}: not a readable {self._format_of(file).name} file "
                f"({file.size} bytes): {one_line(error)}"
            ) from error

    def _reads_as_double(self, file: SourceFile, error: UnparsedError) -> bool:
        """Return whether a column of integers is read as double from now on, after an error."""
        if error.widens and error.column in self._floats:
            self._as_double.add((file.name, error.column))
            return True
        return False

    def _hints(self, file: SourceFile) -> Hints:
        """Return the hints for a file, with the types of earlier files by new and old names."""
        if self._schema is None:
            earlier = {name: type_named(text) for name, text in self.earlier.items()}
        else:
            earlier = dict(zip(self._schema.names, self._schema.types, strict=True))
        types = {
            name: kind
            for name, kind in {**earlier, **self._kinds}.items()
            if kind is not None and not pa.types.is_null(kind)
        }
        for new, olds in self.renames.items():
            if new in types:
                types |= {old: types[new] for old in olds if old not in types}
        types |= {column: pa.float64() for name, column in self._as_double if name == file.name}
        unfit: dict[int, str] | None = {} if self.rejects else None
        rows = self._counts.get(file)
        csv = self.delimiter, self.null_values
        return Hints(file.path, types, self._kinds, *csv, rows, self._floats, unfit)

    def _format_of(self, file: SourceFile) -> FileFormat:
        return format_of(file.path, self.format)

    def _correct(self, file: SourceFile, error: UnparsedError) -> str:
        """Return the first advice about a text that cannot be read."""
        if not self._format_of(file).header or any(map(str.isdigit, error.text)):
            return "Correct the value"
        nulls = json.dumps([*(self.null_values or [""]), error.text], ensure_ascii=False)
        return f"Correct the value, set [source] null_values = {nulls} if it means null"

    def _unparsed(self, file: SourceFile, error: UnparsedError) -> DataError:
        new = {old: name for name, olds in self.renames.items() for old in olds}
        name = new.get(error.column, error.column)
        first = self._first if self._first != file.path else ""
        origin = "[source] types" if name in self._kinds else first or "the first rows of the file"
        message = (
            f"{file.path}: {error}; the type comes from {origin}. {self._correct(file, error)}"
        )
        # The time and features of numbers are never text: another type would only move the error.
        number = name in self.features or name in self.numbers
        if name == self.time or (number and error.other == "string"):
            return DataError(f"{message}, or remove the row.")
        if error.widens and (name in self.numbers or name not in (self.roles or ())):
            return DataError(f"{message}, or set {widening(name, error.kind)}")
        return DataError(
            f'{message}, or set [source] types = {{ {name} = "{error.other}" }} (for an output '
            "that has rows, with --full-refresh)."
        )

    def _new_names(self, file: SourceFile, columns: Sequence[str]) -> dict[str, str]:
        partitions = [name for name, _ in file.partitions]
        return new_names([*columns, *partitions], self.renames, file.path)

    def _partitions(self, file: SourceFile) -> dict[str, pa.Scalar]:
        names = self._new_names(file, ())
        values = (*file.defaults, *file.partitions)
        return {names.get(name, name): value for name, value in values}

    def _common(self, file: SourceFile, reader: FileReader) -> tuple[pa.Schema, pa.Schema]:
        """Return the columns of a file in its own types, and in the types to cast them to.

        Consecutive files with equal columns are checked once.
        """
        partitions = self._partitions(file).items()
        key = reader.schema, [(name, value.type) for name, value in partitions]
        if self._last_common is None or self._last_common[0] != key:
            columns = self._columns(file, reader)
            check_present(self.schema, columns, file.path, self._first)
            used = used_schema(columns, self.columns, file.path)
            common = common_schema(self.schema, used, file.path, self._first, self.features)
            self._last_common = key, common
        return self._last_common[1]

    def _columns(self, file: SourceFile, reader: FileReader) -> pa.Schema:
        schema = reader.schema
        for name, value in self._partitions(file).items():
            if name not in schema.names:
                schema = schema.append(pa.field(name, value.type))
        return schema


def one_line(error: Exception) -> str:
    """Return the text of an error on one line, cut to 300 characters."""
    return " ".join(str(error).split())[:300]


class _RenamingReader(FileReader):
    """An open file whose columns have new names; `names` has old name -> new name."""

    def __init__(self, reader: FileReader, names: Mapping[str, str]) -> None:
        self._reader = reader
        self._names = names
        self._old = {new: old for old, new in names.items()}
        self.schema, self.unfit = with_new_names(reader.schema, names), reader.unfit

    def offset(self, column: str) -> str:
        return self._reader.offset(self._old.get(column, column))

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        return self._reader.footer(None if time is None else self._old.get(time, time), kind)

    def statistics(self, columns: Sequence[str]) -> dict[str, ColumnStatistics]:
        recorded = self._reader.statistics([self._old.get(name, name) for name in columns])
        return {self._names.get(name, name): item for name, item in recorded.items()}

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        old = [self._old.get(name, name) for name in columns]
        for batch in self._reader.batches(group, rows, old):
            names = [self._names.get(name, name) for name in batch.schema.names]
            yield batch.rename_columns(names)
