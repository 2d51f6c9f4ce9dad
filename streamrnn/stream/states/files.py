"""State tables as files, `.parquet` or `.arrow`, with a checksum; and the difference of two tables.

Equal tables give equal bytes, however they were made. The Arrow format has no checksum, and
Parquet's do not cover the whole file, so the metadata has a checksum of our own. It depends on
values and metadata only: any version of pyarrow computes the same one, even for types that Parquet
changes (units, widths and lists).
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streamrnn.base.arrays import Bools
from streamrnn.base.display import as_text, location, without_options
from streamrnn.base.storage import AnyPath, Output, canonical, open_store, replace_file
from streamrnn.errors import (
    ConfigError,
    DataError,
    DTypeError,
    MissingFileError,
    SinkError,
    StateError,
)
from streamrnn.stream.sources import DAMAGE
from streamrnn.stream.states.incoming import Incoming, key_names
from streamrnn.stream.states.keys import KeyIndex

_SUFFIXES = (".parquet", ".arrow")
_CHECKSUM = b"streamrnn.checksum"


def check_suffix(path: str) -> None:
    """Raise ConfigError unless the path has the suffix of a state table."""
    if not without_options(path).endswith(_SUFFIXES):
        raise ConfigError(f"{location(path)}: expected a file name ending in .parquet or .arrow")


def write_state_file(table: Any, path: AnyPath, check: Callable[[], None] | None = None) -> None:
    """Write a state table to a file, or to the object of a URI, atomically.

    `table` is a StateTable, or its Arrow table; `check` is as in `replace_file`. Raises SinkError,
    and ConfigError for another suffix than .parquet or .arrow.
    """
    path = os.fspath(path)
    table = table if isinstance(table, pa.Table) else as_table(table, "the table")
    check_suffix(path)
    try:
        with replace_file(path, check) as output:
            _write(table, output, is_parquet=_is_parquet(path))
    except (pa.ArrowException, OSError) as error:
        cause = error.__cause__ if isinstance(error, SinkError) else error
        raise SinkError(f"{location(path)}: cannot write the state table: {cause}") from error


def read_state_file(path: AnyPath) -> pa.Table:
    """Read a state table from a file.

    Raises MissingFileError, DataError, or ConfigError for another suffix.
    """
    with _opened(os.fspath(path)) as (stream, is_parquet):
        return _validated(_read(stream, is_parquet=is_parquet))


def read_with_identity(path: str) -> tuple[pa.Table, str]:
    """Read a state table from a file; return the table and its identity (see `identity_of`).

    Raises MissingFileError, DataError, or ConfigError for another suffix.
    """
    with _opened(path) as (stream, is_parquet):
        table = _validated(_read(stream, is_parquet=is_parquet))
        return table, _identity(table.schema, stream)


def identity_of(path: str) -> tuple[str, pa.Schema]:
    """Return the identity of the state in a file, and its schema.

    The identity is the checksum of the state, else a digest of the file. Raises MissingFileError,
    DataError, or ConfigError for another suffix.
    """
    with _opened(path) as (stream, is_parquet):
        schema = pq.read_schema(stream) if is_parquet else pa.ipc.open_file(stream).schema
        return _identity(schema, stream), schema


def _identity(schema: pa.Schema, stream: pa.NativeFile) -> str:
    if written := checksum(schema):
        return written
    stream.seek(0)
    return hashlib.sha256(stream.read_buffer()).hexdigest()


def state_bytes(table: pa.Table) -> pa.Buffer:
    """Return a state table as the bytes of an `.arrow` file."""
    stream = pa.BufferOutputStream()
    _write(table, stream, is_parquet=False)
    return stream.getvalue()


def read_state_bytes(data: bytes | bytearray | memoryview, label: str) -> pa.Table:
    """Read the bytes of an `.arrow` or `.parquet` file; `label` names it. Raises DataError."""
    try:
        return _validated(_read(pa.BufferReader(data), is_parquet=data[:4] == b"PAR1"))
    except DAMAGE as error:
        raise _damaged(label, error) from error


def as_table(data: Any, label: str) -> pa.Table:
    """Return a pa.Table, or an object with the Arrow PyCapsule interface, as a validated pa.Table.

    `label` names it. Raises DTypeError for anything else, DataError for damaged Arrow data.
    """
    if not isinstance(data, pa.Table) and not hasattr(data, "__arrow_c_stream__"):
        raise DTypeError(
            f"{label}: expected a pyarrow.Table, a StateTable, or an object with the Arrow "
            f"PyCapsule interface, received {type(data).__name__}"
        )
    try:
        return _validated(data if isinstance(data, pa.Table) else pa.table(data))
    except DAMAGE as error:
        raise _damaged(label, error) from error


def state_digest(table: pa.Table) -> str:
    """Return a sha256 (hex) of a state table. Equal tables have equal digests."""
    digest = hashlib.sha256()
    with pa.ipc.new_stream(pa.PythonFile(_Hashing(digest), "w"), table.schema) as writer:
        writer.write_table(canonical(table))
    return digest.hexdigest()


class _Hashing:
    """A file that only updates a digest with the bytes written to it."""

    closed = False

    def __init__(self, digest: "hashlib._Hash") -> None:
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: no byte is buffered."""


