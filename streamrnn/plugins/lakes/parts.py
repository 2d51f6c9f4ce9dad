"""Parts as files of tables: their names, footers and types (Arrow has more types than tables).

Parts are registered as they are, so the type of a column must be one that readers can read without
loss.
"""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.base.storage import Files
from streamrnn.errors import ConfigError
from streamrnn.stream.sinks import number_of

TypeRule = Callable[[pa.DataType], pa.DataType | str]
"""Returns the type that a table has for an Arrow type that is not nested, or advice if none."""

_WIDER = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64()}
_PLAIN = {
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_()),
    pa.date32(),
}
_CAST = "cast it to {} in the source"


def may_be_part(name: str) -> bool:
    """Return whether a file of a table may be a part of the output, by its name."""
    return "://" not in name and number_of(name.rpartition("/")[2]) is not None


def part_footer(files: Files, name: str) -> pq.FileMetaData:
    """Read the footer of a part; no row is read."""
    with files.open(name) as file:
        return pq.read_metadata(file)


def lake_schema(schema: pa.Schema, rule: TypeRule, format: str) -> pa.Schema:
    """Return the schema of a table for parts of `schema`, in Arrow types.

    Raises ConfigError that names all columns that a table of this `format` cannot have.
    """
    wrong: list[str] = []
    fields = []
    for column in schema:
        kind = _table_type(column.type, rule)
        if isinstance(kind, str):
            wrong.append(f"column {column.name!r} has the type {column.type}: {kind}")
        else:
            fields.append(pa.field(column.name, kind, column.nullable))
    if wrong:
        raise ConfigError(
            f"[publish] {format.lower()}: {format} tables lack the types of some columns: "
            f"{'; '.join(wrong)}. Or leave the column out of [output] columns, or remove "
            f"[publish] {format.lower()}."
        )
    return pa.schema(fields)


def _table_type(kind: pa.DataType, rule: TypeRule) -> pa.DataType | str:
    is_ = pa.types
    if is_.is_dictionary(kind):
        return _table_type(kind.value_type, rule)
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        inner = _table_type(kind.value_type, rule)
        return inner if isinstance(inner, str) else pa.list_(inner)
    if is_.is_struct(kind):
        names = [field.name for field in kind]
        inner_types = [_table_type(field.type, rule) for field in kind]
        why = next((item for item in inner_types if isinstance(item, str)), None)
        return why or pa.struct(list(zip(names, inner_types, strict=True)))
    return rule(kind)


def _common(kind: pa.DataType) -> pa.DataType | str:
    """Return the type that both formats have for an Arrow type; if they have none, advice."""
    is_ = pa.types
    if kind in _PLAIN or is_.is_decimal128(kind):
        return kind
    if kind in _WIDER:
        return _WIDER[kind]
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return pa.string()
    if is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_binary_view(kind):
        return pa.binary()
    if is_.is_timestamp(kind) and kind.unit != "ns":
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if is_.is_timestamp(kind):
        return _CAST.format(f"timestamp[us{f', tz={kind.tz}' if kind.tz else ''}]")
    if is_.is_uint64(kind):
        return _CAST.format("int64")
    if is_.is_float16(kind):
        return _CAST.format("float")
    if is_.is_date(kind):
        return _CAST.format("date32")
    if is_.is_decimal(kind):
        return _CAST.format(f"decimal128 (up to 38 digits; it has {kind.precision})")
    if is_.is_null(kind):
        return "give it a type in the source"
    return _CAST.format("an integer or text")


def delta_type(kind: pa.DataType) -> pa.DataType | str:
    """Return the type that a column has in a Delta table, in Arrow's form; if none, advice."""
    return pa.binary() if pa.types.is_fixed_size_binary(kind) else _common(kind)


def iceberg_type(kind: pa.DataType) -> pa.DataType | str:
    """Return the type that a column has in an Iceberg table, in Arrow's form; if none, advice.

    The table has version 2. pyiceberg cannot read files with times in a zone other than UTC.
    """
    if pa.types.is_timestamp(kind) and kind.tz not in (None, "UTC", "+00:00", "Etc/UTC", "Z"):
        return _CAST.format("timestamp[us, tz=UTC]")
    if kind == pa.time64("us") or pa.types.is_fixed_size_binary(kind):
        return kind
    wide = _common(kind)
    return pa.int32() if wide in (pa.int8(), pa.int16()) else wide
