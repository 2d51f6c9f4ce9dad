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

Moved = tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[np.float32]]]


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

    def process(self, arranged: Arranged, table: StateTable) -> Computed:
        """Outputs of all M steps, from the states in `table`."""
        inputs = self.plan.of(arranged)
        values_MU = np.empty((len(arranged.row_M), self.units), np.float32)
        lanes = pack(arranged.start, arranged.length, self.lanes, self.steps, self.workers.threads)
        moved: list[Moved] = []

        def work(piece: Lanes) -> None:
            moved.append(self._run(piece, arranged, inputs, table, values_MU))

        self.workers.map(work, lanes)

        def settle() -> None:
            for slot, states in moved:
                table.scatter(slot, states)
            _reset_empty(arranged, table)

        return Computed(
            row_K=arranged.row_M,
            step_K=arranged.step_M,
            slot_K=np.repeat(arranged.slot, arranged.length),
            values_KU=values_MU,
            settle=settle,
        )

    def _run(
        self,
        lanes: Lanes,
        arranged: Arranged,
        inputs: Inputs,
        table: StateTable,
        values_MU: npt.NDArray[np.float32],
    ) -> Moved:
        """Outputs of some lanes into their rows; the slots and states to carry on."""
        slot_B = arranged.slot[lanes.segment]
        states = table.gather(slot_B, arranged.fresh[lanes.segment])
        for window in lanes.windows(inputs, self.steps):
            live = len(window.length_B)
            part = {name: array[:live] for name, array in states.items()}
            outputs = self.stream.run(window.inputs, window.length_B, part)
            values = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
            window.scatter(values, values_MU)
        last = arranged.last[lanes.segment]
        if last.all():
            return slot_B, states
        return slot_B[last], {name: array[last] for name, array in states.items()}


def _reset_empty(arranged: Arranged, table: StateTable) -> None:
    """A stream that began fresh and had no step since is in the initial state."""
    empty = arranged.last & arranged.fresh & (arranged.length == 0)
    if empty.any():
        slots = arranged.slot[empty]
        table.scatter(slots, table.initial(len(slots)))
