"""Score the rows of a DataFrame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from streamrnn.pipeline import Pipeline
from streamrnn.scoring import BoundPipeline, starting_table
from streamrnn.spark.library import pyspark
from streamrnn.spark.ordering import Order, column, quoted
from streamrnn.spark.partition import Task
from streamrnn.spark.preparing import (
    bound_to,
    for_workers,
    initial_state,
    loaded_for_workers,
    with_new_columns,
)
from streamrnn.spark.result import Scored
from streamrnn.spark.shipping import scoring
from streamrnn.spark.state_frames import LABEL, state_from_arrow, table_schema
from streamrnn.spark.types import spark_schema
from streamrnn.states import StateTable, as_table, flat_schema, meta


def score(
    df: Any,
    pipeline: Pipeline | str | os.PathLike[str],
    state: Any = None,
    order: Sequence[str] = (),
    *,
    partitions: int | None = None,
) -> Scored:
    """Score the rows of a Spark DataFrame, each with the whole past of its stream.

    `pipeline` is a Pipeline, or the path of its file, of which [source] path, [sink] and
    [checkpoint] are not used. `state` is the `state` of the result for earlier rows: a DataFrame, a
    StateTable or its Arrow table; None for the state that [state] init names, if any. `order` names
    the columns that order the rows of each stream. `partitions`: how many; by default Spark
    chooses. Only the model's state of the partition's streams and a record batch are held in the
    memory of a worker (in kind whole: the partition).

    The result is computed when it is used. Its bits are those of a local run that reads the same
    rows in this order, stream by stream. Raises, before a job runs: ConfigError without `order`,
    DataError for a missing column, DTypeError for a column that cannot be used (a key of floats),
    StateError for a state of another model. Errors in rows are raised by actions on the result; see
    `worker_errors`.
    """
    loaded = loaded_for_workers(pipeline)
    df = with_new_columns(df, loaded)
    bound = bound_to(df, loaded)
    checked = Order.of(df, order)
    frame = _state_frame(df.sparkSession, bound, state)
    bound = for_workers(bound)
    schema, carry = None, False
    if frame is not None:
        schema = table_schema(frame)
        carry = _check_state(bound, schema)
    task, union = _union(df, bound, checked, frame, schema, carry)
    keys = [f"c{bound.schema.get_field_index(name)}" for name in bound.loaded.contract.key]
    parts = union.repartition(*keys) if partitions is None else union.repartition(partitions, *keys)
    functions = pyspark("sql.functions")
    # Rows of the state have no order: they come first. One column, then the kind: Spark compares
    # the first column before it looks at others.
    first, *others = [parts.columns[i] for i in task.order]
    ordering = [functions.col(first).asc_nulls_first(), functions.col("kind").asc()]
    ordering += [functions.col(name).asc_nulls_first() for name in others]
    both = parts.sortWithinPartitions(*ordering).mapInArrow(
        scoring(task), spark_schema(task.result_schema)
    )
    return Scored(both, task)


def _state_frame(spark: Any, bound: BoundPipeline, state: Any) -> Any:
    """Return the state as a DataFrame; None if there is none."""
    if state is None:
        table = initial_state(bound)
        return None if table is None else state_from_arrow(spark, table)
    if hasattr(state, "sparkSession"):
        return state
    table = state.to_arrow() if isinstance(state, StateTable) else as_table(state, "state")
    carry = _check_state(bound, table.schema)
    # In the types of this pipeline's columns, which are those of Spark.
    return state_from_arrow(
        spark, starting_table(bound, table, "state", new_model=carry).to_arrow()
    )


def _check_state(bound: BoundPipeline, schema: pa.Schema) -> bool:
    """Raise StateError for a state of other columns; return whether it is another model's."""
    empty = schema.empty_table()
    changed = meta(empty, "fingerprint") != bound.loaded.fingerprint
    carry = bool(changed and bound.loaded.config.model.carries)
    starting_table(bound, empty, LABEL, new_model=carry)
    return carry


def _union(
    df: Any,
    bound: BoundPipeline,
    order: Order,
    state: Any,
    schema: pa.Schema | None,
    carry: bool,
) -> tuple[Task, Any]:
    """Return the task of a worker, and the DataFrame of state and rows that it reads.

    Columns: kind, c0… those in use, o0… those of the order that are not among them, s0… those of
    the flat state. The keys of the state are among the columns in use.
    """
    functions = pyspark("sql.functions")
    keys = bound.loaded.contract.key
    names = bound.schema.names
    used = [df.select(functions.col(quoted(name))).schema[0] for name in names]
    extra = [
        name for i, name in enumerate(order.names) if name not in names or (not i and name in keys)
    ]
    places = [
        1 + (len(names) + extra.index(name) if name in extra else names.index(name))
        for name in order.names
    ]
    rows = [functions.lit(1).cast("tinyint").alias("kind")]
    rows += [functions.col(quoted(name)).alias(f"c{i}") for i, name in enumerate(names)]
    rows += [column(df, name).alias(f"o{i}") for i, name in enumerate(extra)]
    data = tuple(range(1, 1 + len(names)))
    if schema is None:
        return Task(bound, order, data, tuple(places), (), None, carry), df.select(*rows)
    flat = flat_schema(schema)
    own = [name for name in flat.names if name not in keys]
    types = {f.name: f.dataType for f in spark_schema(flat)}
    begin = 1 + len(names) + len(extra)
    found = tuple(
        1 + names.index(name) if name in keys else begin + own.index(name) for name in flat.names
    )
    rows += [functions.lit(None).cast(types[name]).alias(f"s{i}") for i, name in enumerate(own)]
    order_types = [df.select(column(df, name)).schema[0].dataType for name in extra]
    streams = [functions.lit(0).cast("tinyint").alias("kind")]
    streams += [
        (functions.col(quoted(f.name)) if f.name in keys else functions.lit(None))
        .cast(f.dataType)
        .alias(f"c{i}")
        for i, f in enumerate(used)
    ]
    streams += [functions.lit(None).cast(kind).alias(f"o{i}") for i, kind in enumerate(order_types)]
    streams += [functions.col(quoted(name)).alias(f"s{i}") for i, name in enumerate(own)]
    task = Task(bound, order, data, tuple(places), found, schema, carry)
    return task, state.select(*streams).union(df.select(*rows))
