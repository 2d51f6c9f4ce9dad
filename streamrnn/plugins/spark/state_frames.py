"""State tables as DataFrames: flat, one row per stream.

The schema of the state table is in the metadata of the column `steps`, which Spark keeps in Parquet
files and tables.
"""

import base64
from typing import Any

import pyarrow as pa

from streamrnn.errors import StateError
from streamrnn.plugins.spark.types import pyspark, quoted, spark_schema
from streamrnn.plugins.spark.workers import worker_errors
from streamrnn.stream.states import flat_schema, from_flat, to_flat

_KEPT = "streamrnn.schema"
_COLUMN = "steps"
LABEL = "the state DataFrame"


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
    is not a multiple of Spark's microseconds.
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
