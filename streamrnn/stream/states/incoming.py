"""A state table from outside, read column by column: checks, and lossless conversions.

A table that passed through pandas, Polars, DuckDB or Parquet may have large strings or views in
place of strings, lists in place of fixed-size lists, other names for the items of lists, and other
units and widths.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from streamrnn.base.arrays import Bools, Ints
from streamrnn.errors import StateError
from streamrnn.stream.sources import missing_column, named_values
from streamrnn.stream.sources.casts import decoded, nulls_of

_UTC = {"UTC", "Etc/UTC", "Z", "+00:00"}  # names of the same zone
_ALIKE = (
    (types.is_string, types.is_large_string, types.is_string_view),
    (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary),
    *((is_,) for is_ in (types.is_integer, types.is_date, types.is_time, types.is_duration)),
)
"""Tests of scalar types; a type is converted to another if both pass tests of the same tuple."""


class Incoming:
    """An Arrow table, `label` in messages, with one row per stream, whose key is in columns `keys`.

    A key may be null only with `null_keys`. Methods raise StateError, which names the column and,
    for invalid values, the first such row and its stream.
    """

    def __init__(
        self, source: pa.Table, keys: Sequence[pa.Field], label: str, *, null_keys: bool = False
    ) -> None:
        self.source = source
        self.label = label
        self._fields = list(keys)
        self.keys = [self.column(field.name, field.type) for field in keys]
        for field, array in () if null_keys else zip(keys, self.keys, strict=True):
            self.refuse(field.name, nulls_of(array), "key is null")

    def __contains__(self, name: str) -> bool:
        return name in self.source.column_names

    def __len__(self) -> int:
        return int(self.source.num_rows)

    def column(self, name: str, kind: pa.DataType) -> pa.Array:
        """Return a column in this type; see `converted` for the types that are accepted."""
        names = self.source.column_names
        if names.count(name) != 1:
            raise StateError(_missing_or_duplicate(self.label, name, names))
        column = self.source.column(names.index(name))
        wrong = f"{self.label}: column {name!r}: expected {kind}, received {column.type}"
        chunks: list[pa.Array] = []
        for chunk in column.chunks or [pa.array([], column.type)]:
            try:
                chunks.append(converted(chunk, kind))
            except TypeError as error:
                raise StateError(wrong) from error
            except UnfitValueError as error:
                place = self.place(sum(map(len, chunks)) + error.row)
                raise StateError(f"{place}: column {name!r}: {error}") from error
            except pa.ArrowException as error:
                message = f"{wrong}, which cannot be converted without loss: {error}"
                raise StateError(message) from error
        return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)

    def slots(self, find: Callable[[Sequence[pa.Array]], Ints]) -> Ints:
        """Return `find(keys)`. Raises StateError for a duplicate key."""
        slots = find(self.keys)
        if len(slots) and np.bincount(slots).max() > 1:
            _, first, of = np.unique(slots, return_index=True, return_inverse=True)
            duplicate = first[of] != np.arange(len(slots))
            row = int(np.argmax(duplicate))
            raise StateError(
                f"{self.place(row)}: expected each stream once, but row {first[of][row]} has the "
                f"same key ({_count(duplicate)} of {len(self)} rows). Remove all but one"
            )
        return slots

    def refuse(self, name: str, rows: Bools, reason: str) -> None:
        """Raise StateError, with `reason` and the first row, if any of the rows (S,) is True."""
        if rows.any():
            raise StateError(
                f"{self.place(int(np.argmax(rows)))}: column {name!r}: {reason} "
                f"({_count(rows)} of {len(self)} rows)"
            )

    def place(self, row: int) -> str:
        """Return the location of a row, for a message."""
        key = named_values([field.name for field in self._fields], self.keys, row)
        return f"{self.label}: row {row} (from 0): stream {key}"


def meta(source: pa.Table, name: str) -> str:
    """Return an entry of streamrnn's metadata as text; "" if it is missing."""
    metadata = source.schema.metadata or {}
    value: bytes = metadata.get(f"streamrnn.{name}".encode(), b"")
    return value.decode(errors="replace")


def json_object(source: pa.Table, name: str, label: str) -> dict[str, Any]:
    """Return an entry of streamrnn's metadata; {} if it is missing or empty.

    Raises StateError unless it is a JSON object.
    """
    text = meta(source, name) or "{}"
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise StateError(
            f"{label}: not a state table: expected a JSON object as metadata streamrnn.{name}, "
            f"received {text[:80]!r}"
        )
    return value


