"""Output rows: every row, the last of each n steps, or the final row of each stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.errors import ConfigError, NotFiniteError
from streamrnn.nn.models.mixture import crossings
from streamrnn.stream.operators.window_kind import ModelOutput
from streamrnn.stream.sources import Rows, TargetColumns
from streamrnn.stream.states import Held, StateTable
from streamrnn.stream.windows import StreamBatch

_ORDER = pa.field("_row", pa.int64())
_COMPUTED = pa.field("_computed", pa.bool_())
_REASON = pa.field("reason", pa.string())
_FLOAT32 = pa.float32()
_NO_ROWS: Ints = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Emitter:
    """Builds output rows: the carried columns, then one float32 column per unit.

    `emit` is "every", "last" (of each `last_of` steps) or "final"; values of the first `warmup`
    steps after a stream starts or is reset are null. `model`: the name and the value of a last
    column, which says what computed the row. `quantiles`: the units are quantiles of one label in
    ascending order; with `sorts`, their values are sorted in each row. `changes`: the columns whose
    values in the row are added to the first units; an output is null where such a value is null.
    """

    carried: tuple[pa.Field, ...]
    names: tuple[str, ...]
    emit: str = "every"
    last_of: int = 1
    warmup: int = 0
    model: tuple[str, str] | None = None
    quantiles: bool = False
    sorts: bool = False
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.emit == "final" and (
            clash := {_ORDER.name, _COMPUTED.name}.intersection(self.schema.names)
        ):
            raise ConfigError(
                f'[output] emit = "final" uses the name {min(clash)!r} internally: '
                "carry another column or rename the output"
            )

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema of the output."""
        fields = [pa.field(f.name, f.type) for f in self.carried]
        fields += self._units
        if self.model is not None:
            fields.append(pa.field(self.model[0], pa.string()))
        return pa.schema(fields)

    @cached_property
    def _names(self) -> list[str]:
        return [f.name for f in self.carried]

    @cached_property
    def _units(self) -> list[pa.Field]:
        return [pa.field(name, _FLOAT32) for name in self.names]

    def pending_fields(self) -> tuple[pa.Field, ...]:
        """Return the fields of a row that is held until the end of the run."""
        return (*self.schema, _ORDER, _COMPUTED) if self.emit == "final" else ()

    def rows(self, batch: pa.RecordBatch, kept: Ints, computed: ModelOutput) -> pa.RecordBatch:
        """Return the output rows of a record batch, in file order (emit every and last).

        With emit every, each row in `kept` has an output row.
        """
        values, valid = self._by_row(batch, computed, kept)
        if self.emit == "every":
            chosen = kept
        else:
            chosen = np.sort(computed.row_K[computed.step_K % self.last_of == 0])
        return self._build(batch, chosen, values, valid)

    @cached_property
    def aligned_schema(self) -> pa.Schema:
        """The schema of an answer. Raises ConfigError if the output has a column `reason`, too."""
        if _REASON.name in self.schema.names:
            raise ConfigError(
                f"align: the output has a column {_REASON.name!r}, a name that the answer needs to "
                "say why a row has no output. Leave the column out of [output] columns, or choose "
                "another name"
            )
        return self.schema.append(_REASON)

    def aligned(
        self,
        batch: pa.RecordBatch,
        kept: Ints,
        row_M: Ints,
        computed: ModelOutput,
        refused_N: Array | None,
    ) -> pa.RecordBatch:
        """Return a row for each row of a record batch, in file order (emit every and last).

        `kept` is as for `rows`; `row_M` are the rows that are steps of the model; `refused_N` says
        why a row was not accepted, "" where it was. Only rows whose `reason` is null have values.
        """
        values, valid = self._by_row(batch, computed, kept)
        reasons = pa.nulls(batch.num_rows, _REASON.type)
        if valid is not None or refused_N is not None or self.emit != "every":
            reason = np.full(batch.num_rows, "skipped", object)
            reason[row_M] = "waiting"
            emitted = computed.step_K % (1 if self.emit == "every" else self.last_of) == 0
            reason[computed.row_K[emitted]] = ""
            reason[(reason == "") & np.isnan(values).any(axis=1)] = "no present value"
            reason[computed.row_K[emitted & (computed.step_K <= self.warmup)]] = "warmup"
            if refused_N is not None:
                refused = refused_N != ""
                reason[refused] = refused_N[refused]
            valid = np.broadcast_to((reason == "")[:, None], values.shape)
            reasons = pa.array(reason, _REASON.type, mask=reason == "")
        columns = self._build(batch, np.arange(batch.num_rows), values, valid).columns
        columns.append(reasons)
        return pa.RecordBatch.from_arrays(columns, schema=self.aligned_schema)

    def held(
        self,
        batch: pa.RecordBatch,
        by_stream: StreamBatch,
        computed: ModelOutput,
        table: StateTable,
        number_N: Ints,
    ) -> Held:
        """Return the rows that `table` holds, updated by each stream's last row (emit final).

        `number_N` (N,) int64 is the number of each row in the input. A row with a value is not
        replaced by a row without one.
        """
        values, valid = self._by_row(batch, computed, by_stream.kept)
        row, slot, has = self._last_rows(by_stream, computed, table)
        built = self._build(batch, row, values, valid)
        columns = [*built.columns, pa.array(number_N[row]), pa.array(has)]
        new = pa.RecordBatch.from_arrays(columns, schema=pa.schema(self.pending_fields()))
        before, rows = table.held
        if rows is None:
            return Held(slot, new)
        had = np.full(table.streams, False)
        had[before] = rows.column("_computed").to_numpy(zero_copy_only=False)
        better = has | ~had[slot]
        slot, new = slot[better], new.take(pa.array(np.flatnonzero(better)))
        replaced = np.zeros(table.streams, bool)
        replaced[slot] = True
        stay = np.flatnonzero(~replaced[before])
        kept = rows.take(pa.array(stay))
        both = pa.Table.from_batches([kept, new]).combine_chunks()
        slots: Ints = np.concatenate([before[stay], slot])
        return Held(slots, both.to_batches()[0] if both.num_rows else new)

    def final(self, table: StateTable) -> pa.RecordBatch:
        """Remove the held rows from `table`; return them in the order in which they were read."""

        def in_order(rows: pa.RecordBatch | None) -> pa.RecordBatch:
            if rows is None:
                return pa.RecordBatch.from_pylist([], schema=self.schema)
            order = np.argsort(rows.column("_row").to_numpy(), kind="stable")
            return rows.take(pa.array(order)).select(self.schema.names)

        return table.release_held(in_order)

    def _last_rows(
        self, by_stream: StreamBatch, computed: ModelOutput, table: StateTable
    ) -> tuple[Ints, Ints, Bools]:
        """Return each stream's last row with a value, else its last row: (row, slot, has value)."""
        # Of several values for one index NumPy keeps the last; rows of a stream are in order.
        best = np.full(table.streams, -1)
        best[by_stream.slot_N[by_stream.kept]] = by_stream.kept
        valued = np.full(table.streams, -1)
        warm = computed.step_K > self.warmup
        row = computed.row_K[warm]
        valued[by_stream.slot_N[row]] = row
        has = valued >= 0
        best[has] = valued[has]
        slot = np.flatnonzero(best >= 0)
        return best[slot], slot, has[slot]

    def _by_row(
        self, batch: pa.RecordBatch, computed: ModelOutput, kept: Ints
    ) -> tuple[Floats, Bools | None]:
        """Return the values of all rows, and which of them are valid; None for all."""
        values, valid = self._computed(batch.num_rows, computed, kept)
        if not self.changes:
            return values, valid
        present, _ = TargetColumns(self.changes).read(batch)
        total = values.astype(np.float64)
        total[:, : len(self.changes)] += present
        with np.errstate(over="ignore"):
            values = total.astype(np.float32)
        values[np.isinf(values)] = np.nan
        sums = ~np.isnan(values)
        return values, valid if sums.all() else sums if valid is None else valid & sums

    def _computed(
        self, rows: int, computed: ModelOutput, kept: Ints
    ) -> tuple[Floats, Bools | None]:
        """Return what the model computed, as `_by_row` does."""
        values_KU = np.sort(computed.values_KU) if self.sorts else computed.values_KU
        values = values_KU
        if computed.row_K is not kept or len(kept) < rows:  # else already in row order
            values = np.zeros((rows, values.shape[1]), np.float32)
            values[computed.row_K] = values_KU
        cold = computed.row_K[computed.step_K <= self.warmup] if self.warmup else _NO_ROWS
        if computed.valid_KU is None and len(computed.row_K) == rows and not len(cold):
            return values, None
        valid = np.zeros(values.shape, bool)
        valid[computed.row_K] = True if computed.valid_KU is None else computed.valid_KU
        valid[cold] = False
        return values, valid

    def crossed(self, computed: ModelOutput) -> int:
        """Return how many rows have quantiles that cross, before they are sorted.

        Rows of the output count; with emit final, which holds rows back, all rows of the batch.
        """
        if not self.quantiles:
            return 0
        step = computed.step_K
        emitted = (step > self.warmup) & (step % self.last_of == 0)
        return crossings(computed.values_KU[emitted])

    def _build(
        self, batch: pa.RecordBatch, chosen: Ints, values: Floats, valid: Bools | None
    ) -> pa.RecordBatch:
        rows = batch.select(self._names)
        if len(chosen) != batch.num_rows or self.emit == "final":
            rows = rows.take(pa.array(chosen))
            values, valid = values[chosen], None if valid is None else valid[chosen]
        if valid is not None and valid.all():
            valid = None
        for unit, column in enumerate(np.ascontiguousarray(values.T)):
            if valid is None:  # takes half the time of pa.array
                buffers = [None, pa.py_buffer(column)]
                array = pa.Array.from_buffers(_FLOAT32, len(column), buffers)
            else:
                array = pa.array(column, mask=~valid[:, unit])
            rows = rows.append_column(self._units[unit], array)
        if self.model is not None:
            rows = rows.append_column(self.model[0], pa.repeat(self.model[1], len(values)))
        if rows.schema.equals(self.schema, check_metadata=True):
            return rows  # true of most sources; takes half the time
        return pa.RecordBatch.from_arrays(rows.columns, schema=self.schema)


