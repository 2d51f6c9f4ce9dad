"""Windows that start from the initial state: of fits that carry no state."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Bools, Ints
from streamrnn.jobs.fitting.staging import Staged
from streamrnn.jobs.fitting.window import TrainingWindow
from streamrnn.stream.windows import Placement


class SampleRule(NamedTuple):
    """How sequences are cut: windows of `steps` every `stride` steps; None: each one is whole.

    `at_end`: the model has one output a window, after its last step.
    """

    steps: int | None
    stride: int
    at_end: bool


class Samples(NamedTuple):
    """N windows: `length` steps from `begin`; the steps from `counted` on count in the loss.

    `used`: whether any of those has a weight; other windows are left out.
    """

    begin: Ints
    length: Ints
    counted: Ints
    used: Bools
    at_end: bool

    @property
    def steps(self) -> int:
        """The number of steps of all windows in use."""
        return int(self.length[self.used].sum())

    @property
    def judged(self) -> int:
        """The number of steps that count in the loss, or would with a weight."""
        return int((self.begin + self.length - self.counted).sum())

    def counts(self, staged: Staged) -> int:
        """Return how many steps count in the loss."""
        ends = self.begin + self.length
        return sum(
            int(np.count_nonzero(staged.weight[first:end]))
            for first, end in zip(self.counted.tolist(), ends.tolist(), strict=True)
        )

    def windows(self, order: Ints, lanes: int, steps: int) -> Iterator[Placement]:
        """Yield `lanes` windows at a time, in an order; `steps` has no effect."""
        places = np.flatnonzero(self.used[order])
        for first in range(0, len(places), lanes):
            place = places[first : first + lanes]
            number = order[place]
            yield Placement(
                place, self.begin[number], self.length[number], np.ones(len(place), bool)
            )

    def window(self, staged: Staged, placement: Placement) -> TrainingWindow:
        """Return a window of staged rows; `sequence_B` of the placement numbers samples."""
        counted = self.counted[placement.sequence_B]
        return TrainingWindow(staged, placement, counted, at_end=self.at_end)


def divided_samples(staged: Staged, ends: Ints, rule: SampleRule) -> tuple[Samples, Samples]:
    """Return the windows to train and to validate; training ends at `ends` of each sequence.

    Windows of validation may begin among the rows of training; what counts in them does not.
    """
    cut = _whole if rule.steps is None else _windows
    found = [_samples(staged, rows, rule.at_end) for rows in cut(staged, ends, rule)]
    return found[0], found[1]


def _samples(staged: Staged, rows: Ints, at_end: bool) -> Samples:
    """Return samples of rows (N, 3): begin, end, and the first step that counts."""
    begin, end, counted = rows.T
    if at_end:
        counted = end - 1
    weight = staged.weight
    used = [bool(weight[a:b].any()) for a, b in zip(counted.tolist(), end.tolist(), strict=True)]
    return Samples(begin, end - begin, counted, np.array(used, bool), at_end)


def _whole(staged: Staged, ends: Ints, rule: SampleRule) -> tuple[Ints, Ints]:
    start, stop = staged.start_Q, staged.start_Q + staged.length_Q
    training = np.stack([start, ends, start], axis=1)[ends > start]
    return training, np.stack([start, stop, ends], axis=1)[stop > ends]


def _windows(staged: Staged, ends: Ints, rule: SampleRule) -> tuple[Ints, Ints]:
    """Return the windows that a run would have, from the last reset on; their last step counts."""
    assert rule.steps is not None
    made = [np.zeros((0, 4), np.int64)]
    sequences = zip(staged.start_Q, staged.length_Q, staged.before_Q, ends, strict=True)
    for start, length, before, end in sequences:
        begin = np.arange(
            start + -before % rule.stride, start + length - rule.steps + 1, rule.stride
        )
        last = begin + rule.steps - 1
        made.append(np.stack([begin, last + 1, last, last < end], axis=1))
    rows = np.concatenate(made)
    trains = rows[:, 3] == 1
    return rows[trains, :3], rows[~trains, :3]
