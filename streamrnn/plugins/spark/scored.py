"""Score the rows of a DataFrame."""

import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from streamrnn.jobs.pipeline import Pipeline
from streamrnn.plugins.spark.ordering import Order
from streamrnn.plugins.spark.preparing import (
    bound_to,
    for_workers,
    in_own_zone,
    initial_state,
    loaded_for_workers,
    with_new_columns,
    zone_of,
)
from streamrnn.plugins.spark.result import ScoredFrames
from streamrnn.plugins.spark.shipping import scoring
from streamrnn.plugins.spark.state_frames import LABEL, state_from_arrow, table_schema
from streamrnn.plugins.spark.types import spark_schema
from streamrnn.plugins.spark.union import Union
from streamrnn.stream.scoring import BoundPipeline, starting_table
from streamrnn.stream.states import StateTable, as_table


def score(
    df: Any,
    pipeline: Pipeline | str | os.PathLike[str],
    state: Any = None,
    order: Sequence[str] = (),
    *,
    partitions: int | None = None,
    zone: str | None = None,
) -> ScoredFrames:
    """Score the rows of a Spark DataFrame, each with the whole past of its stream.

    `pipeline` is a Pipeline, or the path of its file, of which [source] path and sort, [sink],
    [engine] and [checkpoint] are not used. `state` is the `state` of the result for earlier rows (a
    DataFrame), a StateTable or its Arrow table; by default the one that [state] init names, if any.
    `order` names the columns that order the rows of each stream. `partitions` is their number, by
    default twice the cores that Spark has now. `zone` is the time zone of times, which matters for
    time_features only: Spark has instants, while a local run finds the zone in the files. It is not
    needed with [source] time_zone, and UTC by default.

    A worker holds the state of the streams of a partition, and a record batch of [source]
    batch_rows rows (in kind whole: the partition). The result is computed when it is used. Stream
    by stream, its bits are those of a local run that reads the rows in this order.

    Raises, before a job runs: ConfigError without `order`, or for another `zone` than [source]
    time_zone, DataError for a missing column,
    DTypeError for a column that cannot be used, such as a key of floats, StateError for the state
    of another model or other columns. Actions on the result raise errors in rows: see
    `worker_errors`.
    """
    loaded = loaded_for_workers(pipeline)
    df = with_new_columns(df, loaded)
    bound = bound_to(df, loaded, zone_of(loaded, zone))
    checked = Order.of(df, order)
    states = _state_frame(df.sparkSession, bound, state)
    schema = None
    if states is not None:
        schema = in_own_zone(table_schema(states), bound)
        _check_state(bound, schema)
    union = Union(df, for_workers(bound), checked, states)
    task = union.task(schema)
    both = union.by_key(partitions).mapInArrow(scoring(task), spark_schema(task.result_schema))
    return ScoredFrames(both, task)


def _state_frame(spark: Any, bound: BoundPipeline, state: Any) -> Any:
    """Return the state as a DataFrame; None if there is none."""
    if state is None:
        table = initial_state(bound)
        return None if table is None else state_from_arrow(spark, table)
    if hasattr(state, "sparkSession"):
        return state
    table = state.to_arrow() if isinstance(state, StateTable) else as_table(state, "state")
    table = table.cast(in_own_zone(table.schema, bound))
    on_change = bound.loaded.config.model.on_change
    # In the types of this pipeline's columns, which are those of Spark.
    return state_from_arrow(spark, starting_table(bound, table, "state", on_change=on_change))


def _check_state(bound: BoundPipeline, schema: pa.Schema) -> None:
    """Raise StateError for a state of other columns, or one that the model cannot take over."""
    on_change = bound.loaded.config.model.on_change
    starting_table(bound, schema.empty_table(), LABEL, on_change=on_change)