def _validated(table: pa.Table) -> pa.Table:
    table.validate(full=True)  # damaged offsets could point anywhere
    for field in table.schema:
        _check_shown(field)
    return table


def _damaged(label: str, error: BaseException) -> DataError:
    return DataError(
        f"{label}: not a readable state table: {error}. Export it again or restore a backup."
    )


def _is_parquet(path: str) -> bool:
    return without_options(path).endswith(".parquet")


@contextmanager
def _opened(path: str) -> Iterator[tuple[pa.NativeFile, bool]]:
    """Open a state table to read; yield its stream, and whether it is Parquet.

    Raises ConfigError for another suffix. A missing or damaged file raises MissingFileError or
    DataError, even if it is noticed within the block.
    """
    check_suffix(path)
    try:
        store, place = open_store(path)
        with store.open(place) as stream:
            yield stream, _is_parquet(path)
    except FileNotFoundError as error:
        raise MissingFileError(f"{location(path)}: no such state table") from error
    except ConfigError:
        raise
    except DAMAGE as error:
        raise _damaged(location(path), error) from error


def _read(stream: pa.NativeFile, *, is_parquet: bool) -> pa.Table:
    return pq.ParquetFile(stream).read() if is_parquet else pa.ipc.open_file(stream).read_all()


def _check_shown(field: pa.Field) -> None:
    """Raise an error for a name that is not UTF-8, or for an unknown time zone."""
    field.name.encode()
    kind = field.type
    if pa.types.is_struct(kind):
        for inner in kind:
            _check_shown(inner)
    elif pa.types.is_timestamp(kind):
        pa.scalar(0, kind).cast(pa.string())


def _write(table: pa.Table, stream: Output | pa.NativeFile, *, is_parquet: bool) -> None:
    table = canonical(table)
    if is_parquet:
        pq.write_table(table, stream, compression="zstd")
        return
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)


def with_checksum(table: pa.Table) -> pa.Table:
    """Add a checksum to a table that is to be written to a file."""
    text = json.dumps(_checksums(table)).encode()
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _CHECKSUM: text})


def checksum(schema: pa.Schema) -> str:
    """Return what `with_checksum` added; "" if there is none."""
    text: bytes = (schema.metadata or {}).get(_CHECKSUM, b"")
    return text.decode(errors="replace")


def checked(table: pa.Table, path: str) -> pa.Table:
    """Return a table without its checksum, if it has one. Raises DataError for a wrong checksum."""
    metadata = dict(table.schema.metadata or {})
    text = metadata.pop(_CHECKSUM, None)
    if text is None:
        return table
    table = table.replace_schema_metadata(metadata)
    try:
        expected = dict(json.loads(text))
    except (ValueError, TypeError):
        expected = {}
    sums = _checksums(table)
    if wrong := [name for name, value in sums.items() if expected.get(name) != value]:
        raise DataError(
            f"{path}: the checkpoint is damaged: the checksum of its {' and '.join(wrong)} does "
            "not match. Restore it from a backup, or write it again; if it was edited on purpose, "
            f"remove {_CHECKSUM.decode()} from its schema metadata."
        )
    return table


