"""The memory of a record batch's columns, if rows may be plain (see `kernels.plain_rows`)."""

import numpy as np
import pyarrow as pa

from streamrnn.nn.kernels.plain_rows import PlainColumns
from streamrnn.stream.sources.columns import float32_limits
from streamrnn.stream.sources.contract import Contract, Feature

_TIMES = {pa.int32(): 4, pa.date32(): 4, pa.int64(): 8, pa.date64(): 8}
_FLOATS = {pa.float32(): 4, pa.float64(): 8}
_OFFSETS = {pa.string(): -4, pa.binary(): -4, pa.large_string(): -8, pa.large_binary(): -8}
_FINITE = np.finfo(np.float32)


def plain_columns(contract: Contract, schema: pa.Schema, stored: pa.Schema) -> PlainColumns | None:
    """Return where the columns are; None if others are needed, too, or a type needs conversion.

    `stored` has the types in which keys are compared.
    """
    floats = contract.floats
    if len(contract.key) > 1 or contract.reset or len(floats) < len(contract.features):
        return None
    key, *features = (schema.get_field_index(n) for n in (*contract.key, *(f.name for f in floats)))
    time = -1 if contract.time is None else schema.get_field_index(contract.time)
    widths = [_FLOATS.get(schema.field(place).type) for place in features]
    kind = schema.field(key).type
    key_width = _key_width(kind) if kind == stored.field(contract.key[0]).type else None
    time_width: int | None = 0
    if time >= 0:
        of_time = schema.field(time).type
        time_width = 8 if pa.types.is_timestamp(of_time) else _TIMES.get(of_time)
    if not key_width or time_width is None or None in widths or contract.vocabularies:
        return None
    low, high = np.array([_limits(f) for f in floats], np.float32).reshape(-1, 2).T
    return PlainColumns(
        key,
        key_width,
        time,
        time_width,
        np.array(features, np.int64),
        np.array(widths, np.int64),
        np.ascontiguousarray(low),
        np.ascontiguousarray(high),
    )


def _key_width(kind: pa.DataType) -> int | None:
    """Return the size of a key in bytes, or minus the size of an offset if keys have offsets."""
    types = pa.types
    if types.is_decimal(kind) or types.is_fixed_size_binary(kind) or types.is_primitive(kind):
        return None if types.is_boolean(kind) else kind.bit_width // 8
    return _OFFSETS.get(kind)


def _limits(feature: Feature) -> tuple[np.float32, np.float32]:
    """Return the limits between which a number is not changed."""
    pairs = [float32_limits(pair) for pair in (feature.valid, feature.clip) if pair is not None]
    low, high = zip((_FINITE.min, _FINITE.max), *pairs, strict=True)
    return max(low), min(high)
