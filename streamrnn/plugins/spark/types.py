"""PySpark, imported when it is first used, and its types as types of Arrow."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from streamrnn.errors import DTypeError, UnsupportedError

_ARROW = {
    "BooleanType": pa.bool_(),
    "ByteType": pa.int8(),
    "ShortType": pa.int16(),
    "IntegerType": pa.int32(),
    "LongType": pa.int64(),
    "FloatType": pa.float32(),
    "DoubleType": pa.float64(),
    "StringType": pa.string(),
    "BinaryType": pa.binary(),
    "DateType": pa.date32(),
    "TimestampNTZType": pa.timestamp("us"),
}
_SPARK = {kind: name for name, kind in _ARROW.items()}


def pyspark() -> Any:
    """Return the module of PySpark. Raises UnsupportedError, naming the extra, if it is missing."""
    try:
        import pyspark as library
        import pyspark.cloudpickle
        import pyspark.errors
        import pyspark.sql.functions
        import pyspark.sql.types
    except ImportError as error:
        raise UnsupportedError(
            f"streamrnn.spark needs pyspark ({error}): pip install 'streamrnn[spark]'"
        ) from error
    return library


def quoted(name: str) -> str:
    """Return a name in backticks, so that its dots have no meaning."""
    return "`" + name.replace("`", "``") + "`"


def arrow_schema(frame: Any, used: Sequence[str], zone: str) -> pa.Schema:
    """Return the names and the Arrow types of all columns of a DataFrame.

    A column whose type has no counterpart in Arrow has type null. Raises DTypeError if such a
    column is in `used`. `zone` is the time zone of timestamps.
    """
    fields = []
    for field in frame.schema:
        kind = arrow_type(field.dataType, zone)
        if kind is None and field.name in used:
            raise DTypeError(
                f"the DataFrame: column {field.name!r}: {field.dataType.simpleString()} cannot be "
                "read. Cast it, or remove it from [output] columns."
            )
        fields.append(pa.field(field.name, pa.null() if kind is None else kind))
    return pa.schema(fields)


def arrow_type(kind: Any, zone: str) -> pa.DataType | None:
    """Return the Arrow type for a Spark type; None if there is none."""
    name = type(kind).__name__
    if name == "TimestampType":
        return pa.timestamp("us", zone)
    if name == "DecimalType":
        return pa.decimal128(kind.precision, kind.scale)
    if name == "ArrayType":
        element = arrow_type(kind.elementType, zone)
        return None if element is None else pa.list_(pa.field("element", element))
    if name == "StructType":
        types = [arrow_type(field.dataType, zone) for field in kind]
        named = zip(kind.names, types, strict=True)
        return None if None in types else pa.struct([pa.field(*pair) for pair in named])
    return _ARROW.get(name)


def spark_type(kind: pa.DataType) -> Any:
    """Return the Spark type of an Arrow type that Spark has. Raises DTypeError for another."""
    types = pyspark().sql.types
    if kind in _SPARK:
        return getattr(types, _SPARK[kind])()
    if pa.types.is_timestamp(kind) and kind.unit == "us":
        return types.TimestampType()
    if pa.types.is_decimal128(kind):
        return types.DecimalType(kind.precision, kind.scale)
    if pa.types.is_list(kind):
        return types.ArrayType(spark_type(kind.value_type))
    if pa.types.is_struct(kind):
        fields = [types.StructField(field.name, spark_type(field.type)) for field in kind]
        return types.StructType(fields)
    raise DTypeError(f"expected a type that Spark has, received {kind}")


def spark_schema(schema: pa.Schema) -> Any:
    """Return a Spark schema. Raises DTypeError, with the column, for a type that Spark lacks."""
    types = pyspark().sql.types
    fields = []
    for field in schema:
        try:
            fields.append(types.StructField(field.name, spark_type(field.type)))
        except DTypeError as error:
            raise DTypeError(f"column {field.name!r}: {error}") from error
    return types.StructType(fields)