def _checksums(table: pa.Table) -> dict[str, str]:
    metadata, values = hashlib.sha256(), hashlib.sha256()
    for key, value in sorted((table.schema.metadata or {}).items()):
        if key.startswith(b"streamrnn."):
            metadata.update(b"%d %d " % (len(key), len(value)) + key + value)
    for name, column in zip(table.column_names, table.combine_chunks().columns, strict=True):
        values.update(name.encode())
        for chunk in column.chunks:
            _add_array(values, chunk)
    return {"metadata": metadata.hexdigest(), "values": values.hexdigest()}


def _add_array(digest: "hashlib._Hash", array: pa.Array) -> None:
    """Add to a digest which values are present, then their values; for lists, lengths and items."""
    kind, types = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        _add_array(digest, array.storage)
        return
    digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if types.is_struct(kind):
        for child in array.flatten():
            _add_array(digest, child)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        _add_array(digest, array.value_lengths().cast(pa.int64()))
        _add_array(digest, array.flatten())
    elif not types.is_null(kind):
        _add_present(digest, array.drop_null())


def _add_present(digest: "hashlib._Hash", array: pa.Array) -> None:
    """Add to a digest values without nulls, of a type that is neither nested nor an extension."""
    array = _in_one_type(array)
    kind, start, end = array.type, array.offset, array.offset + len(array)
    if pa.types.is_boolean(kind):
        digest.update(np.packbits(array.to_numpy(zero_copy_only=False)).tobytes())
    elif pa.types.is_primitive(kind) or pa.types.is_decimal256(kind):
        width = kind.bit_width // 8
        data = array.buffers()[1]
        digest.update(b"" if data is None else memoryview(data)[start * width : end * width])
    else:
        texts = array.cast(pa.large_binary())
        _add_present(digest, pc.binary_length(texts))
        digest.update(b"".join(texts.to_pylist()))


def _in_one_type(array: pa.Array) -> pa.Array:
    """Cast values to a type that is the same before and after they are stored as Parquet."""
    kind, types = array.type, pa.types
    if types.is_decimal(kind):
        return array.cast(pa.decimal256(76, kind.scale))
    if types.is_date64(kind):
        return array.cast(pa.date32())
    if types.is_timestamp(kind) and kind.unit == "s":
        return array.cast(pa.timestamp("ms", kind.tz), safe=False)
    if types.is_time32(kind) and kind.unit == "s":
        return array.cast(pa.time32("ms"))
    return array


@dataclass
class StateDiff:
    """Streams in only one table, and streams whose rows differ, with the columns that differ.

    `largest`: column that differs -> the largest absolute difference of its numbers, or times (in
    seconds); None for a column without numbers. `same` is the number of equal streams.
    """

    only_a: list[str]
    only_b: list[str]
    changed: dict[str, list[str]]
    largest: dict[str, float | None]
    same: int

    def __bool__(self) -> bool:
        return bool(self.only_a or self.only_b or self.changed)


