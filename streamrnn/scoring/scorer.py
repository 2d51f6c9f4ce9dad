"""Record batch in, record batch out, state carried in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamrnn.errors import DataError
from streamrnn.operators import CarryOperator, Computed, WholeOperator, check_finite
from streamrnn.scoring.bind import Bound
from streamrnn.sources import Rows
from streamrnn.states import StateTable
from streamrnn.windows import Arranged, Memory, arrange

Ints = npt.NDArray[np.int64]


@dataclass
class Scored:
    """What one record batch gave: `output` rows, `rejects` (None: no row), and counts."""

    output: pa.RecordBatch
    rejects: pa.RecordBatch | None
    counts: dict[str, int]


class Prepared(NamedTuple):
    """A record batch whose rows are in stream order, if they can be before the one before it.

    `streams`: how many the table has with those of this batch.
    """

    rows: Rows
    arranged: Arranged | None
    streams: int


class Scorer:
    """Scores record batches one after another; `table` holds the state between them.

    A batch that raises leaves the table as it was. Not for use by two threads at once.
    """

    def __init__(self, bound: Bound, table: StateTable) -> None:
        self.bound = bound
        self.table = table
        self.rows_read = 0
        self.rejected = 0
        self._operator = bound.operator()
        self._streams_before = len(table)

    @property
    def can_prepare_ahead(self) -> bool:
        """Whether a batch may be prepared while the one before it is computed."""
        # Waiting windows and held rows are read together with steps and number of streams.
        carry = isinstance(self._operator, CarryOperator)
        return carry and self.bound.emitter.emit != "final"

    def score(self, rows: Rows) -> Scored:
        """The output rows of a record batch (of kind whole: none, they come with `finish`).

        Raises DataError for rows that break the contract, unless the config says otherwise.
        """
        before = len(self.table)
        try:
            arranged = self._arrange(rows, room=True)
            computed = self._compute(rows, arranged)
            scored = self._scored(rows, arranged, computed)
        except BaseException:
            self.table.truncate(before)
            raise
        self._remember(arranged)
        self._settle(rows, computed)
        return scored

    def prepare(self, rows: Rows) -> Prepared:
        """The first half of `score`, for `compute`: it may run beside the `compute` before it.

        After an error the table is of no use any more.
        """
        if not self.can_prepare_ahead:
            return Prepared(rows, None, len(self.table))
        arranged = self._arrange(rows, room=False)
        self._remember(arranged)
        return Prepared(rows, arranged, len(self.table))

    def compute(self, prepared: Prepared) -> Scored:
        """The second half of `score`. After an error the table is of no use any more."""
        rows, arranged, streams = prepared
        if arranged is None:
            return self.score(rows)
        self.table.make_room(streams)
        computed = self._compute(rows, arranged, at_once=True)
        scored = self._scored(rows, arranged, computed)
        self._settle(rows, computed)
        return scored

    def finish(self) -> Iterator[pa.RecordBatch]:
        """The rows that could not come out before the end of the input."""
        if isinstance(self._operator, WholeOperator):
            self.rows_read = 0
            for rows, arranged, computed in self._operator.finish():
                check_finite(computed, rows, self.bound.parts.names)
                yield self._emit(rows.batch, arranged, computed)
                self.rows_read += len(rows)
        if self.bound.emitter.emit == "final":
            yield self.bound.emitter.final(self.table)

    def counters(self) -> dict[str, int]:
        """What a run that goes on from a commit counts on from."""
        return {"rows_read": self.rows_read, "rejected": self.rejected}

    def count_on(self, counters: Mapping[str, int]) -> None:
        """Count on from the `counters` of the run that is resumed."""
        self.rows_read = counters.get("rows_read", 0)
        self.rejected = counters.get("rejected", 0)

    def _arrange(self, rows: Rows, room: bool) -> Arranged:
        slots = self._slots(rows, room)
        arranged = arrange(rows, slots, self._memory(), self.bound.rules)
        self._limit_rejects(rows, arranged)
        return arranged

    def _remember(self, arranged: Arranged) -> None:
        arranged.remember(self._memory())
        self.table.touched[arranged.slot] = True
        self.rejected += arranged.counts["rejected"]

    def _compute(self, rows: Rows, arranged: Arranged, at_once: bool = False) -> Computed | None:
        operator = self._operator
        if isinstance(operator, WholeOperator):
            self._refuse_used(rows, arranged)
            operator.add(rows, arranged)
            return None
        if isinstance(operator, CarryOperator):
            computed = operator.process(arranged, self.table, at_once)
        else:
            computed = operator.process(arranged, self.table)
        check_finite(computed, rows, self.bound.parts.names)
        return computed

    def _scored(self, rows: Rows, arranged: Arranged, computed: Computed | None) -> Scored:
        rejects = self._rejects(rows, arranged)
        return Scored(self._emit(rows.batch, arranged, computed), rejects, arranged.counts)

    def _settle(self, rows: Rows, computed: Computed | None) -> None:
        if computed is not None:
            computed.settle()
        self.rows_read += len(rows)

    def _slots(self, rows: Rows, room: bool) -> Ints:
        """The slot of each row; -1 where the row breaks the contract."""
        bad = rows.faults.codes != 0
        if not bad.any():
            return self.table.find(rows.keys, room=room)
        good = np.flatnonzero(~bad)
        slots = np.full(len(rows), -1)
        taken = [key.take(pa.array(good)) for key in rows.keys]
        slots[good] = self.table.find(taken, room=room)
        return slots

    def _memory(self) -> Memory:
        table = self.table
        return Memory(table.steps, table.last_time, table.seen, table.previous)

    def _emit(
        self, batch: pa.RecordBatch, arranged: Arranged, computed: Computed | None
    ) -> pa.RecordBatch:
        emitter = self.bound.emitter
        if computed is not None and emitter.emit != "final":
            return emitter.rows(batch, arranged, computed)
        if computed is not None:
            emitter.hold(batch, arranged, computed, self.table, self.rows_read)
        return pa.RecordBatch.from_pylist([], schema=emitter.schema)

    def _refuse_used(self, rows: Rows, arranged: Arranged) -> None:
        used = np.flatnonzero(arranged.slot_N[arranged.kept] < self._streams_before)
        if len(used):
            raise DataError(
                f"{rows.place(int(arranged.kept[used[0]]))}: this stream was scored by an earlier "
                "run, and kind whole needs all of its rows at once. Start over with --full-refresh."
            )

    def _limit_rejects(self, rows: Rows, arranged: Arranged) -> None:
        count = self.rejected + arranged.counts["rejected"]
        limit = self.bound.parts.config.source.max_rejects
        if count > limit:
            row = int(arranged.rejected[-1])
            raise DataError(
                f"{rows.place(row)}: {count} rows are rejected, more than [source] max_rejects = "
                f"{limit}. The last one: {_reason(rows, row)}"
            )

    def _rejects(self, rows: Rows, arranged: Arranged) -> pa.RecordBatch | None:
        if not len(arranged.rejected):
            return None
        index = arranged.rejected
        taken = rows.batch.take(pa.array(index))
        reasons = [_reason(rows, row) for row in index.tolist()]
        columns = {
            "reason": pa.array(reasons, pa.string()),
            "file": pa.array([rows.file] * len(index), pa.string()),
            "row": pa.array(index + rows.first_row),
        }
        for name, column in zip(taken.schema.names, taken.columns, strict=True):
            while name in columns:
                name += "_"
            columns[name] = column
        return pa.RecordBatch.from_pydict(columns)


def _reason(rows: Rows, row: int) -> str:
    return rows.faults.reason(row) if rows.faults.codes[row] else "late: time goes backwards"
