"""Score one partition, which has the state of its streams first, then their rows in order.

A DataFrame has no order: the values of some of its columns order the rows of each stream.

Spark gets functions for its workers as code, not by name, so that a worker can report that it lacks
this package.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn import __version__
from streamrnn.base.arrays import Bools, Ints
from streamrnn.errors import ConfigError, DataError, DTypeError, LateRowError
from streamrnn.plugins.spark.frames import arrow_type, pyspark, quoted
from streamrnn.stream.scoring import BoundPipeline, Scorer, starting_table
from streamrnn.stream.sources import Origin, named_values, select, ticks
from streamrnn.stream.states import StateTable, flat_schema, from_flat, to_flat
from streamrnn.stream.windows import reject_names

KIND, DATA = "streamrnn_kind", "streamrnn_data"
SCORED_ROWS, STATE, REJECTS, SUMMARY = "rows", "state", "rejects", "summary"
_CHUNK = 4 << 20
"""About how many bytes of state are in one row of the result."""
_OWNER = "state"
_ADVICE = (
    'For files, name the order of a local run: order=["_metadata.file_path", '
    '"_metadata.row_index"]. The time alone is enough only if no stream has two rows with the same '
    "time (ties are refused); late rows are then sorted into their place."
)

Mapped = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Order:
    """The columns that order the rows of each stream, by name, and the types of their values."""

    names: tuple[str, ...]
    types: tuple[pa.DataType, ...]

    @classmethod
    def of(cls, frame: Any, order: Sequence[str]) -> "Order":
        """Check the columns of an order, which may be hidden ones, and return the order.

        Raises ConfigError without an order, or for anything but names; DataError for a missing
        column; DTypeError for a type that is not text, an integer, a time or a date: NaN does not
        equal itself, and a decimal is not one of the numbers that say which row is the first.
        """
        several = isinstance(order, Sequence) and not isinstance(order, str)
        names: tuple[Any, ...] = tuple(order) if several else (order,)
        for name in names:
            if not isinstance(name, str):  # such as a Column
                raise ConfigError(
                    f"order: expected names of columns, received {type(name).__name__} {name}. To "
                    "order by an expression, add it to the DataFrame as a column"
                )
        if not names:
            raise ConfigError(
                "order: rows of a DataFrame have no order; name the columns that order the rows of "
                f"each stream. {_ADVICE}"
            )
        types = [arrow_type(_type_of(frame, name), "UTC") for name in names]
        is_ = pa.types
        for name, kind in zip(names, types, strict=True):
            refused = (is_.is_nested, is_.is_floating, is_.is_decimal, is_.is_binary)
            if kind is None or any(test(kind) for test in refused):
                raise DTypeError(
                    f"order: column {name!r}: expected text, an integer, a time or a date, "
                    f"received {_type_of(frame, name).simpleString()}"
                )
        return cls(names, tuple(types))

    @property
    def is_file_and_row(self) -> bool:
        """Whether the order is by file (text) and row (an integer)."""
        if len(self.types) != 2:
            return False
        return bool(pa.types.is_string(self.types[0]) and pa.types.is_integer(self.types[1]))


def column(frame: Any, name: str) -> Any:
    """Return a column of a DataFrame by its name, or by an expression for a hidden one."""
    functions = pyspark().sql.functions
    return functions.col(quoted(name) if name in frame.columns else name)


def _type_of(frame: Any, name: str) -> Any:
    exception = pyspark().errors.AnalysisException
    try:
        return frame.select(column(frame, name)).schema[0].dataType
    except exception as error:
        raise DataError(
            f"order: column {name!r} not found. Available columns: {', '.join(frame.columns)}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Places(Origin):
    """The place of each of N rows in the order.

    `values` (N,) are the values of the columns of the order, `row_N` the indices of the rows.
    """

    order: Order
    values: tuple[pa.Array, ...]

    def file(self, row: int) -> str:
        if self.order.is_file_and_row:
            return str(self.values[0][row].as_py())
        return "the DataFrame"

    def place(self, row: int) -> str:
        if self.order.is_file_and_row:
            return f"{self.file(row)}: row {self.values[1][row].as_py()} (from 0)"
        return f"the DataFrame: row {named_values(self.order.names, self.values, row)}"

    def key(self, row: int) -> list[tuple[bool, str | int]]:
        """Return values, for JSON, that sort as the order of the rows does, with null first."""
        values: list[tuple[bool, str | int]] = []
        for array in self.values:
            one = array.slice(row, 1)
            text = pa.types.is_string(array.type)
            value = (one[0].as_py() or "") if text else int(ticks(one)[0])
            values.append((one[0].is_valid, value))
        return values

    def first_of_last_tie(self) -> int:
        """Return the index of the first row that ties with the last row in the order."""
        changed = np.flatnonzero(self._changes())
        return int(changed[-1]) + 1 if len(changed) else 0

    def tied(self) -> tuple[Ints, Ints]:
        """Return the rows (K,) whose order another row has, too, and the id of each one's tie."""
        changes = self._changes()
        group = np.concatenate([[0], np.cumsum(changes)])
        rows = np.flatnonzero(np.bincount(group)[group] > 1)
        return rows, group[rows]

    def _changes(self) -> Bools:
        """Return whether each row but the first (N - 1,) differs from the row before it."""
        changes = np.zeros(len(self.row_N) - 1, bool)
        for array in self.values:
            before, after = array[:-1], array[1:]
            nulls = pc.xor(before.is_null(), after.is_null())
            unequal = pc.or_(pc.fill_null(pc.not_equal(before, after), False), nulls)
            changes |= unequal.to_numpy(zero_copy_only=False)
        return changes


