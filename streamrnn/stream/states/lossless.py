"""Lossless conversion of Arrow values to another type.

A table that passed through pandas, Polars, DuckDB or Parquet may have large strings or views in
place of strings, lists in place of fixed-size lists, and other names of list items, units and
widths.
"""

import numpy as np
import pyarrow as pa

_UTC = {"UTC", "Etc/UTC", "Z", "+00:00"}  # names of the same zone


class UnfitValueError(ValueError):
    """A value that the type cannot hold, in a row (from 0)."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row


def converted(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Convert values to the type `kind`.

    Raises TypeError if the types are incompatible, UnfitValueError for a list of another length,
    pa.ArrowException for a value that is out of range or not a multiple of the type's unit.
    """
    stored, types = array.type, pa.types
    if stored == kind:
        return array
    if types.is_null(stored):
        return pa.nulls(len(array), kind)
    if types.is_dictionary(stored):
        return converted(array.dictionary_decode(), kind)
    if is_list(stored) and types.is_fixed_size_list(kind):
        return _to_fixed_lists(array, kind)
    if is_list(stored) and types.is_list(kind):
        return _to_lists(array, kind)
    if types.is_struct(stored) and types.is_struct(kind):
        return _to_structs(array, kind)
    if not _compatible(stored, kind):
        raise TypeError(f"expected {kind}, received {stored}")
    return array.cast(kind)


def _to_fixed_lists(array: pa.Array, kind: pa.DataType) -> pa.Array:
    size = kind.list_size
    if pa.types.is_fixed_size_list(array.type) and array.type.list_size != size:
        raise TypeError(f"expected {kind}, received {array.type}")
    values = converted(array.flatten(), kind.value_type)
    null = array.is_null().to_numpy(zero_copy_only=False)
    lengths = array.value_lengths().fill_null(size).to_numpy(zero_copy_only=False)
    invalid = lengths != size
    if invalid.any():
        row = int(np.argmax(invalid))
        raise UnfitValueError(row, f"expected lists of {size}, received one of {lengths[row]}")
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


def _to_structs(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if [field.name for field in array.type] != [field.name for field in kind]:
        raise TypeError(f"expected {kind}, received {array.type}")
    children = [
        converted(child, field.type) for child, field in zip(array.flatten(), kind, strict=True)
    ]
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists, of any or of one size."""
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    any_size = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return bool(any_size or types.is_fixed_size_binary(kind))


def _compatible(stored: pa.DataType, kind: pa.DataType) -> bool:
    """Return whether scalar types differ at most in width or unit."""
    types = pa.types
    if types.is_timestamp(stored) and types.is_timestamp(kind):
        return stored.tz == kind.tz or {stored.tz, kind.tz} <= _UTC
    tests = (_is_text, _is_bytes, types.is_integer, types.is_date, types.is_time, types.is_duration)
    return any(test(stored) and test(kind) for test in tests)
