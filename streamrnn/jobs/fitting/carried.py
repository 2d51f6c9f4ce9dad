"""States of lanes from window to window: carried along each piece, or not at all."""

from collections.abc import Callable, Mapping

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.jobs.fitting.division import CARRIED, RESUMED, Division, Pieces, Samples
from streamrnn.jobs.fitting.learner import Judged, States
from streamrnn.jobs.fitting.staging import Staged
from streamrnn.jobs.fitting.window import TrainingWindow
from streamrnn.nn.models import SequenceRunner, StepRunner
from streamrnn.stream.states import StateTable
from streamrnn.stream.windows import Placement

WindowCall = Callable[[TrainingWindow, States], Judged]
"""`Learner.train` or `Learner.test`: advances the states of the window's lanes, in place."""


class LaneStates:
    """The states that lanes carry from window to window: here none, as every window starts anew.

    `values`: states of the lanes by name, (B, size); `at_cut`: states of the streams, (S, size).
    """

    def __init__(self) -> None:
        self.values: States = {}
        self.at_cut: States = {}

    def of_validation(self, pieces: Pieces | Samples, lanes: int) -> "LaneStates":
        """Return states for the lanes of validation, whose pieces continue pieces of training."""
        return self

    def begin(self, placement: Placement) -> None:
        """Set the states of lanes that begin a piece."""

    def run(self, call: WindowCall, window: TrainingWindow) -> Judged:
        """Run `call` on the lanes of a window."""
        return call(window, self.values)

    def keep_ends(self, placement: Placement) -> None:
        """Keep the states of the streams that are at the cut."""


class CarriedStates(LaneStates):
    """The states of the lanes that pieces run on.

    `table` has the states of the streams that resume, by `Staged.slot_S`.
    """

    def __init__(
        self,
        runner: StepRunner,
        staged: Staged,
        table: StateTable,
        pieces: Pieces,
        lanes: int,
        at_cut: Mapping[str, Array],
    ) -> None:
        super().__init__()
        self._runner, self._staged, self._table, self._pieces = runner, staged, table, pieces
        self.values = runner.initial_state(lanes)
        self.at_cut = dict(at_cut)

    def of_validation(self, pieces: Pieces | Samples, lanes: int) -> "CarriedStates":
        assert isinstance(pieces, Pieces)
        return CarriedStates(self._runner, self._staged, self._table, pieces, lanes, self.at_cut)

    def begin(self, placement: Placement) -> None:
        lanes = np.flatnonzero(placement.first_B & (placement.length_B > 0))
        if not len(lanes):
            return
        piece = placement.sequence_B[lanes]
        stream, origin = self._pieces.stream[piece], self._pieces.origin[piece]
        begun = self._runner.initial_state(len(lanes))
        if (resumes := origin == RESUMED).any():
            restored = self._table.layout.empty_states(int(resumes.sum()))
            slots = self._staged.slot_S[stream[resumes]]
            self._table.gather(slots, np.zeros(len(slots), bool), restored)
            for name, values in restored.items():
                begun[name][resumes] = values
        carried = origin == CARRIED
        for name, values in begun.items():
            if carried.any():
                values[carried] = self.at_cut[name][stream[carried]]
            self.values[name][lanes] = values

    def run(self, call: WindowCall, window: TrainingWindow) -> Judged:
        lanes, states = window.lanes, self.values
        if len(lanes) == len(next(iter(states.values()), lanes)):
            return call(window, states)
        of_lanes = {name: np.ascontiguousarray(values[lanes]) for name, values in states.items()}
        judged = call(window, of_lanes)
        for name, values in of_lanes.items():
            states[name][lanes] = values
        return judged

    def keep_ends(self, placement: Placement) -> None:
        pieces = self._pieces
        piece, length = placement.sequence_B, placement.length_B
        ends = pieces.begin[piece] + pieces.length[piece]
        done = (length > 0) & (placement.begin_B + length == ends) & pieces.last[piece]
        stream = pieces.stream[piece[done]]
        for name, values in self.values.items():
            if len(stream):
                self.at_cut[name][stream] = values[done]


def lane_states(
    runner: StepRunner | SequenceRunner,
    staged: Staged,
    division: Division,
    table: StateTable,
    lanes: int,
) -> LaneStates:
    """Return the states of the lanes that train, before their first window."""
    training, validation = division.training, division.validation
    if not (isinstance(runner, StepRunner) and isinstance(training, Pieces)):
        return LaneStates()
    carries = isinstance(validation, Pieces) and bool((validation.origin == CARRIED).any())
    at_cut = runner.initial_state(len(staged.slot_S) if carries else 0)
    return CarriedStates(runner, staged, table, training, lanes, at_cut)