def diff(a: Any, b: Any, a_name: str = "a", b_name: str = "b") -> StateDiff:
    """Compare two state tables (StateTables, or their Arrow tables) by stream, bit for bit.

    Raises StateError if their keys or columns differ, or if one table, which the message names, has
    a null or duplicate key or is not a state table.
    """
    a, b = as_table(a, a_name), as_table(b, b_name)
    names = key_names(a, a_name)
    if a.schema.names != b.schema.names or names != key_names(b, b_name):
        raise StateError(
            f"the tables have different columns or keys.\n  {a_name}: {', '.join(a.schema.names)}\n"
            f"  {b_name}: {', '.join(b.schema.names)}"
        )
    for x, y in zip(a.schema, b.schema, strict=True):
        if x.type != y.type:
            raise StateError(
                f"column {x.name!r} has type {x.type} in {a_name}, but {y.type} in {b_name}"
            )
    fields = [a.schema.field(n) for n in names]
    index = KeyIndex(fields)
    in_a = Incoming(a, fields, a_name).slots(index.find).tolist()
    in_b = Incoming(b, fields, b_name).slots(index.find).tolist()
    row_b = {slot: row for row, slot in enumerate(in_b)}
    common = [(row, row_b[slot]) for row, slot in enumerate(in_a) if slot in row_b]
    left = a.take(pa.array([x for x, _ in common], pa.int64())).combine_chunks()
    right = b.take(pa.array([y for _, y in common], pa.int64())).combine_chunks()
    others = [n for n in a.schema.names if n not in names]
    differs = {n: _differs(left.column(n), right.column(n)) for n in others}
    differing = {n: pa.array(rows) for n, rows in differs.items() if rows.any()}
    changed = np.flatnonzero(np.any([np.zeros(len(common), bool), *differs.values()], axis=0))
    return StateDiff(
        only_a=[key_text(a, row) for row, slot in enumerate(in_a) if slot not in row_b],
        only_b=[key_text(b, row) for slot, row in row_b.items() if slot >= len(in_a)],
        changed={
            key_text(a, common[i][0]): [n for n in others if differs[n][i]]
            for i in changed.tolist()
        },
        largest={
            name: _largest(left.column(name).filter(rows), right.column(name).filter(rows))
            for name, rows in differing.items()
        },
        same=len(common) - len(changed),
    )


def key_text(table: pa.Table, row: int) -> str:
    """Format the key of one row."""
    keys = (table.column(name).slice(row, 1) for name in key_names(table))
    # As text from Arrow: Python's times would lose nanoseconds.
    texts = (key.cast(pa.string()) if pa.types.is_temporal(key.type) else key for key in keys)
    return ", ".join(as_text(text[0].as_py()) for text in texts)


def _differs(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Bools:
    """Return which rows differ; float32 states and values in any bit. Null equals null."""
    kind = left.type
    if not len(left):
        return np.zeros(0, bool)
    if pa.types.is_fixed_size_list(kind) and not left.null_count and not right.null_count:
        x, y = (pc.list_flatten(side).to_numpy() for side in (left, right))
        differs: Bools = (x.view(np.int32) != y.view(np.int32)).reshape(len(left), -1).any(axis=1)
        return differs
    if pa.types.is_nested(kind):
        return _differs_by_scalar(left, right)
    if pa.types.is_float32(kind):
        left, right = (
            pa.chunked_array([c.view(pa.int32()) for c in s.chunks], pa.int32())
            for s in (left, right)
        )
    try:
        both = pc.fill_null(pc.not_equal(left, right), False)
    except pa.ArrowNotImplementedError:  # a foreign column, of a type without comparison
        return _differs_by_scalar(left, right)
    other: Bools = pc.or_(both, pc.xor(left.is_null(), right.is_null())).to_numpy()
    return other


def _largest(left: pa.ChunkedArray, right: pa.ChunkedArray) -> float | None:
    """Return the largest difference of two columns, ignoring NaN and null; None without numbers."""
    kind = left.type
    if pa.types.is_fixed_size_list(kind):
        left, right = pc.list_flatten(left), pc.list_flatten(right)
    unit = 1.0
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micro = pa.timestamp("us", getattr(kind, "tz", None))
        left, right = (side.cast(micro, safe=False).cast(pa.int64()) for side in (left, right))
        unit = 1e-6
    if not (pa.types.is_integer(left.type) or pa.types.is_floating(left.type)):
        return None
    x, y = (side.cast(pa.float64(), safe=False).to_numpy() for side in (left, right))
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        apart = np.abs(x - y)
    apart = apart[~np.isnan(apart)]
    return float(apart.max()) * unit if len(apart) else None


def _differs_by_scalar(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Bools:
    return np.array([not x.equals(y) for x, y in zip(left, right, strict=True)], bool)
