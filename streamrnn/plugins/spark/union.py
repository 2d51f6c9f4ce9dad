"""State and rows in one DataFrame, each partition with the state of its streams first."""

from typing import Any

import pyarrow as pa

from streamrnn.plugins.spark.ordering import Order, column
from streamrnn.plugins.spark.partition import Task
from streamrnn.plugins.spark.types import pyspark, quoted
from streamrnn.stream.scoring import BoundPipeline
from streamrnn.stream.states import flat_schema


class Union:
    """The rows of a DataFrame, with the streams of a state DataFrame if there is one.

    Columns: `kind` (0: a stream, 1: a row); c0, c1, … for the columns in use, of which a stream has
    the keys; o0, … for columns of the order that are not in use, and its first one if that is a
    key; s0, … for the flat state.
    """

    def __init__(self, rows: Any, bound: BoundPipeline, order: Order, state: Any) -> None:
        self._functions = pyspark().sql.functions
        self._names = list(bound.schema.names)
        self._keys = list(bound.loaded.contract.key)
        self._used = [(f"c{i}", quoted(name)) for i, name in enumerate(self._names)]
        # The first column of the order is null for a stream: it must not be a key.
        others = [n for i, n in enumerate(order.names) if n not in self._names or not i]
        if others and others[0] in self._names and others[0] not in self._keys:
            others = others[1:]
        self._others = others
        self._order = order
        self._rows, self._state, self._bound = rows, state, bound
        self._own = [] if state is None else [n for n in state.columns if n not in self._keys]

    def task(self, schema: pa.Schema | None) -> Task:
        """Return the task of a worker; `schema` is the schema of the state, None without one."""
        width = 1 + len(self._names) + len(self._others)
        return Task(
            bound=self._bound,
            order_of=self._order,
            data=tuple(range(1, 1 + len(self._names))),
            order=tuple(self._position(name) for name in self._order.names),
            state=()
            if schema is None
            else tuple(
                1 + self._names.index(name) if name in self._keys else width + self._own.index(name)
                for name in flat_schema(schema).names
            ),
            state_schema=schema,
        )

    def _position(self, name: str) -> int:
        if name in self._others:
            return 1 + len(self._names) + self._others.index(name)
        return 1 + self._names.index(name)

    def by_key(self, partitions: int | None) -> Any:
        """Return the DataFrame, partitioned by key and sorted within partitions."""
        whole = self._whole()
        keys = [f"c{self._names.index(name)}" for name in self._keys]
        if partitions is None:
            partitions = 2 * self._rows.sparkSession.sparkContext.defaultParallelism
        parts = whole.repartition(partitions, *keys)
        first, *others = [whole.columns[self._position(name)] for name in self._order.names]
        # A stream's order is null, so it comes first. `kind` is second, as Spark compares prefixes
        # of the first column before it compares rows.
        col = self._functions.col
        sorting = [col(name).asc_nulls_first() for name in (first, "kind", *others)]
        return parts.sortWithinPartitions(*sorting)

    def _whole(self) -> Any:
        functions = self._functions
        rows = self._rows.select(
            functions.lit(1).cast("tinyint").alias("kind"),
            *(functions.col(name).alias(alias) for alias, name in self._used),
            *(column(self._rows, n).alias(f"o{i}") for i, n in enumerate(self._others)),
        )
        if self._state is None:
            return rows
        types = [field.dataType for field in self._state.select(*map(quoted, self._own)).schema]
        blank = [functions.lit(None).cast(kind).alias(f"s{i}") for i, kind in enumerate(types)]
        return self._streams(rows).union(rows.select("*", *blank))

    def _streams(self, rows: Any) -> Any:
        """Return the streams of the state; `rows` has the types of the other columns."""
        functions = self._functions
        columns = [functions.lit(0).cast("tinyint").alias("kind")]
        key_of = {f"c{self._names.index(name)}": quoted(name) for name in self._keys}
        for field in rows.schema[1:]:
            key = key_of.get(field.name)
            value = functions.lit(None) if key is None else functions.col(key)
            columns.append(value.cast(field.dataType).alias(field.name))
        columns += [functions.col(quoted(n)).alias(f"s{i}") for i, n in enumerate(self._own)]
        return self._state.select(*columns)
