"""The types that columns of tables have: Delta and Iceberg know fewer than Arrow.

Parts are registered as they are, so the type of a table must be one that readers get from the file
without loss.
"""

from collections.abc import Callable

import pyarrow as pa

from streamrnn.errors import ConfigError

TypeRule = Callable[[pa.DataType], pa.DataType | str]
"""Returns the Arrow form of a table's type for one without parts, or why there is none."""

_WIDER = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64()}
_PLAIN = {
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_()),
    pa.date32(),
}
_CAST = "cast it to {} in the source"


def lake_schema(schema: pa.Schema, rule: TypeRule, format: str) -> pa.Schema:
    """Return the schema of a table for parts of `schema`, in Arrow types.

    Raises ConfigError that names all columns that a table of this `format` cannot have.
    """
    wrong: list[str] = []
    fields = []
    for column in schema:
        found = _table_type(column.type, rule)
        if isinstance(found, str):
            wrong.append(f"column {column.name!r} has the type {column.type}: {found}")
        else:
            fields.append(pa.field(column.name, found, column.nullable))
    if wrong:
        raise ConfigError(
            f"[publish] {format.lower()}: {format} tables have no such type: {'; '.join(wrong)}. "
            f"Or leave the column out of [output] columns, or remove [publish] {format.lower()}."
        )
    return pa.schema(fields)


def _table_type(found: pa.DataType, rule: TypeRule) -> pa.DataType | str:
    is_ = pa.types
    if is_.is_dictionary(found):
        return _table_type(found.value_type, rule)
    if is_.is_list(found) or is_.is_large_list(found) or is_.is_fixed_size_list(found):
        inner = _table_type(found.value_type, rule)
        return inner if isinstance(inner, str) else pa.list_(inner)
    if is_.is_struct(found):
        names = [field.name for field in found]
        inner_types = [_table_type(field.type, rule) for field in found]
        why = next((item for item in inner_types if isinstance(item, str)), None)
        return why or pa.struct(list(zip(names, inner_types, strict=True)))
    return rule(found)


def _common(found: pa.DataType) -> pa.DataType | str:
    """Return the type that both formats have for one, or why they have none."""
    is_ = pa.types
    if found in _PLAIN:
        return found
    if found in _WIDER:
        return _WIDER[found]
    if is_.is_string(found) or is_.is_large_string(found) or is_.is_string_view(found):
        return pa.string()
    if is_.is_binary(found) or is_.is_large_binary(found) or is_.is_binary_view(found):
        return pa.binary()
    if is_.is_decimal128(found):
        return found
    if is_.is_timestamp(found) and found.unit != "ns":
        return pa.timestamp("us", "UTC" if found.tz else None)
    return _advice(found)


def _advice(found: pa.DataType) -> str:
    is_ = pa.types
    if is_.is_timestamp(found):
        return _CAST.format(f"timestamp[us{f', tz={found.tz}' if found.tz else ''}]")
    if is_.is_uint64(found):
        return _CAST.format("int64")
    if is_.is_float16(found):
        return _CAST.format("float")
    if is_.is_date(found):
        return _CAST.format("date32")
    if is_.is_decimal(found):
        return _CAST.format(f"decimal128 ({found.precision} digits, if 38 suffice)")
    if is_.is_null(found):
        return "give it a type in the source"
    return _CAST.format("an integer or text")


def delta_type(found: pa.DataType) -> pa.DataType | str:
    """Return the type of a Delta table, in Arrow's form, or why there is none."""
    return pa.binary() if pa.types.is_fixed_size_binary(found) else _common(found)


def iceberg_type(found: pa.DataType) -> pa.DataType | str:
    """Return the type of an Iceberg table (version 2), in Arrow's form, or why there is none.

    pyiceberg reads no file with times in another zone than UTC.
    """
    if pa.types.is_timestamp(found) and found.tz not in (None, "UTC", "+00:00", "Etc/UTC", "Z"):
        return _CAST.format("timestamp[us, tz=UTC]")
    if found == pa.time64("us") or pa.types.is_fixed_size_binary(found):
        return found
    wide = _common(found)
    return pa.int32() if wide in (pa.int8(), pa.int16()) else wide
