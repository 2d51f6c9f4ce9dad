"""Arrow values in another type, where no value can be another one by it.

A table that went through pandas, Polars, DuckDB or Parquet has large strings or views for strings,
lists for lists of a fixed size, other names for their items, and units and widths of its own.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

_UTC = {"UTC", "Etc/UTC", "Z", "+00:00"}  # one zone by several names


class UnfitValueError(ValueError):
    """A value that the type does not hold, in a row (from 0)."""

    def __init__(self, row: int, what: str) -> None:
        super().__init__(what)
        self.row = row


def converted(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The same values in the type `kind`.

    Raises TypeError if the types are of different things, UnfitValueError for a list of another
    length, pa.ArrowException for a value outside the range or between the units of the type.
    """
    found, types = array.type, pa.types
    if found == kind:
        return array
    if types.is_null(found):
        return pa.nulls(len(array), kind)
    if types.is_dictionary(found):
        return converted(array.dictionary_decode(), kind)
    if _is_list(found) and types.is_fixed_size_list(kind):
        return _to_fixed_lists(array, kind)
    if _is_list(found) and types.is_list(kind):
        return _to_lists(array, kind)
    if types.is_struct(found) and types.is_struct(kind):
        return _to_structs(array, kind)
    if not _alike(found, kind):
        raise TypeError(f"expected {kind}, received {found}")
    return array.cast(kind)


def _to_fixed_lists(array: pa.Array, kind: pa.DataType) -> pa.Array:
    size = kind.list_size
    if pa.types.is_fixed_size_list(array.type) and array.type.list_size != size:
        raise TypeError(f"expected {kind}, received {array.type}")
    values = converted(array.flatten(), kind.value_type)
    none = array.is_null().to_numpy(zero_copy_only=False)
    lengths = array.value_lengths().fill_null(size).to_numpy(zero_copy_only=False)
    wrong = lengths != size
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UnfitValueError(row, f"expected lists of {size}, received one of {lengths[row]}")
    if none.any():  # of which a list of a fixed size has values too
        place = size * (np.cumsum(~none) - 1)[:, None] + np.arange(size)
        values = values.take(pa.array(place.ravel(), pa.int64(), mask=np.repeat(none, size)))
    mask = pa.array(none) if none.any() else None
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


def _to_structs(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if [field.name for field in array.type] != [field.name for field in kind]:
        raise TypeError(f"expected {kind}, received {array.type}")
    children = [
        converted(child, field.type) for child, field in zip(array.flatten(), kind, strict=True)
    ]
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    any_size = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return bool(any_size or types.is_fixed_size_binary(kind))


def _alike(found: pa.DataType, kind: pa.DataType) -> bool:
    """Whether types of single values are of the same thing, in other widths or units."""
    types = pa.types
    if types.is_timestamp(found) and types.is_timestamp(kind):
        return found.tz == kind.tz or {found.tz, kind.tz} <= _UTC
    same = (_is_text, _is_bytes, types.is_integer, types.is_date, types.is_time, types.is_duration)
    return any(is_so(found) and is_so(kind) for is_so in same)
