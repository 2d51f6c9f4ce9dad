"""Score record batches, and carry the state from one to the next."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Ints
from streamrnn.base.display import count
from streamrnn.errors import DataError, NotFiniteError
from streamrnn.nn.kernels.rows import PlainColumns
from streamrnn.stream.operators import CarryOperator, ModelOutput, all_finite, check_finite
from streamrnn.stream.scoring.bind import BoundPipeline
from streamrnn.stream.scoring.summary import FirstRow
from streamrnn.stream.sources import Origin, Rows
from streamrnn.stream.states import Held, StateTable, from_arrow
from streamrnn.stream.states.positions import CallPosition
from streamrnn.stream.windows import (
    RowPolicy,
    StreamBatch,
    Update,
    previous_of,
    rejected_rows,
    sort_by_stream,
    why_late,
    why_refused,
    why_rejected,
    why_repeated,
)


@dataclass
class Scored:
    """The result of one record batch: `output` rows, `rejects` (None: no rows), and counts.

    `first`: field of a Summary -> the first late or repeated row, if there is one. `answer`, if it
    was asked for, has a row for each row of the batch.
    """

    output: pa.RecordBatch
    rejects: pa.RecordBatch | None
    counts: dict[str, int]
    first: dict[str, FirstRow] = field(default_factory=dict)
    answer: pa.RecordBatch | None = None


class Prepared(NamedTuple):
    """A record batch that is ready for the model, or waits for the previous one.

    `by_stream` is the batch sorted by stream, None if sorting has to wait. `streams` is the number
    of streams in the table, this batch included.
    """

    rows: Rows
    by_stream: StreamBatch | None
    streams: int


class Scorer:
    """Scores record batches one after another; `table` holds the state between them.

    `totals` are the counts of all that `score` and `process` scored, by their names in `RowCounts`,
    `at_end` has the counts of rows that `finish` computed.
    However these two end, even by an interrupt, the table is as before or as after the call (see
    `StateTable.change`). Their calls from several threads wait for one another.
    """

    def __init__(self, bound: BoundPipeline, table: StateTable) -> None:
        self.bound = bound
        self.table = table
        self.rows_read = 0
        self.rejected = 0
        self.position: CallPosition | None = None
        self.totals: dict[str, int] = {}
        self.at_end: dict[str, int] = {}
        self._operator = bound.operator()
        self._plain: tuple[pa.Schema, PlainColumns | None] = pa.schema([]), None
        self._carry: CarryOperator | None = None
        if isinstance(self._operator, CarryOperator) and bound.emitter.emit != "final":
            self._carry = self._operator
        self._streams_before = table.streams

    @property
    def can_prepare_ahead(self) -> bool:
        """Whether a batch may be prepared while the previous one is computed."""
        # Waiting windows and held rows must match the steps and the number of streams.
        return self._operator.prepares_ahead and self.bound.emitter.emit != "final"

    def score(self, rows: Rows) -> Scored:
        """Score a record batch. With kind whole or emit "final", `finish` yields the output rows.

        Raises DataError for invalid rows, unless the config drops or rejects them.
        """
        policy = self.bound.policy
        return self.table.change(lambda: self._score(rows, self._sort(rows, policy, room=True)))

    def process(
        self,
        batch: pa.RecordBatch,
        name: str,
        first_row: int,
        position: CallPosition | None,
        *,
        cast: int = 0,
        align: bool = False,
        errors: bool = False,
        unfit: Mapping[int, str] = MappingProxyType({}),
    ) -> Scored:
        """Read a record batch, and score it as `score` does, in fewer steps if its rows are plain.

        Messages locate the rows in `name`, from `first_row` on. `position` becomes the scorer's
        position when the state changes; `cast` is the number of values that were cast. With
        `align`, rows that would raise an error are refused in the answer, unless `errors` is set.
        `unfit`: row -> why it is invalid, for rows that the caller knows to be invalid.
        """

        def work() -> tuple[Scored, Callable[[], None]]:
            counts = {"cast": cast} if cast else {}
            plain = None if unfit else self._score_plain(batch, counts, position, align)
            if plain is not None:
                return plain
            policy = self.bound.policy.answering(errors) if align else self.bound.policy
            origin = Origin.consecutive(name, first_row, batch.num_rows)
            rows = self.bound.loaded.contract.read(batch, origin)
            if unfit:
                rows.faults.replace(unfit)
            by_stream = self._sort(rows, policy, room=True)
            by_stream.counts |= counts
            return self._score(rows, by_stream, position, align)

        while True:
            try:
                return self.table.change(work)
            except NotFiniteError as error:
                if errors or not align:
                    raise
                unfit = {**unfit, **error.reasons}  # at least one more row each time

    def _score_plain(
        self,
        batch: pa.RecordBatch,
        counts: dict[str, int],
        position: CallPosition | None,
        align: bool,
    ) -> tuple[Scored, Callable[[], None]] | None:
        """Return what `_score` returns; None if `_score` itself has to score the batch.

        It has to if the state is not carried from row to row, with emit "final", if there are too
        many rows for one window (`CarryOperator.takes`), if a row is not plain, or if an output or
        a new state is not finite.
        """
        if self._carry is None or not self._carry.takes(batch.num_rows):
            return None
        if not batch.schema.equals(self._plain[0]):
            contract = self.bound.loaded.contract
            self._plain = batch.schema, contract.plain_columns(batch.schema, self.bound.schema)
        columns, policy = self._plain[1], self.bound.policy
        if columns is None:
            return None
        plain = self.table.plain(batch, columns, policy.most_gap)
        if plain is None:
            return None
        features = self.bound.loaded.contract.with_time(plain.features, batch)
        computed = self._carry.one_each(plain.slots, features, self.table)
        if not all_finite(computed):
            return None  # the general path says where
        rows, emitter = computed.row_K, self.bound.emitter
        scored = Scored(self._emit(batch, rows, computed, counts), None, counts)
        if align:
            scored.answer = emitter.aligned(batch, rows, rows, computed, None)
        time = plain.time if columns.time >= 0 else None
        update = Update(plain.slots, computed.step_K, time, previous_of(features, policy))
        return scored, self._committing(scored, len(rows), update, computed, position)

    def _score(
        self,
        rows: Rows,
        by_stream: StreamBatch,
        position: CallPosition | None = None,
        align: bool = False,
    ) -> tuple[Scored, Callable[[], None]]:
        """Score a record batch; return the result, and the call that commits it to the table."""
        computed = self._compute(rows, by_stream)
        held = self._held(rows, by_stream, computed)
        update = by_stream.update()
        scored = self._scored(rows, by_stream, computed)
        if align:
            assert computed is not None  # calls do not support kind whole
            refused = why_refused(rows, by_stream.late, by_stream.repeated, self.bound.policy)
            scored.answer = self.bound.emitter.aligned(
                rows.batch, by_stream.kept, by_stream.row_M, computed, refused
            )
        rejected = len(by_stream.rejected)
        return scored, self._committing(
            scored, len(rows), update, computed, position, rejected, held
        )

    def _committing(
        self,
        scored: Scored,
        rows: int,
        update: Update,
        computed: ModelOutput | None,
        position: CallPosition | None,
        rejected: int = 0,
        held: Held | None = None,
    ) -> Callable[[], None]:
        """Return the call that writes states and counts after `rows` rows; it may be repeated."""
        totals = dict(self.totals)
        for name, number in scored.counts.items():
            totals[name] = totals.get(name, 0) + number
        totals["rows"] = totals.get("rows", 0) + rows
        totals["rows_out"] = totals.get("rows_out", 0) + scored.output.num_rows
        read = self.rows_read + rows, self.rejected + rejected

        def commit() -> None:
            self.table.advance(*update)
            if computed is not None:
                computed.commit_states()
            if held is not None:
                self.table.hold(held)
            self.rows_read, self.rejected = read
            self.position, self.totals = position, totals

        return commit

    def prepare(self, rows: Rows) -> Prepared:
        """Do the first half of `score`, possibly during the `compute` of the previous batch.

        After an error the table is invalid.
        """
        if not self.can_prepare_ahead:
            return Prepared(rows, None, self.table.streams)
        return Prepared(rows, self.sort(rows), self.table.streams)

    def sort(self, rows: Rows) -> StreamBatch:
        """Sort a record batch by stream, and advance the table, except for the model's states.

        After an error the table is invalid.
        """
        by_stream = self._sort(rows, self.bound.policy, room=False)
        self.table.advance(*by_stream.update())
        self.rejected += len(by_stream.rejected)
        return by_stream

    def compute(self, prepared: Prepared) -> Scored:
        """Do the second half of `score`. After an error the table is invalid."""
        rows, by_stream, streams = prepared
        if by_stream is None:
            return self.score(rows)
        self.table.make_room(streams)
        computed = self._compute(rows, by_stream, at_once=True)
        scored = self._scored(rows, by_stream, computed)
        if computed is not None:
            computed.commit_states()
        self.rows_read += len(rows)
        return scored

    def drop_idle(self) -> int:
        """Remove idle streams that are not dirty; return how many were removed.

        Do not call it between `prepare` and `compute`.
        """
        dropped = sum(self.dropping())
        self.table.forget_removed()
        return dropped

    def dropping(self) -> Iterator[int]:
        """Do in steps what `drop_idle` does, without `forget_removed`.

        Yields how many streams each step removed.
        """
        idle = self.bound.policy.idle
        for dropped in () if idle is None else self.table.dropping(idle):
            if dropped:
                before = self.totals.get("dropped_streams", 0)
                self.totals = {**self.totals, "dropped_streams": before + dropped}
            yield dropped

    def finish(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows that can be output only at the end of the input."""
        if self._operator.needs_end:
            self.rows_read = 0
        for rows, by_stream, computed in self._operator.finish():
            check_finite(computed, rows, self.bound.loaded.names, by_stream)
            held = self._held(rows, by_stream, computed)
            if held is not None:
                self.table.hold(held)
            yield self._emit(rows.batch, by_stream.kept, computed, self.at_end)
            self.rows_read += len(rows)
        if (final := self.final()) is not None:
            yield final

    def final(self) -> pa.RecordBatch | None:
        """Return the rows that emit = "final" holds back; None for another emit."""
        if self.bound.emitter.emit != "final":
            return None
        return self.bound.emitter.final(self.table)

    def copy(self, bound: BoundPipeline | None = None) -> "Scorer":
        """Return an independent scorer with a copy of the state.

        `bound`: the same pipeline, with types for columns that had no values before.
        """
        bound = bound or self.bound
        table = from_arrow(
            self.table.to_arrow(), bound.layout, bound.initial(), "the state", same_pipeline=True
        )
        return self.succeeded_by(bound, table)

    def succeeded_by(self, bound: BoundPipeline, table: StateTable) -> "Scorer":
        """Return a scorer for another model and table that keeps the counts and the position."""
        scorer = Scorer(bound, table)
        scorer.resume_counts(self.counters())
        scorer.position, scorer.totals = self.position, self.totals
        return scorer

    def counters(self) -> dict[str, int]:
        """Return the counters that a commit stores."""
        return {"rows_read": self.rows_read, "rejected": self.rejected}

    def resume_counts(self, counters: Mapping[str, int]) -> None:
        """Continue counting from the `counters` of the run that is resumed."""
        self.rows_read = counters.get("rows_read", 0)
        self.rejected = counters.get("rejected", 0)

    def _sort(self, rows: Rows, policy: RowPolicy, room: bool) -> StreamBatch:
        if not rows.faults.reasons:
            slots = self.table.find(rows.keys, room=room)
        else:
            good = np.flatnonzero(rows.faults.codes == 0)
            slots = np.full(len(rows), -1)  # invalid rows keep -1
            keys = [key.take(pa.array(good)) for key in rows.keys]
            slots[good] = self.table.find(keys, room=room)
        by_stream = sort_by_stream(rows, slots, self.table, policy)
        if len(by_stream.rejected):
            rejected, row = self.rejected + len(by_stream.rejected), int(by_stream.rejected[-1])
            policy.limit_rejects(
                rejected,
                f"{rows.place(row)}: {count(rejected, 'rejected row')}",
                f"The last one: {why_rejected(rows, row, by_stream.repeated)}.",
                rows.number(row),
            )
        return by_stream

    def _compute(
        self, rows: Rows, by_stream: StreamBatch, at_once: bool = False
    ) -> ModelOutput | None:
        if self._operator.needs_end:
            used = np.flatnonzero(by_stream.slot_N[by_stream.kept] < self._streams_before)
            if len(used):
                kind, row = self.bound.loaded.kind.name, int(by_stream.kept[used[0]])
                raise DataError(
                    f"{rows.place(row)}: this stream was scored by an earlier "
                    f"run, but kind {kind} needs all of its rows at once. Start over with "
                    "--full-refresh."
                ).at(rows.number(row))
        computed = self._operator.process(by_stream, self.table, rows, at_once)
        if computed is not None:
            check_finite(computed, rows, self.bound.loaded.names, by_stream)
        return computed

    def _scored(self, rows: Rows, by_stream: StreamBatch, computed: ModelOutput | None) -> Scored:
        counts = by_stream.counts
        scored = Scored(self._emit(rows.batch, by_stream.kept, computed, counts), None, counts)
        slots, repeated = by_stream.slot_N, by_stream.repeated
        if len(by_stream.rejected) and self.bound.writes:
            scored.rejects = rejected_rows(rows, by_stream.rejected, repeated, self.bound.schema)
        if len(by_stream.late):
            first = by_stream.late.argmin()
            row, last = int(by_stream.late[first]), int(by_stream.late_after[first])
            scored.first["first_late"] = FirstRow.of(rows, row, why_late(rows, slots, row, last))
        if len(repeated):
            row = int(repeated.min())
            scored.first["first_repeated"] = FirstRow.of(rows, row, why_repeated(rows, slots, row))
        return scored

    def _emit(
        self,
        batch: pa.RecordBatch,
        kept: Ints,
        computed: ModelOutput | None,
        counts: dict[str, int],
    ) -> pa.RecordBatch:
        """Return output rows, and add to `counts` the rows whose quantiles cross."""
        emitter = self.bound.emitter
        if computed is not None and self.bound.writes and (crossed := emitter.crossed(computed)):
            counts["crossed"] = counts.get("crossed", 0) + crossed
        if computed is not None and emitter.emit != "final" and self.bound.writes:
            return emitter.rows(batch, kept, computed)
        return pa.RecordBatch.from_pylist([], schema=emitter.schema)

    def _held(
        self, rows: Rows, by_stream: StreamBatch, computed: ModelOutput | None
    ) -> Held | None:
        """Return the rows held until the end, including new ones; None unless emit is final."""
        emitter = self.bound.emitter
        if computed is None or emitter.emit != "final" or not self.bound.writes:
            return None
        numbers = rows.origin.numbers(self.rows_read)
        return emitter.held(rows.batch, by_stream, computed, self.table, numbers)
