"""Kind independent: windows of T rows, each from zero, every `stride` rows of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from streamrnn.arrays import Array, Floats, Ints
from streamrnn.errors import StateError
from streamrnn.models import Whole
from streamrnn.operators.inputs import InputPlan
from streamrnn.operators.model_output import ModelOutput
from streamrnn.operators.workers import Workers
from streamrnn.sources import Rows
from streamrnn.states import MATRIX, StateTable, waiting_after
from streamrnn.windows import StreamBatch

_STEPS = 128


class IndependentOperator:
    """Runs a model over windows of `steps` rows; rows short of a window wait in the state table.

    Window k of a stream holds its steps k * stride + 1 to k * stride + steps, counted since the
    stream began fresh.
    """

    name = "independent"
    carries_state, needs_end, prepares_ahead, waits = False, False, False, True

    @staticmethod
    def runner(model: Any) -> Whole:
        """The model on whole windows."""
        return Whole(model)

    @classmethod
    def of(cls, runner: Whole, plan: InputPlan, size: Any, workers: Workers) -> IndependentOperator:
        """One for a run of the model, by [window] lanes, steps and stride."""
        return cls(runner, plan, size.lanes, size.steps, size.stride, workers)

    def __init__(
        self, whole: Whole, plan: InputPlan, lanes: int, steps: int, stride: int, workers: Workers
    ) -> None:
        self.whole = whole
        self.plan = plan
        # A call costs some 50 µs whatever it does: short windows travel in larger company.
        self.lanes = lanes * max(1, _STEPS // steps)
        self.steps = steps
        self.stride = stride
        self.workers = workers
        self.units = sum(units for _, units in whole.outputs)

    def process(
        self,
        by_stream: StreamBatch,
        table: StateTable,
        rows: Rows | None = None,
        at_once: bool = False,
    ) -> ModelOutput:
        """The value of each window that these rows complete, at the row that completes it."""
        base = by_stream.base
        held = np.where(by_stream.fresh, 0, table.waiting_counts(by_stream.slot))
        if (held != waiting_after(base, self.steps, self.stride)).any():
            raise StateError(
                f"the state is of other windows than [window] steps = {self.steps}, stride = "
                f"{self.stride}: other rows wait in it. Use the windows that made it, or start "
                "over with --full-refresh."
            )
        columns = {MATRIX: by_stream.features_MF, **by_stream.identifiers}
        at, total = _places(held, by_stream.length)
        joined = {
            name: _joined(
                values, table.waiting(name, by_stream.slot, held), by_stream, held, at, total
            )
            for name, values in columns.items()
        }
        segment, ends = self._windows(base, by_stream.length)
        # Window ends are steps; the first step that stands in `joined` is base - held + 1.
        begin = at[segment] + ends - self.steps - (base - held)[segment]
        values = self._run(begin, joined)
        row = by_stream.start[segment] + ends - base[segment] - 1
        return ModelOutput(
            row_K=by_stream.row_M[row],
            step_K=ends,
            values_KU=values,
            commit_states=lambda: self._keep(by_stream, table, base, held, at, joined),
        )

    def finish(self) -> Iterator[tuple[Rows, StreamBatch, ModelOutput]]:
        """Nothing: rows that are short of a window wait for the next run."""
        return iter(())

    def _windows(self, base: Ints, length: Ints) -> tuple[Ints, Ints]:
        """The segment and the last step of each window that is completed."""
        first = np.maximum(-(-(base + 1 - self.steps) // self.stride), 0)
        count = np.maximum((base + length - self.steps) // self.stride + 1 - first, 0)
        segment = np.repeat(np.arange(len(base)), count)
        within = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
        return segment, (first[segment] + within) * self.stride + self.steps

    def _run(self, begin: Ints, joined: dict[str, Array]) -> Floats:
        values = np.empty((len(begin), self.units), np.float32)
        identifiers = {name: a for name, a in joined.items() if name != MATRIX}
        inputs = self.plan.arrays(joined[MATRIX], identifiers)

        def work(first: int) -> None:
            index = begin[first : first + self.lanes, None] + np.arange(self.steps)
            length = np.full(len(index), self.steps, np.int64)
            outputs = self.whole.run([np.take(a, index, axis=0) for a in inputs], length)
            ends = [y[:, -1] if y.ndim == 3 else y for y in outputs]
            values[first : first + self.lanes] = np.concatenate(ends, axis=1)

        self.workers.map(work, range(0, len(begin), self.lanes))
        return values

    def _keep(
        self,
        by_stream: StreamBatch,
        table: StateTable,
        base: Ints,
        held: Ints,
        at: Ints,
        joined: dict[str, Array],
    ) -> None:
        """The rows from the next window's first one on wait for it."""
        last = np.flatnonzero(by_stream.last)
        wait = waiting_after((base + by_stream.length)[last], self.steps, self.stride)
        slot = by_stream.slot[last]
        end = at[last] + held[last] + by_stream.length[last]
        segment = np.repeat(np.arange(len(last)), wait)
        within = np.arange(len(segment)) - np.repeat(np.cumsum(wait) - wait, wait)
        source = end[segment] - wait[segment] + within
        table.wait(slot, wait, {name: values[source] for name, values in joined.items()})


def _places(held: Ints, length: Ints) -> tuple[Ints, int]:
    """Where each segment begins once the waiting rows stand before the new ones."""
    size = held + length
    ends = np.cumsum(size)
    return ends - size, int(ends[-1]) if len(ends) else 0


def _joined(
    values: Array,
    waiting: Array,
    by_stream: StreamBatch,
    held: Ints,
    at: Ints,
    total: int,
) -> Array:
    out = np.empty((total, *values.shape[1:]), values.dtype)
    new = np.repeat(at + held - by_stream.start, by_stream.length) + np.arange(len(values))
    out[new] = values
    segment = np.repeat(np.arange(len(held)), held)
    within = np.arange(len(segment)) - np.repeat(np.cumsum(held) - held, held)
    out[at[segment] + within] = waiting
    return out
