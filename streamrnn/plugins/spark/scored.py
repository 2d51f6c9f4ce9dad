"""Score the rows of a DataFrame: check what can be checked before a job, and plan the job.

The result is one DataFrame of rows, state and rejects, which is computed once.
"""

import copy
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from streamrnn.errors import ConfigError
from streamrnn.jobs.pipeline import Pipeline
from streamrnn.plugins.spark.frames import (
    LABEL,
    arrow_schema,
    pyspark,
    quoted,
    spark_schema,
    state_from_arrow,
    state_struct,
    table_schema,
    worker_errors,
)
from streamrnn.plugins.spark.partition import (
    DATA,
    KIND,
    REJECTS,
    SCORED_ROWS,
    STATE,
    SUMMARY,
    Order,
    Task,
    column,
    scoring,
    unpacking,
)
from streamrnn.stream.scoring import BoundPipeline, LoadedPipeline, Summary, starting_table
from streamrnn.stream.sources import new_names
from streamrnn.stream.states import StateTable, as_table, flat_schema, read_state_file

_FRAME = "the DataFrame"


class ScoredFrames:
    """Scored rows, the new state of all streams, and rejected rows.

    All three are in one DataFrame, `both`, which is computed once: the first action on `rows`,
    `state`, `rejects` or `summary` keeps it on the disks of the executors, until `unpersist`.
    """

    def __init__(self, both: Any, task: Task) -> None:
        self.both = both
        self._task = task
        self._persisted = False

    @property
    def rows(self) -> Any:
        """The scored rows, with the columns of an output."""
        names = self._task.bound.emitter.schema.names
        return self._of(SCORED_ROWS).select(*map(quoted, names))

    @property
    def state(self) -> Any:
        """The state of all streams: keys, steps, last_time, each state as a binary value."""
        return self._unpacked(STATE, state_struct(self._task.bound.layout.schema()))

    @property
    def rejects(self) -> Any:
        """The rejected rows with their reason and place.

        `file` and `row` are the columns of an order by text and integer; for other orders they are
        null, and the columns of the order are `order/<name>`.
        """
        return self._unpacked(REJECTS, spark_schema(self._task.rejects_schema()))

    def summary(self) -> Summary:
        """Return the counts of the result, which is computed if it was not yet.

        Raises DataError if more rows are rejected than [source] max_rejects allows, and a worker's
        error.
        """
        with worker_errors():
            collected = self._of(SUMMARY).select(DATA).collect()
        summary = Summary()
        results = [json.loads(bytes(content)) for (content,) in collected]
        for name in {name for result in results for name in result["first"]}:
            rows = [result["first"][name] for result in results if name in result["first"]]
            setattr(summary, name, min(rows)[1])
        for counts in (result["counts"] for result in results):
            summary.add(counts)
            for name in ("rows", "rows_out", "streams", "new_streams"):
                setattr(summary, name, getattr(summary, name) + counts.get(name, 0))
        self._task.bound.policy.limit_rejects(
            summary.rejected,
            f"{summary.rejected} rows are rejected",
            "The `rejects` of the result have their reasons.",
        )
        return summary

    def unpersist(self) -> None:
        """Drop what was persisted."""
        if self._persisted:
            self.both.unpersist()
            self._persisted = False

    def _of(self, kind: str) -> Any:
        spark = pyspark()
        if not self._persisted:
            self.both = self.both.persist(spark.StorageLevel.DISK_ONLY)
            self._persisted = True
        return self.both.where(spark.sql.functions.col(KIND) == kind)

    def _unpacked(self, kind: str, schema: Any) -> Any:
        return self._of(kind).select(DATA).mapInArrow(unpacking(), schema)


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

    `pipeline` is a Pipeline, or the path of its file; its [source] path and sort, [sink], [engine]
    and [checkpoint] are not used. `state` is the `state` of the result for earlier rows (a
    DataFrame), a StateTable or its Arrow table; by default the one that [state] init names, if any.
    `order` names the columns that order the rows of each stream. `partitions` is the number of
    partitions, by default twice the cores that Spark has now. `zone` is the time zone of times,
    which matters only for time_features: Spark stores instants without a zone, while a local run
    finds the zone in the files. `zone` is not needed with [source] time_zone, and is UTC by
    default.

    A worker holds the state of the streams of a partition, and a record batch of [source]
    batch_rows rows (with [window] kind = "whole", the whole partition). The result is computed when
    it is used. Stream by stream, it has the bits of a local run that reads the rows in this order.

    Raises, before a job runs: ConfigError without `order`, or for a `zone` that differs from
    [source] time_zone; DataError for a missing column; DTypeError for a column that cannot be used,
    such as a key of floats; StateError for a state of another model or of other columns. Actions
    on the result raise the errors of rows: see `worker_errors`.
    """
    if not isinstance(pipeline, Pipeline):
        pipeline = Pipeline.from_toml(pipeline)
    loaded = copy.copy(pipeline.loaded)
    # Workers use one thread each, as Spark uses the rest.
    loaded.config = loaded.config.with_keys(model={"threads": 1})
    names = new_names(df.columns, loaded.renames, _FRAME)
    if names:
        df = df.toDF(*(names.get(name, name) for name in df.columns))
    bound = _bound_to(df, loaded, zone)
    checked = Order.of(df, order)
    states = _state_frame(df.sparkSession, bound, state)
    schema = None
    if states is not None:
        schema = _in_zone_of(bound, table_schema(states))
        on_change = loaded.config.model.on_change
        # Raises for a state with other columns, or one that the model cannot take over.
        starting_table(bound, schema.empty_table(), LABEL, on_change=on_change)
    union = _Union(df, _without_init(bound), checked, states)
    task = union.task(schema)
    both = union.by_key(task, partitions).mapInArrow(
        scoring(task), spark_schema(task.result_schema)
    )
    return ScoredFrames(both, task)


def _state_frame(spark: Any, bound: BoundPipeline, state: Any) -> Any:
    if state is None:
        if bound.loaded.config.state.init is None:
            return None
        return state_from_arrow(spark, starting_table(bound, None, ""))
    if hasattr(state, "sparkSession"):
        return state
    table = state.to_arrow() if isinstance(state, StateTable) else as_table(state, "state")
    table = table.cast(_in_zone_of(bound, table.schema))
    on_change = bound.loaded.config.model.on_change
    # The starting table has the types of this pipeline's columns, all of which Spark has.
    return state_from_arrow(spark, starting_table(bound, table, "state", on_change=on_change))


def _bound_to(frame: Any, loaded: LoadedPipeline, zone: str | None) -> BoundPipeline:
    """Bind a pipeline to the columns of a DataFrame, whose times are in the time zone `zone`."""
    configured = loaded.config.source.time_zone
    if configured and zone not in (None, configured):
        raise ConfigError(
            f"zone={zone!r} and [source] time_zone = {configured!r} differ: remove one, or make "
            "them equal"
        )
    used = loaded.columns if loaded.columns is not None else list(frame.columns)
    bound = loaded.bind(arrow_schema(frame, used, zone or "UTC"), _FRAME)
    for name in bound.emitter.schema.names:
        if name in (KIND, DATA):
            raise ConfigError(f"[output]: the name {name!r} is used internally: choose another")
    return bound


def _in_zone_of(bound: BoundPipeline, schema: pa.Schema) -> pa.Schema:
    """Return the schema of a state with the bound columns' time zone, which Spark does not store.

    Where hours or days are inputs of the model, the state keeps its zone, for comparison, unless
    [source] time_zone names one.
    """
    zone, contract = getattr(bound.layout.time, "tz", None), bound.loaded.contract
    if zone is None or (contract.time_features and not contract.time_zone):
        return schema
    fields = [
        field.with_type(pa.timestamp(field.type.unit, zone))
        if pa.types.is_timestamp(field.type) and field.type.tz is not None
        else field
        for field in schema
    ]
    return pa.schema(fields, schema.metadata)


def _without_init(bound: BoundPipeline) -> BoundPipeline:
    """Return a bound pipeline that can be sent to workers: without the table of [state] init."""
    loaded = copy.copy(bound.loaded)
    loaded.read_init = read_state_file
    loaded.config = loaded.config.with_keys(state={"init": None})
    return replace(bound, loaded=loaded)


class _Union:
    """The rows of a DataFrame, with the streams of a state DataFrame if there is one.

    Columns: `kind` (0: a stream, 1: a row); c0, c1, … for the columns in use, of which a stream has
    the keys; o0, … for columns of the order that are not in use, and for its first column if that
    is a key; s0, … for the flat state.
    """

    def __init__(self, rows: Any, bound: BoundPipeline, order: Order, state: Any) -> None:
        self._functions = pyspark().sql.functions
        self._rows, self._state, self._bound, self._order = rows, state, bound, order
        # Each of these has the names of columns as keys, and their names here as values.
        self._used = _numbered("c", bound.schema.names)
        self._keys = {name: self._used[name] for name in bound.loaded.contract.key}
        # The first column of the order is null for a stream: it must not be a key.
        others = [n for n in order.names if n not in self._used]
        first = [n for n in order.names[:1] if n in self._keys]
        self._others = _numbered("o", [*first, *others])
        own = () if state is None else [n for n in state.columns if n not in self._keys]
        self._own = _numbered("s", own)

    def task(self, schema: pa.Schema | None) -> Task:
        """Return the task of a worker; `schema` is the schema of the state, if there is a state."""
        ordered, stored = self._used | self._others, self._keys | self._own
        order = tuple(ordered[name] for name in self._order.names)
        state = () if schema is None else tuple(stored[n] for n in flat_schema(schema).names)
        return Task(self._bound, self._order, order, state, schema)

    def by_key(self, task: Task, partitions: int | None) -> Any:
        """Return the DataFrame, partitioned by key and sorted within partitions."""
        if partitions is None:
            partitions = 2 * self._rows.sparkSession.sparkContext.defaultParallelism
        parts = self._whole().repartition(partitions, *self._keys.values())
        # A stream's order is null, so it comes first. `kind` is second, as Spark compares prefixes
        # of the first column before it compares rows.
        col, (first, *others) = self._functions.col, task.order
        sorting = [col(name).asc_nulls_first() for name in (first, "kind", *others)]
        return parts.sortWithinPartitions(*sorting)

    def _whole(self) -> Any:
        functions = self._functions
        rows = self._rows.select(
            functions.lit(1).cast("tinyint").alias("kind"),
            *(functions.col(quoted(name)).alias(here) for name, here in self._used.items()),
            *(column(self._rows, name).alias(here) for name, here in self._others.items()),
        )
        if self._state is None:
            return rows
        own = self._state.select(*map(quoted, self._own)).schema
        blank = [
            functions.lit(None).cast(field.dataType).alias(here)
            for field, here in zip(own, self._own.values(), strict=True)
        ]
        return self._streams(rows).union(rows.select("*", *blank))

    def _streams(self, rows: Any) -> Any:
        """Return the streams of the state; `rows` has the types of the other columns."""
        functions = self._functions
        columns = [functions.lit(0).cast("tinyint").alias("kind")]
        key_of = {here: quoted(name) for name, here in self._keys.items()}
        for field in rows.schema[1:]:
            key = key_of.get(field.name)
            value = functions.lit(None) if key is None else functions.col(key)
            columns.append(value.cast(field.dataType).alias(field.name))
        columns += [functions.col(quoted(name)).alias(here) for name, here in self._own.items()]
        return self._state.select(*columns)


def _numbered(letter: str, names: Iterable[str]) -> dict[str, str]:
    return {name: f"{letter}{i}" for i, name in enumerate(names)}
