"""Which steps train and which validate; the pieces that they form, and the windows of pieces."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.jobs.fitting.staging import Staged
from streamrnn.stream.scoring import BoundTarget
from streamrnn.stream.states import key_hashes
from streamrnn.stream.windows import Placement, Sequences, place


class TrainingWindow:
    """B lanes x T steps; lanes without steps are left out.

    `lanes` (B,): the numbers of the lanes. `inputs`: (B, T, F) float32 or (B, T) int64; zero after
    the last step of a lane. `label` and `now` (B, T, K), `weight` (B, T). `lengths` (B,): steps
    of each lane. If `counted` is passed, only steps from there on have a weight. With `at_end`,
    labels and weights are of the last step of each lane, without the axis T. `counts`: which steps
    count in the loss, in the shape of `weight`. `mask` (B, T): which steps exist; `ragged_lengths`:
    the lengths; both are None if all lanes have all steps.
    """

    def __init__(
        self,
        staged: Staged,
        placement: Placement,
        counted: Ints | None = None,
        *,
        at_end: bool = False,
    ) -> None:
        self._at_end = at_end
        self.lanes = np.flatnonzero(placement.length_B)
        self.begin = placement.begin_B[self.lanes]
        self.lengths = placement.length_B[self.lanes]
        self.inputs = [self._cut(array) for array in staged.inputs]
        mask: Bools = np.arange(self.inputs[0].shape[1]) < self.lengths[:, np.newaxis]
        self.mask = None if mask.all() else mask
        self.ragged_lengths = None if mask.all() else self.lengths
        labels = self._cut(staged.labels)
        if counted is not None:
            later = np.arange(labels.shape[1]) + self.begin[:, np.newaxis] >= counted[:, np.newaxis]
            labels[..., -1] *= later
        labels = self._judged(labels)
        targets = staged.targets
        self.weight = np.ascontiguousarray(labels[..., -1])
        self.counts: Bools = self.weight > 0
        self.label = np.where(self.counts[..., None], labels[..., :targets], np.float32(0))
        self.now = staged.persistence(labels[..., targets : 2 * targets])

    def cut(self, array: Array) -> Array:
        """Return values (M, K) of staged steps in the shape of `label`."""
        return self._judged(self._cut(array))

    def _judged(self, array: Array) -> Array:
        return array[np.arange(len(array)), self.lengths - 1] if self._at_end else array

    def _cut(self, array: Array) -> Array:
        shape = (len(self.lanes), int(self.lengths.max()))
        padded = np.zeros((*shape, *array.shape[1:]), array.dtype)
        for lane, (begin, length) in enumerate(
            zip(self.begin.tolist(), self.lengths.tolist(), strict=True)
        ):
            padded[lane, :length] = array[begin : begin + length]
        return padded


class Scale(NamedTuple):
    """The scale of labels of K columns: (label - offset) / deviation is the standardized label.

    Outputs (…, U) beyond these columns have an offset and a deviation of their own (`of_moments`).
    """

    offset: Floats
    deviation: Floats

    def standardized(self, label: Floats) -> Floats:
        """Return labels (…, K) standardized for training."""
        columns = label.shape[-1]
        return (label - self.offset[:columns]) / self.deviation[:columns]

    def restored(self, output: Floats) -> Floats:
        """Return outputs (…, U) of the model on the scale of the target, as `Rescaling` does."""
        return output * self.deviation + self.offset

    def of_moments(self) -> "Scale":
        """Return the scale of 2 K outputs: the means of K labels, then their deviations."""
        offset = np.concatenate([self.offset, np.zeros_like(self.offset)])
        return Scale(offset, np.concatenate([self.deviation, self.deviation]))


class SampleRule(NamedTuple):
    """How sequences are cut: into windows of `steps` steps, which begin every `stride` steps.

    With `steps` None, sequences stay whole. `at_end`: the model has one output per window, after
    its last step.
    """

    steps: int | None
    stride: int
    at_end: bool


@dataclass(frozen=True)
class StepRuns:
    """Runs of steps: `length` steps from `begin` on."""

    begin: Ints
    length: Ints

    @property
    def first(self) -> Ints:
        """The first step of each run that counts in the loss, or would with a weight."""
        return self.begin

    @property
    def steps(self) -> int:
        """The number of steps of all runs in use."""
        return int(self.length.sum())

    @property
    def judged(self) -> int:
        """The number of steps that count in the loss, or would with a weight."""
        return int((self.begin + self.length - self.first).sum())

    def counts(self, staged: Staged) -> int:
        """Return how many steps count in the loss."""
        ends = self.begin + self.length
        return sum(
            int(np.count_nonzero(staged.weight[first:end]))
            for first, end in zip(self.first.tolist(), ends.tolist(), strict=True)
        )


@dataclass(frozen=True)
class Samples(StepRuns):
    """N windows: `length` steps from `begin`; the steps from `counted` on count in the loss.

    `used`: whether a step that counts has a weight; windows without a weight are left out.
    """

    counted: Ints
    used: Bools
    at_end: bool

    @property
    def first(self) -> Ints:
        return self.counted

    @property
    def steps(self) -> int:
        return int(self.length[self.used].sum())

    def windows(self, order: Ints, lanes: int, steps: int) -> Iterator[Placement]:
        """Yield `lanes` windows at a time, in the given order; `steps` has no effect."""
        used = order[self.used[order]]
        for first in range(0, len(used), lanes):
            number = used[first : first + lanes]
            begins = np.ones(len(number), bool)
            yield Placement(number, self.begin[number], self.length[number], begins)

    def window(self, staged: Staged, placement: Placement) -> TrainingWindow:
        """Return a window of staged rows."""
        counted = self.counted[placement.sequence_B]
        return TrainingWindow(staged, placement, counted, at_end=self.at_end)


def divided_samples(staged: Staged, ends: Ints, rule: SampleRule) -> tuple[Samples, Samples]:
    """Return the windows to train and to validate on; each sequence trains up to its end in `ends`.

    Validation windows may begin among the training rows, but only steps after these count.
    """
    if rule.steps is None:
        start, stop = staged.start_Q, staged.start_Q + staged.length_Q
        training = np.stack([start, ends, start], axis=1)[ends > start]
        validation = np.stack([start, stop, ends], axis=1)[stop > ends]
    else:
        training, validation = _windows(staged, ends, rule.steps, rule.stride)
    samples, weight = [], staged.weight
    for begin, end, counted in (training.T, validation.T):
        counted = end - 1 if rule.at_end else counted
        steps = zip(counted.tolist(), end.tolist(), strict=True)
        used = np.array([bool(weight[a:b].any()) for a, b in steps], bool)
        samples.append(Samples(begin, end - begin, counted, used, rule.at_end))
    return samples[0], samples[1]


def _windows(staged: Staged, ends: Ints, steps: int, stride: int) -> tuple[Ints, Ints]:
    """Return the windows that a run would have, with strides that begin again after each reset.

    The results are the windows to train and to validate on. Each row has the beginning, the end,
    and the first step that counts, which is the last step of the window.
    """
    windows = [np.zeros((0, 4), np.int64)]
    sequences = zip(staged.start_Q, staged.length_Q, staged.before_Q, ends, strict=True)
    for start, length, before, end in sequences:
        begin = np.arange(start + -before % stride, start + length - steps + 1, stride)
        last = begin + steps - 1
        windows.append(np.stack([begin, last + 1, last, last < end], axis=1))
    rows = np.concatenate(windows)
    trains = rows[:, 3] == 1
    return rows[trains, :3], rows[~trains, :3]


FRESH, RESUMED, CARRIED = 0, 1, 2
"""The first state of a piece: the initial one, or its stream's before the fit, or at the cut."""