def key_names(table: pa.Table, label: str = "the table") -> list[str]:
    """Return the names of a state table's key columns. Raises StateError for any other table."""
    metadata = table.schema.metadata or {}
    text = metadata.get(b"streamrnn.keys")
    if text is None:
        raise StateError(f"{label}: not a state table: its schema has no streamrnn metadata")
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise StateError(
            f"{label}: not a state table: expected a list of names in metadata streamrnn.keys, "
            f"received {text.decode(errors='replace')[:80]!r}"
        )
    for name in names:
        if table.column_names.count(name) != 1:
            raise StateError(_missing_or_duplicate(label, name, table.column_names))
    return names


def _count(rows: Bools) -> int:
    return int(np.count_nonzero(rows))


def _missing_or_duplicate(label: str, name: str, names: Sequence[str]) -> str:
    if times := names.count(name):
        return f"{label}: column {name!r}: expected once, found {times} times. Remove all but one"
    return missing_column(label, name, names)


class UnfitValueError(ValueError):
    """A value that the type cannot hold; `row` (from 0) has it."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row


def converted(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Convert values to the type `kind`.

    Raises TypeError if the types are incompatible, UnfitValueError for a list of another length,
    pa.ArrowException for a value that is out of range or not a multiple of the type's unit.
    """
    stored = array.type
    if stored == kind:
        return array
    if types.is_null(stored):
        return pa.nulls(len(array), kind)
    if types.is_dictionary(stored):
        return converted(decoded(array), kind)
    if is_list(stored) and types.is_fixed_size_list(kind):
        return _to_fixed_lists(array, kind)
    if is_list(stored) and types.is_list(kind):
        return _to_lists(array, kind)
    if types.is_struct(stored) and types.is_struct(kind):
        if [field.name for field in stored] != [field.name for field in kind]:
            raise TypeError(f"expected {kind}, received {stored}")
        pairs = zip(array.flatten(), kind, strict=True)
        children = [converted(child, field.type) for child, field in pairs]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())
    if not _compatible(stored, kind):
        raise TypeError(f"expected {kind}, received {stored}")
    return array.cast(kind)


def _to_fixed_lists(array: pa.Array, kind: pa.DataType) -> pa.Array:
    size = kind.list_size
    if types.is_fixed_size_list(array.type) and array.type.list_size != size:
        raise TypeError(f"expected {kind}, received {array.type}")
    values = converted(array.flatten(), kind.value_type)
    null = nulls_of(array)
    lengths = array.value_lengths().fill_null(size).to_numpy(zero_copy_only=False)
    invalid = lengths != size
    if invalid.any():
        row = int(np.argmax(invalid))
        raise UnfitValueError(row, f"expected lists of size {size}, received size {lengths[row]}")
    if null.any():  # a null fixed-size list has values too
        index = size * (np.cumsum(~null) - 1)[:, None] + np.arange(size)
        values = values.take(pa.array(index.ravel(), pa.int64(), mask=np.repeat(null, size)))
    mask = pa.array(null) if null.any() else None
    return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=mask)


def _to_lists(array: pa.Array, kind: pa.DataType) -> pa.Array:
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum(lengths)
    try:
        values = converted(array.flatten(), kind.value_type)
    except UnfitValueError as error:
        raise UnfitValueError(int(np.searchsorted(ends, error.row, "right")), str(error)) from None
    offsets = pa.array(np.concatenate([[0], ends])).cast(pa.int32())
    mask = array.is_null() if array.null_count else None
    return pa.ListArray.from_arrays(offsets, values, type=kind, mask=mask)


def is_list(kind: pa.DataType) -> bool:
    """Return whether the values of a type are lists, of any size or of a fixed one."""
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _compatible(stored: pa.DataType, kind: pa.DataType) -> bool:
    """Return whether scalar types differ at most in width or unit; never for floats or decimals."""
    if types.is_timestamp(stored) and types.is_timestamp(kind):
        return stored.tz == kind.tz or {stored.tz, kind.tz} <= _UTC
    for tests in _ALIKE:
        if any(is_(stored) for is_ in tests):
            return any(is_(kind) for is_ in tests)
    return False
