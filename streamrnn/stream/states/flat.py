"""A state table whose columns are flat, for engines that are slow with nested ones.

Each list of numbers becomes one binary value, in little-endian order; the row that is held until
the end of a run becomes columns. Nothing is lost: `from_flat(to_flat(table), table.schema)` is
`table`.
"""

import sys

import numpy as np
import pyarrow as pa

from streamrnn.errors import StateError, UnsupportedError
from streamrnn.stream.sources.casts import nulls_of, numpy_type

_PENDING = "pending"
_MOST_BYTES = (1 << 31) - 1


def flat_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of the flat form of state tables with this schema.

    >>> states = pa.schema({"id": pa.string(), "steps": pa.int64(), "h": pa.list_(pa.float32(), 2)})
    >>> flat_schema(states).field("h").type
    DataType(binary)
    """
    fields: list[pa.Field] = []
    for field in schema:
        if _is_pending(field):
            fields += [pa.field(f"{_PENDING}/{inner.name}", inner.type) for inner in field.type]
        else:
            fields.append(field.with_type(pa.binary()) if _is_numbers(field.type) else field)
    return pa.schema(fields, schema.metadata)


def to_flat(table: pa.Table) -> pa.Table:
    """Return the flat form of a state table.

    Raises UnsupportedError if a column would take over 2 GiB, or if the CPU is big-endian.
    """
    _require_little_endian()
    arrays: list[pa.Array] = []
    for field, column in zip(table.schema, table.columns, strict=True):
        array = _one(column)
        if _is_pending(field):
            arrays += array.flatten()
        elif _is_numbers(field.type):
            arrays.append(_to_binary(array, field.name))
        else:
            arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=flat_schema(table.schema))


def from_flat(flat: pa.Table, schema: pa.Schema, label: str) -> pa.Table:
    """Return the state table with this schema, from its flat form with columns in the same order.

    Raises StateError, with `label`, the column and the row, for a binary value that is null or of
    another size.
    """
    _require_little_endian()
    arrays, columns = [], iter(flat.columns)
    for field in schema:
        if _is_pending(field):
            children = [_one(next(columns)).cast(inner.type) for inner in field.type]
            # A held row always has its last field.
            null, inner_fields = children[-1].is_null(), list(field.type)
            arrays.append(pa.StructArray.from_arrays(children, fields=inner_fields, mask=null))
        elif _is_numbers(field.type):
            arrays.append(_to_numbers(_one(next(columns)), field, label))
        else:
            arrays.append(_one(next(columns)).cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _require_little_endian() -> None:
    if sys.byteorder != "little":
        raise UnsupportedError("flat state tables need a little-endian CPU")


def _is_pending(field: pa.Field) -> bool:
    return bool(field.name == _PENDING and pa.types.is_struct(field.type))


def _is_numbers(kind: pa.DataType) -> bool:
    """Return whether values are lists of numbers, possibly nested."""
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        inner = kind.value_type
        return bool(pa.types.is_primitive(inner) or _is_numbers(inner))
    return False


def _one(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks)


def _numbers(kind: pa.DataType) -> tuple[pa.DataType, int]:
    """Return the type of the numbers in lists, and the number of bytes of one item of a list."""
    inner = kind.value_type
    if pa.types.is_fixed_size_list(inner):
        return inner.value_type, int(inner.list_size * inner.value_type.bit_width // 8)
    return inner, int(inner.bit_width // 8)


def _to_binary(array: pa.Array, name: str) -> pa.Array:
    """Convert lists (S,) of numbers to binary values (S,)."""
    kind = array.type
    items = array.flatten()  # nested fixed-size lists have one list per item
    numbers = items.flatten() if pa.types.is_fixed_size_list(items.type) else items
    values = numbers.to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(kind):
        ends = np.arange(len(array) + 1) * (kind.list_size * _numbers(kind)[1])
    else:
        lengths = array.value_lengths().fill_null(0).to_numpy().astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(lengths)]) * _numbers(kind)[1]
    if ends[-1] > _MOST_BYTES:
        raise UnsupportedError(
            f"column {name!r} of {len(array):,} streams takes {int(ends[-1]):,} bytes, but one "
            f"partition holds at most {_MOST_BYTES:,}: use more partitions"
        )
    offsets = pa.py_buffer(ends.astype(np.int32))
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.binary(), len(array), [None, offsets, data])


def _to_numbers(array: pa.Array, field: pa.Field, label: str) -> pa.Array:
    """Convert binary values (S,) to lists (S,) of numbers."""
    kind, (number, size) = field.type, _numbers(field.type)
    array = array.cast(pa.binary())
    # Where each value starts, and where the last one ends (S + 1,).
    ends = np.zeros(1, np.int64)
    if len(array):
        offsets = np.frombuffer(array.buffers()[1], np.int32)
        ends = offsets[array.offset : array.offset + len(array) + 1].astype(np.int64)
    lengths = np.diff(ends)
    fixed = pa.types.is_fixed_size_list(kind)
    expected = kind.list_size * size if fixed else None
    invalid = lengths != expected if fixed else lengths % size != 0
    invalid |= nulls_of(array)
    if invalid.any():
        row = int(np.argmax(invalid))
        multiple = f"{expected} bytes" if fixed else f"a multiple of {size} bytes"
        raise StateError(
            f"{label}: row {row} (from 0): column {field.name!r}: expected {multiple}, received "
            f"{'null' if not array[row].is_valid else lengths[row]}"
        )
    data = array.buffers()[2]
    values = np.frombuffer(b"" if data is None else data, numpy_type(number))
    width = number.bit_width // 8
    # A copy: the memory of the engine's batches may not be aligned.
    flat = pa.array(values[ends[0] // width : ends[-1] // width].copy(), number)
    inner = kind.value_type
    if pa.types.is_fixed_size_list(inner):
        flat = pa.FixedSizeListArray.from_arrays(flat, type=inner)
    if fixed:
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    starts = pa.array(((ends - ends[0]) // size).astype(np.int32))
    return pa.ListArray.from_arrays(starts, flat, type=kind)