def all_finite(computed: ModelOutput) -> bool:
    """Return whether no output, and no new state, is NaN or infinite.

    New states are the states after a stream's last row before a reset or the end of the batch;
    states in between are not looked at.
    """
    finite = np.isfinite(computed.values_KU)
    return not computed.overflows and b"\0" not in finite.tobytes()  # faster than all()


def check_finite(
    computed: ModelOutput, rows: Rows, names: Sequence[str], by_stream: StreamBatch
) -> None:
    """Raise NotFiniteError, about the first row, if outputs or new states are NaN or infinite."""
    if all_finite(computed):
        return
    values, whys = computed.values_KU, dict(computed.overflows)
    for k in np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist():
        unit = int(np.flatnonzero(~np.isfinite(values[k]))[0])
        whys[int(computed.row_K[k])] = (
            f"output {names[unit]!r}: the model returned {values[k, unit]}"
        )
    wrong = sorted(whys)
    _, first = np.unique(by_stream.slot_N[wrong], return_index=True)
    reasons = {wrong[n]: f"{whys[wrong[n]]} for finite features" for n in np.sort(first).tolist()}
    row = next(iter(reasons))
    raise NotFiniteError(
        f"{rows.place(row)}: {reasons[row]}; a carried state would pass it on to later rows. Check "
        "the weights, and limit the features to the range of the training data (`valid`, `clip`).",
        reasons,
    ).at(rows.number(row))