def _repeated(slots: Ints, group: Ints) -> int | None:
    """Return the smallest index at which a slot (K,) repeats in its group (K,), or None."""
    order = np.lexsort((group, slots))  # stable
    same = (group[order][1:] == group[order][:-1]) & (slots[order][1:] == slots[order][:-1])
    return int(order[1:][same].min()) if same.any() else None


@dataclass(frozen=True)
class Task:
    """What a worker needs to score a partition.

    The first column of its record batches is 0 for the state of a stream, 1 for a row; c0, c1, …
    are the columns of `bound.schema`. `order` names the columns of the order `order_of`, and
    `state` the columns of the flat state. `state_schema` is the schema of the state table (None: no
    state).
    """

    bound: BoundPipeline
    order_of: Order
    order: tuple[str, ...]
    state: tuple[str, ...]
    state_schema: pa.Schema | None

    @property
    def result_schema(self) -> pa.Schema:
        """The output columns, the kind of the row, and the content of rows that are not output."""
        extra = [pa.field(KIND, pa.string()), pa.field(DATA, pa.binary())]
        return pa.schema([*self.bound.emitter.schema, *extra])

    def rejects_schema(self) -> pa.Schema:
        """Return the columns of rejected rows."""
        place, names = (pa.string(), pa.string(), pa.int64()), reject_names(self.bound.schema)
        fields = [pa.field(name, kind) for name, kind in zip(names, place, strict=False)]
        fields += [f.with_name(n) for f, n in zip(self.bound.schema, names[3:], strict=True)]
        if not self.order_of.is_file_and_row:
            pairs = zip(self.order_of.names, self.order_of.types, strict=True)
            fields += [pa.field(f"order/{name}", kind) for name, kind in pairs]
        return pa.schema(fields)