@dataclass(frozen=True)
class Pieces(StepRuns):
    """P runs of `length` steps of `stream`, from `begin` on; `origin`: FRESH, RESUMED or CARRIED.

    `last`: the state after the piece is the stream's state at the cut. `before`: number of steps of
    the stream from its initial state to the piece.
    """

    stream: Ints
    origin: Ints
    last: Bools
    before: Ints

    def window(self, staged: Staged, placement: Placement) -> TrainingWindow:
        """Return a window of staged rows."""
        return TrainingWindow(staged, placement)

    def windows(self, order: Ints, lanes: int, steps: int) -> Iterator[Placement]:
        """Place the pieces on lanes in `order`; `sequence_B` of a placement has their indices."""
        sequences = Sequences(order, self.begin[order], self.length[order], order)
        for placement in place(sequences, lanes, steps):
            yield placement._replace(sequence_B=order[placement.sequence_B])


@dataclass(frozen=True)
class Division:
    """What trains and what validates; `rows`: the rows that train, each once."""

    training: Pieces | Samples
    validation: Pieces | Samples
    rows: StepRuns


class DivisionRule(NamedTuple):
    """How steps are divided: see [train] validation, burn_in and pieces.

    `since` is in ticks; with `pieces` 0, there are as many pieces as fill the lanes. `samples`:
    None where the state of a stream is carried.
    """

    since: int | None
    share: float | None
    burn_in: int
    pieces: int
    lanes: int
    steps: int
    samples: SampleRule | None = None


