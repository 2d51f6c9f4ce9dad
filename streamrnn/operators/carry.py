"""Kind carry: every row is a step, and the state goes on from the one before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamrnn.models import Stream
from streamrnn.operators.computed import Computed
from streamrnn.operators.inputs import InputPlan
from streamrnn.operators.workers import Workers
from streamrnn.states import StateTable
from streamrnn.windows import Arranged, Inputs, Lanes, pack

Floats = npt.NDArray[np.float32]
# Segments that travel together, and their states: name -> (B, size).
Piece = tuple[Lanes, dict[str, Floats]]


class CarryOperator:
    """Runs a causal model over the steps of record batches, state carried in a state table."""

    def __init__(
        self, stream: Stream, plan: InputPlan, lanes: int, steps: int, workers: Workers
    ) -> None:
        self.stream = stream
        self.plan = plan
        self.lanes = lanes
        self.steps = steps
        self.workers = workers
        self.units = sum(units for _, units in stream.outputs)
        self._buffers = self._buffers_for(0)

    def process(self, arranged: Arranged, table: StateTable) -> Computed:
        """Outputs of all M steps, from the states in `table`. Settle one batch before the next."""
        inputs = self.plan.of(arranged)
        values_MU = np.empty((len(arranged.row_M), self.units), np.float32)
        pieces = self._pieces(arranged)

        def work(piece: Piece) -> None:
            self._run(piece, arranged, inputs, table, values_MU)

        def settle() -> None:
            self.workers.map(lambda piece: _carry_on(piece, arranged, table), pieces)
            _reset_empty(arranged, table)

        self.workers.map(work, pieces)
        return Computed(
            row_K=arranged.row_M,
            step_K=arranged.step_M,
            values_KU=values_MU,
            settle=settle,
        )

    def _pieces(self, arranged: Arranged) -> list[Piece]:
        packed = pack(arranged.start, arranged.length, self.lanes, self.steps, self.workers.threads)
        ends = np.cumsum([len(lanes.segment) for lanes in packed], dtype=np.int64).tolist()
        if packed and ends[-1] > len(next(iter(self._buffers.values()), ())):
            self._buffers = self._buffers_for(ends[-1])
        return [
            (lanes, {n: a[end - len(lanes.segment) : end] for n, a in self._buffers.items()})
            for lanes, end in zip(packed, ends, strict=True)
        ]

    def _buffers_for(self, rows: int) -> dict[str, Floats]:
        # Kept from batch to batch: with 70,000 segments new pages cost more than the copies.
        spec = self.stream.state_spec.items()
        return {name: np.empty((rows, size), np.float32) for name, size in spec}

    def _run(
        self,
        piece: Piece,
        arranged: Arranged,
        inputs: Inputs,
        table: StateTable,
        values_MU: Floats,
    ) -> None:
        """Outputs of some lanes into their rows; their states move on in the piece."""
        lanes, states = piece
        table.gather(arranged.slot[lanes.segment], arranged.fresh[lanes.segment], states)
        for window in lanes.windows(inputs, self.steps):
            live = len(window.length_B)
            part = {name: array[:live] for name, array in states.items()}
            outputs = self.stream.run(window.inputs, window.length_B, part)
            values = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
            window.scatter(values, values_MU)


def _carry_on(piece: Piece, arranged: Arranged, table: StateTable) -> None:
    """Write back the state that each stream's last segment leaves."""
    lanes, states = piece
    slots, last = arranged.slot[lanes.segment], arranged.last[lanes.segment]
    if not last.all():
        slots, states = slots[last], {name: array[last] for name, array in states.items()}
    table.scatter(slots, states)


def _reset_empty(arranged: Arranged, table: StateTable) -> None:
    """A stream that began fresh and had no step since is in the initial state."""
    empty = arranged.last & arranged.fresh & (arranged.length == 0)
    if empty.any():
        slots = arranged.slot[empty]
        table.scatter(slots, table.initial(len(slots)))