def scoring(task: Task) -> Mapped:
    """Return the function with which a worker scores a partition."""
    content: bytes = pyspark().cloudpickle.dumps(task)
    version = __version__

    def score(batches):  # type: ignore[no-untyped-def]
        import sys

        fix = (
            f"This worker's Python is {sys.executable}. Install streamrnn {version} there, or set "
            "PYSPARK_PYTHON to the Python of the driver."
        )
        try:
            import streamrnn
        except ImportError:
            raise RuntimeError(f"a Spark worker cannot import streamrnn. {fix}") from None
        if streamrnn.__version__ != version:
            raise RuntimeError(
                f"a Spark worker has streamrnn {streamrnn.__version__}, the driver has {version}. "
                + fix
            )
        from pyspark import cloudpickle

        from streamrnn.plugins.spark.partition import score_partition

        return score_partition(cloudpickle.loads(content), batches)

    return score


def unpacking() -> Mapped:
    """Return the function with which a worker unpacks record batches from their first column."""

    def unpack(batches):  # type: ignore[no-untyped-def]
        import pyarrow as pa

        for batch in batches:
            for value in batch.column(0):
                with pa.ipc.open_stream(value.as_buffer()) as reader:
                    yield from reader

    return unpack


def score_partition(task: Task, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Score the rows of a partition; yield output rows, rejects, the new state, and counts."""
    table, batches = _initial_table(task, batches)
    scorer = Scorer(task.bound, table)
    counts = Counter({"new_streams": -scorer.table.streams})
    first: dict[str, tuple[list[Any], str]] = {}
    for rows, places in _placed_rows(task, batches):
        try:
            output, rejects = _score(task, scorer, rows, places, counts, first)
        except LateRowError as error:
            raise error.because(
                'Correct the order of the rows, or set [source] late to "drop", "reject" or "apply"'
            ) from None
        yield _output(task, output)
        if rejects is not None:
            yield _packed(task, REJECTS, [rejects])
    for output in scorer.finish():
        counts["rows_out"] += output.num_rows
        yield _output(task, output)
    counts.update(scorer.at_end)
    dropped, streams = scorer.drop_idle(), scorer.table.streams
    counts.update({"streams": streams, "new_streams": streams + dropped})
    counts["dropped_streams"] += dropped
    yield from _state(task, scorer.table)
    yield _result(task, SUMMARY, [json.dumps({"counts": counts, "first": first}).encode()])


def _initial_table(
    task: Task, batches: Iterator[pa.RecordBatch]
) -> tuple[StateTable, Iterator[pa.RecordBatch]]:
    """Read the state of a partition; return it with the record batches of rows."""
    bound = task.bound
    if task.state_schema is None:
        return StateTable(bound.layout, bound.initial()), batches
    schema = flat_schema(task.state_schema)
    parts = []
    for batch in batches:
        rows = int(np.count_nonzero(batch.column(0).to_numpy() == 0))
        if rows:
            columns = [
                batch.column(n)[:rows].cast(f.type) for n, f in zip(task.state, schema, strict=True)
            ]
            parts.append(pa.RecordBatch.from_arrays(columns, schema=schema))
        if rows < batch.num_rows:
            batches = chain([batch.slice(rows)], batches)
            break
    flat = pa.Table.from_batches(parts, schema).combine_chunks()
    table = from_flat(flat, task.state_schema, _OWNER)
    on_change = bound.loaded.config.model.on_change
    return starting_table(bound, table, _OWNER, on_change=on_change), batches


def _placed_rows(
    task: Task, batches: Iterator[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch, Places]]:
    """Yield the rows in batches of about the config's size; rows with equal order share a batch."""
    size = task.bound.loaded.config.source.batch_rows
    gathered: list[pa.RecordBatch] = []
    count, due = 0, size
    for batch in batches:
        gathered.append(batch)
        count += batch.num_rows
        if count >= due:
            whole = pa.concat_batches(gathered)
            cut = _places(task, whole).first_of_last_tie()
            if cut:
                yield _with_places(task, whole.slice(0, cut))
            gathered, count = [whole.slice(cut)], count - cut
            due = size if cut else 2 * count  # each row is copied a few times at most
    if count:
        yield _with_places(task, pa.concat_batches(gathered))


def _with_places(task: Task, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Places]:
    schema = task.bound.schema
    columns = [batch.column(f"c{i}") for i in range(len(schema))]
    used = select(pa.RecordBatch.from_arrays(columns, schema.names), schema)
    return used, _places(task, batch)


def _places(task: Task, batch: pa.RecordBatch) -> Places:
    files, rows = np.zeros(batch.num_rows, np.int64), np.arange(batch.num_rows)
    values = tuple(batch.column(name) for name in task.order)
    return Places(("",), files, rows, order=task.order_of, values=values)


def _score(
    task: Task,
    scorer: Scorer,
    batch: pa.RecordBatch,
    places: Places,
    counts: Counter[str],
    first: dict[str, tuple[list[Any], str]],
) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """Score a record batch; return its output rows and its rejects.

    `first`: field of a summary -> order and description of the first row that the field is about.
    Raises DataError if two valid rows of a stream have the same order, and what the scorer raises.
    """
    rows = task.bound.loaded.contract.read(batch, places)
    scored = scorer.compute(scorer.prepare(rows))
    tied, group = places.tied()
    good = rows.faults.codes[tied] == 0
    tied, group = tied[good], group[good]
    if len(tied):
        slots = scorer.table.find([key.take(pa.array(tied)) for key in rows.keys], add=False)
        again = _repeated(slots, group)
        if again is not None:
            names = ", ".join(places.order.names)
            raise DataError(
                f"{rows.place(int(tied[again]))}: another row of this stream has the same values "
                f"in the `order` columns ({names}), so it is undefined which of the two is scored "
                f"first. Add a column to `order` in which they differ. {_ADVICE}"
            )
    counts.update({"rows": len(rows), "rows_out": scored.output.num_rows})
    counts.update(scored.counts)
    for name, row in scored.first.items():
        first.setdefault(name, (places.key(row.row), row.text))
    return scored.output, _placed(task, scored.rejects, places)


def _placed(task: Task, rejects: pa.RecordBatch | None, places: Places) -> pa.RecordBatch | None:
    """Return rejected rows with their places; the column `row` is their index in the batch."""
    if rejects is None:
        return None
    schema = task.rejects_schema()
    index = rejects.column("row")
    order = [value.take(index) for value in places.values]
    columns = list(rejects.columns)
    if places.order.is_file_and_row:
        columns[1:3] = order
    else:
        columns[1:3] = [pa.nulls(len(index), pa.string()), pa.nulls(len(index), pa.int64())]
        columns += order
    columns = [column.cast(f.type) for column, f in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _output(task: Task, rows: pa.RecordBatch) -> pa.RecordBatch:
    kind = pa.repeat(pa.scalar(SCORED_ROWS), rows.num_rows)
    columns = [*rows.columns, kind, pa.nulls(rows.num_rows, pa.binary())]
    return pa.RecordBatch.from_arrays(columns, schema=task.result_schema)


def _state(task: Task, table: StateTable) -> Iterator[pa.RecordBatch]:
    """Yield the state of all streams, some megabytes at a time."""
    flat = to_flat(table.to_arrow(copy=False))
    if not flat.num_rows:
        return
    rows = max(1, _CHUNK * flat.num_rows // max(1, flat.nbytes))
    for first in range(0, flat.num_rows, rows):
        yield _packed(task, STATE, flat.slice(first, rows).to_batches())


def _packed(task: Task, kind: str, batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return _result(task, kind, [sink.getvalue().to_pybytes()])


def _result(task: Task, kind: str, data: list[bytes]) -> pa.RecordBatch:
    blank = [pa.nulls(len(data), field.type) for field in task.bound.emitter.schema]
    columns = [*blank, pa.repeat(pa.scalar(kind), len(data)), pa.array(data, pa.binary())]
    return pa.RecordBatch.from_arrays(columns, schema=task.result_schema)
