"""Kind independent: a window of T rows, run from the initial state, every `stride` rows."""

from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints
from streamrnn.errors import StateError
from streamrnn.nn.models import SequenceRunner
from streamrnn.stream.operators.window_kind import InputPlan, ModelOutput, WindowKind, WindowSize
from streamrnn.stream.operators.workers import Workers
from streamrnn.stream.sources import Rows
from streamrnn.stream.states import MATRIX, StateTable, waiting_after
from streamrnn.stream.windows import StreamBatch

_STEPS = 128


class IndependentOperator(WindowKind):
    """Runs a model over windows of `steps` rows; incomplete windows wait in the state table.

    Window k of a stream holds its steps k * stride + 1 to k * stride + steps, counted from its last
    reset.
    """

    name = "independent"
    form: SequenceRunner
    waits = True

    def __init__(self, form: Any, plan: InputPlan, size: WindowSize, workers: Workers) -> None:
        # A call has an overhead of about 50 µs, so it takes more windows if these are shorter.
        more = size._replace(lanes=size.lanes * max(1, _STEPS // size.steps))
        super().__init__(form, plan, more, workers)

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
                f"stride = {self.stride}: its waiting rows do not match. Set the steps and stride "
                "that it was saved with, or start over with --full-refresh."
            )
        columns = dict(by_stream.identifiers)
        if by_stream.features_MF.shape[1]:
            columns[MATRIX] = by_stream.features_MF
        # Each segment has its waiting rows, then its new ones.
        ends = np.cumsum(held + by_stream.length)
        offset = ends - held - by_stream.length
        total, rows_M = int(ends[-1]) if len(ends) else 0, len(by_stream.row_M)
        new = (offset + held - by_stream.start).repeat(by_stream.length) + np.arange(rows_M)
        owner, within = _numbered(held)
        joined = {}
        for name, values in columns.items():
            joined[name] = np.empty((total, *values.shape[1:]), values.dtype)
            joined[name][new] = values
            joined[name][offset[owner] + within] = table.waiting(name, by_stream.slot, held)

        def keep() -> None:
            """Save all rows from the first row of the next window on, as waiting rows."""
            last = np.flatnonzero(by_stream.last)
            wait = waiting_after((base + by_stream.length)[last], self.steps, self.stride)
            segment, within = _numbered(wait)
            source = (ends[last] - wait)[segment] + within
            waits = {name: values[source] for name, values in joined.items()}
            table.wait(by_stream.slot[last], wait, waits)

        segment, steps = self._windows(base, by_stream.length)
        # Window ends are steps; the first step of a segment in `joined` is base - held + 1.
        begin = offset[segment] + steps - self.steps - (base - held)[segment]
        values = self._run(begin, joined)
        row = by_stream.start[segment] + steps - base[segment] - 1
        return ModelOutput(
            row_K=by_stream.row_M[row], step_K=steps, values_KU=values, commit_states=keep
        )

    def _windows(self, base: Ints, length: Ints) -> tuple[Ints, Ints]:
        """Return the segment and the last step of each completed window."""
        first = np.maximum(-(-(base + 1 - self.steps) // self.stride), 0)
        count = np.maximum((base + length - self.steps) // self.stride + 1 - first, 0)
        segment, within = _numbered(count)
        return segment, (first[segment] + within) * self.stride + self.steps

    def _run(self, begin: Ints, joined: dict[str, Array]) -> Floats:
        values = np.empty((len(begin), self.units), np.float32)
        identifiers = {name: a for name, a in joined.items() if name != MATRIX}
        matrix = joined.get(MATRIX, np.zeros((0, 0), np.float32))  # a model may read ids only
        inputs = self.plan.arrays(matrix, identifiers)

        def work(first: int) -> None:
            index = begin[first : first + self.lanes, None] + np.arange(self.steps)
            length = np.full(len(index), self.steps, np.int64)
            outputs = self.form.run([np.take(a, index, axis=0) for a in inputs], length)
            ends = [y[:, -1] if y.ndim == 3 else y for y in outputs]
            values[first : first + self.lanes] = np.concatenate(ends, axis=1)

        self.workers.map(work, range(0, len(begin), self.lanes))
        return values


def _numbered(counts: Ints) -> tuple[Ints, Ints]:
    """Return the segment of each item, and its index there; `counts`: sizes of the segments."""
    segment = np.repeat(np.arange(len(counts)), counts)
    return segment, np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts)