def divide(staged: Staged, rule: DivisionRule, target: BoundTarget) -> Division:
    """Divide all steps.

    Steps of validation do not train the model: neither they, nor labels that lie among them, count
    in training. With validation by streams, all steps of the chosen streams are validation. The
    weights of steps that do not count become 0 in `staged`, in place.
    """
    ends = _training_ends(staged, rule)
    weight, begins = staged.weight, staged.start_Q
    if rule.since is not None:  # a label that may be in a validation row does not count
        for begin, end in zip(begins, ends, strict=True):
            if target.horizons:
                latest = rule.since - max(target.horizons)
                weight[begin:end][staged.time[begin:end] >= latest] = 0
            elif target.rows:
                weight[max(begin, end - target.rows) : end] = 0
    if rule.samples is not None:
        _forget_burn_in(weight, begins, staged.length_Q, staged.before_Q, rule.burn_in)
        trained = ends > begins
        rows = StepRuns(begins[trained], (ends - begins)[trained])
        return Division(*divided_samples(staged, ends, rule.samples), rows)
    validation, training = _validation(staged, ends), _training(staged, ends, rule)
    for pieces in (training, validation):
        _forget_burn_in(weight, pieces.begin, pieces.length, pieces.before, rule.burn_in)
    return Division(training, validation, training)


def _forget_burn_in(weight: Floats, begin: Ints, length: Ints, before: Ints, burn_in: int) -> None:
    """Set the weight of the first `burn_in` steps after an initial state to 0, in place."""
    left = np.minimum(np.maximum(burn_in - before, 0), length)
    for first, steps in zip(begin.tolist(), left.tolist(), strict=True):
        weight[first : first + steps] = 0


def _training_ends(staged: Staged, rule: DivisionRule) -> Ints:
    """Return the end of the training steps of each sequence."""
    ends = staged.start_Q + staged.length_Q
    if rule.share is not None:
        # The hash of the key decides, so that a stream is always on the same side.
        validates = key_hashes(staged.keys) < np.uint64(int(rule.share * 2.0**64))
        held = validates[staged.stream_Q]
        ends[held] = staged.start_Q[held]
    if rule.since is None:
        return ends
    done = np.zeros(len(staged.slot_S), bool)  # later sequences of a stream are validation, too
    for q, (begin, end, stream) in enumerate(
        zip(staged.start_Q.tolist(), ends.tolist(), staged.stream_Q.tolist(), strict=True)
    ):
        late = np.flatnonzero(staged.time[begin:end] >= rule.since)
        if done[stream]:
            ends[q] = begin
        elif len(late):
            ends[q], done[stream] = begin + late[0], True
    return ends


def _validation(staged: Staged, ends: Ints) -> Pieces:
    begin, length = ends, staged.start_Q + staged.length_Q - ends
    origin = np.where(staged.fresh_Q, FRESH, RESUMED)
    origin[ends > staged.start_Q] = CARRIED
    kept, before = length > 0, staged.before_Q + ends - staged.start_Q
    stream, never = staged.stream_Q[kept], np.zeros(int(kept.sum()), bool)
    return Pieces(begin[kept], length[kept], stream, origin[kept], never, before[kept])


def _training(staged: Staged, ends: Ints, rule: DivisionRule) -> Pieces:
    """Return the training steps of each sequence, cut as `pieces` says, or to fill the lanes."""
    length = ends - staged.start_Q
    kept = np.flatnonzero(length > 0)
    wanted = rule.pieces or -(-rule.lanes // max(1, len(kept)))
    pieces: list[tuple[int, int, int, int, bool, int]] = []
    for q in kept.tolist():
        least = 1 if rule.pieces else 2 * rule.steps  # steps of a piece
        parts = max(1, min(wanted, int(length[q]) // least))
        edges = staged.start_Q[q] + length[q] * np.arange(parts + 1) // parts
        first = FRESH if staged.fresh_Q[q] else RESUMED
        for i, (a, b) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
            carries = i == parts - 1 and b < staged.start_Q[q] + staged.length_Q[q]
            origin = first if i == 0 else FRESH
            before = int(staged.before_Q[q]) if i == 0 else 0
            pieces.append((a, b - a, int(staged.stream_Q[q]), origin, carries, before))
    columns = zip(*pieces, strict=True) if pieces else [()] * 6
    begin, size, stream, starts, last, steps = (np.array(list(of), np.int64) for of in columns)
    return Pieces(begin, size, stream, starts, last.astype(bool), steps)
