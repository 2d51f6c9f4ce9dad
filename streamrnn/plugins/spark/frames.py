"""PySpark, imported when it is first used: its types and errors, and state tables as DataFrames.

A state DataFrame is flat, one row per stream. The schema of the state table is in the metadata of
the column `steps`, which Spark keeps in Parquet files and tables.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from streamrnn import errors
from streamrnn.errors import DTypeError, StateError, UnsupportedError
from streamrnn.stream.states import flat_schema, from_flat, to_flat

_KEPT = "streamrnn.schema"
_COLUMN = "steps"
LABEL = "the state DataFrame"
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
_RAISED = re.compile(
    r"^(?:streamrnn\.errors\.(\w+)|RuntimeError): (.*?)(?=\n\s*\n|\n\s+at |\s+SQLSTATE: |\s*\Z)",
    re.MULTILINE | re.DOTALL,
)


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

    A column of a type that cannot be read has type null. Raises DTypeError if such a column is in
    `used`. `zone` is the time zone of timestamps.
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
    """Return the Arrow type for a Spark type; None if the type cannot be read."""
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
    """Return the Spark type of an Arrow type. Raises DTypeError for a type that Spark lacks."""
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


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise a worker's error in place of Spark's error that contains it as text.

    For actions on the DataFrames of `score`: `with worker_errors(): result.rows.write…`. Raises
    DataError, StateError and so on; UnsupportedError for a worker without this version of
    streamrnn. Other errors of Spark pass through.
    """
    try:
        yield
    except errors.StreamRNNError:
        raise
    except Exception as error:
        for name, message in reversed(_RAISED.findall(str(error))):
            if name:
                kind = getattr(errors, name, errors.DataError)
                if kind is errors.LateRowError:
                    kind = errors.DataError  # a late row's error has more than a text
                raise kind(message.strip()) from error
            if message.startswith("a Spark worker "):
                raise errors.UnsupportedError(message.strip()) from error
        raise


def state_struct(schema: pa.Schema) -> Any:
    """Return the Spark schema of the flat form of state tables with this schema."""
    types = pyspark().sql.types
    metadata = {_KEPT: base64.b64encode(schema.serialize().to_pybytes()).decode()}
    return types.StructType(
        [
            types.StructField(f.name, f.dataType, True, metadata if f.name == _COLUMN else None)
            for f in spark_schema(flat_schema(schema))
        ]
    )


def table_schema(frame: Any) -> pa.Schema:
    """Return the schema of the state table of a DataFrame. Raises StateError if it has none."""
    metadata = frame.schema[_COLUMN].metadata if _COLUMN in frame.columns else {}
    if _KEPT not in metadata:
        raise StateError(
            f"{LABEL}: not a state: expected the `state` of a result of streamrnn.spark.score, or "
            "the same read back from Parquet or a table; this one has no column `steps` with a "
            f"schema of streamrnn. Columns: {', '.join(frame.columns)}"
        )
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(metadata[_KEPT])))
    if missing := [name for name in flat_schema(schema).names if name not in frame.columns]:
        raise StateError(
            f"{LABEL}: column {missing[0]!r} not found. Available columns: "
            f"{', '.join(frame.columns)}"
        )
    return schema


def state_to_arrow(frame: Any) -> pa.Table:
    """Collect a state DataFrame as the Arrow table of a state table.

    Every reader of state tables accepts it: `state=` of a Pipeline, `StateTable.from_arrow`,
    `streamrnn.states.write_state_file`. Raises StateError if the DataFrame is not a state.
    """
    schema = table_schema(frame)
    flat = flat_schema(schema)
    with worker_errors():
        collected = frame.select(*map(quoted, flat.names)).toArrow()
    return from_flat(collected, schema, LABEL)


def state_from_arrow(spark: Any, table: Any) -> Any:
    """Return a state table (a StateTable, or its Arrow table) as a state DataFrame.

    Raises DTypeError, with the column, for a type that Spark lacks, and StateError for a time that
    is not a whole number of microseconds, Spark's unit.
    """
    table = pa.table(table)
    columns, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = field.type
        if pa.types.is_timestamp(kind):
            kind = pa.timestamp("us", kind.tz)
        elif pa.types.is_large_string(kind):
            kind = pa.string()
        try:
            columns.append(column.cast(kind))
        except pa.ArrowInvalid as error:
            raise StateError(f"column {field.name!r}: Spark cannot hold it: {error}") from error
        fields.append(field.with_type(kind))
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields, table.schema.metadata))
    return spark.createDataFrame(to_flat(table), state_struct(table.schema))
