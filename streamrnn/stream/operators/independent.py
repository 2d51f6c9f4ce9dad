"""Kind independent: windows of T rows, each from zero, every `stride` rows of a stream."""

from collections.abc import Iterator

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints
from streamrnn.errors import StateError
from streamrnn.nn.models import Model, SequenceRunner
from streamrnn.stream.operators.inputs import InputPlan
from streamrnn.stream.operators.window_kind import ModelOutput, WindowSize
from streamrnn.stream.operators.workers import Workers
from streamrnn.stream.sources import Rows
from streamrnn.stream.states import MATRIX, StateTable, waiting_after
from streamrnn.stream.windows import StreamBatch

_STEPS = 128


class IndependentOperator:
    """Runs a model over windows of `steps` rows; incomplete windows wait in the state table.

    Window k of a stream holds its steps k * stride + 1 to k * stride + steps, counted from its last
    reset.
    """

    name = "independent"
    carries_state, needs_end, prepares_ahead, waits = False, False, False, True

    @staticmethod
    def runner(model: Model) -> SequenceRunner:
        """Return the model as a `SequenceRunner`, for complete windows."""
        return SequenceRunner(model)

    def __init__(
        self, whole: SequenceRunner, plan: InputPlan, size: WindowSize, workers: Workers
    ) -> None:
        self.whole = whole
        self.plan = plan
        # A call has an overhead of some 50 µs: the shorter the windows, the more per call.
        self.lanes = size.lanes * max(1, _STEPS // size.steps)
        self.steps, self.stride = size.steps, size.stride
        self.workers = workers
        self.units = sum(units for _, units in whole.outputs)

    def process(
        self,
        by_stream: StreamBatch,
        table: StateTable,
        rows: Rows | None = None,
        at_once: bool = False,
    ) -> ModelOutput:
        """Return the output of each window that these rows complete, at its last row."""
        base = by_stream.base
        held = np.where(by_stream.reset, 0, table.waiting_counts(by_stream.slot))
        if (held != waiting_after(base, self.steps, self.stride)).any():
            raise StateError(
                f"the state was saved with windows other than [window] steps = {self.steps}, "
                f"stride = {self.stride}: its waiting rows do not match. Restore the steps and "
                "stride that it was saved with, or start over with --full-refresh."
            )
        columns = dict(by_stream.identifiers)
        if by_stream.features_MF.shape[1]:
            columns[MATRIX] = by_stream.features_MF
        offset, total = _offsets(held, by_stream.length)
        joined = {
            name: _joined(
                values, table.waiting(name, by_stream.slot, held), by_stream, held, offset, total
            )
            for name, values in columns.items()
        }
        segment, ends = self._windows(base, by_stream.length)
        # Window ends are steps; the first step of a segment in `joined` is base - held + 1.
        begin = offset[segment] + ends - self.steps - (base - held)[segment]
        values = self._run(begin, joined)
        row = by_stream.start[segment] + ends - base[segment] - 1
        return ModelOutput(
            row_K=by_stream.row_M[row],
            step_K=ends,
            values_KU=values,
            commit_states=lambda: self._keep(by_stream, table, base, held, offset, joined),
        )

    def finish(self) -> Iterator[tuple[Rows, StreamBatch, ModelOutput]]:
        """Return nothing: rows of incomplete windows wait for the next run."""
        return iter(())

    def _windows(self, base: Ints, length: Ints) -> tuple[Ints, Ints]:
        """Return the segment and the last step of each completed window."""
        first = np.maximum(-(-(base + 1 - self.steps) // self.stride), 0)
        count = np.maximum((base + length - self.steps) // self.stride + 1 - first, 0)
        segment = np.repeat(np.arange(len(base)), count)
        within = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
        return segment, (first[segment] + within) * self.stride + self.steps

    def _run(self, begin: Ints, joined: dict[str, Array]) -> Floats:
        values = np.empty((len(begin), self.units), np.float32)
        identifiers = {name: a for name, a in joined.items() if name != MATRIX}
        matrix = joined.get(MATRIX, np.zeros((0, 0), np.float32))  # a model may read ids only
        inputs = self.plan.arrays(matrix, identifiers)

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
        offset: Ints,
        joined: dict[str, Array],
    ) -> None:
        """Save as waiting rows all rows from the first row of the next window on."""
        last = np.flatnonzero(by_stream.last)
        wait = waiting_after((base + by_stream.length)[last], self.steps, self.stride)
        slot = by_stream.slot[last]
        end = offset[last] + held[last] + by_stream.length[last]
        segment = np.repeat(np.arange(len(last)), wait)
        within = np.arange(len(segment)) - np.repeat(np.cumsum(wait) - wait, wait)
        source = end[segment] - wait[segment] + within
        table.wait(slot, wait, {name: values[source] for name, values in joined.items()})


def _offsets(held: Ints, length: Ints) -> tuple[Ints, int]:
    """Return the offset of each segment (waiting rows, then new ones), and the total."""
    size = held + length
    ends = np.cumsum(size)
    return ends - size, int(ends[-1]) if len(ends) else 0


def _joined(
    values: Array,
    waiting: Array,
    by_stream: StreamBatch,
    held: Ints,
    offset: Ints,
    total: int,
) -> Array:
    out = np.empty((total, *values.shape[1:]), values.dtype)
    new = np.repeat(offset + held - by_stream.start, by_stream.length) + np.arange(len(values))
    out[new] = values
    segment = np.repeat(np.arange(len(held)), held)
    within = np.arange(len(segment)) - np.repeat(np.cumsum(held) - held, held)
    out[offset[segment] + within] = waiting
    return out
