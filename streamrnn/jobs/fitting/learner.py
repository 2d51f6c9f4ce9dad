"""A model with its loss and its optimizer, trained window by window; the states of the lanes."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.errors import ConfigError, DataError, DivergedError
from streamrnn.jobs.fitting.division import (
    CARRIED,
    RESUMED,
    Division,
    Pieces,
    Samples,
    Scale,
    TrainingWindow,
)
from streamrnn.jobs.fitting.staging import Staged
from streamrnn.nn.kernels import losses as sums
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.models import Model, SequenceRunner, StepRunner
from streamrnn.nn.models.steps import flat_steps, in_steps
from streamrnn.nn.training import Loss, MeanMetric, Optimizer
from streamrnn.nn.training.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    GaussianNLL,
    Hinge,
    KLDivergence,
    MeanSquaredLogarithmicError,
    Poisson,
    Quantile,
    SparseCategoricalCrossentropy,
)
from streamrnn.nn.training.passes import plan_of, record
from streamrnn.nn.training.recording import Recording
from streamrnn.stream.states import StateTable
from streamrnn.stream.windows import Placement

_BLOCK = 1 << 16
_OF_CLASSES = (CategoricalCrossentropy, CategoricalHinge)
_OF_PROBABILITIES = (BinaryCrossentropy, KLDivergence, *_OF_CLASSES)


def check_units(loss: Loss, units: int, targets: int) -> None:
    """Raise ConfigError unless a model with `units` outputs fits the loss and the targets."""
    if isinstance(loss, Quantile):
        expected, wanted, per = len(loss.quantiles), 1, "one for each quantile"
    elif isinstance(loss, SparseCategoricalCrossentropy):
        expected, wanted, per = units, 1, "one for each class"
    elif isinstance(loss, GaussianNLL):
        expected, wanted = 2 * targets, targets
        per = "a mean and a deviation for each column and horizon of [target]"
    else:
        expected, wanted, per = targets, targets, "one for each column and horizon of [target]"
    if targets != wanted:
        raise ConfigError(
            f"[target] column: the loss {loss.name} takes one column and horizon, received "
            f"{targets} labels. Name one column and at most one horizon"
        )
    if units != expected:
        raise ConfigError(
            f"fit: the model has {units} outputs, but the loss {loss.name} needs {expected}: {per}."
            " Change the units of the last layer, or the labels"
        )
    if isinstance(loss, _OF_CLASSES) and units < 2:
        raise ConfigError(
            f"fit: the loss {loss.name} needs an output for each class, not only one. Give the "
            "last layer a unit for each class"
        )


def refuse_wrong_label(
    staged: Staged,
    learner: "Learner",
    units: int,
    columns: Sequence[str],
    place: Callable[[int, int], str],
) -> None:
    """Raise DataError for a label or weight that the loss cannot use: the first one by stream.

    `columns` (K,) are the columns of the labels; `place` names a row, by its `Staged.origin`.
    """
    targets, weights = staged.targets, learner.class_weights
    # Class weights are for classes: probabilities above 0 and below 1 are then refused.
    only_classes = weights is not None and weights.binary
    for begin in range(0, staged.steps, _BLOCK):
        block = np.asarray(staged.labels[begin : begin + _BLOCK])
        infinite = np.flatnonzero(np.isinf(block[:, -1]))
        if len(infinite):
            row = place(*staged.origin(begin + int(infinite[0])))
            raise DataError(
                f"{row}: the weight from [target] weight is more than float32 holds. Divide all "
                "weights by the same number"
            )
        wrong, expected = _wrong(learner.loss, block[:, :targets], units, only_classes)
        places = np.argwhere(wrong & (block[:, -1:] > 0))
        if len(places):
            step, target = begin + int(places[0][0]), int(places[0][1])
            row, label = place(*staged.origin(step)), staged.labels[step, target]
            raise DataError(
                f"{row}: the label from [target] column {columns[target]!r} is {label:g}; the loss "
                f"{learner.loss.name} expects {expected}"
            )


def _wrong(loss: Loss, label: Floats, units: int, only_classes: bool) -> tuple[Bools, str]:
    if isinstance(loss, SparseCategoricalCrossentropy):
        whole = (label == np.floor(label)) & (label >= 0) & (label < units)
        return ~whole, f"the number of a class, 0 to {units - 1}"
    if only_classes:
        return (label != 0) & (label != 1), "0 or 1, because [train] class_weight is set"
    if isinstance(loss, _OF_PROBABILITIES):
        return ~((label >= 0) & (label <= 1)), "a probability, 0 to 1"
    if isinstance(loss, Hinge):
        return ~np.isin(label, (-1, 0, 1)), "-1 or 1, or 0 or 1"
    if isinstance(loss, Poisson | MeanSquaredLogarithmicError):
        return ~((label >= 0) & (label < np.inf)), "0 or more, within the range of float32"
    return ~np.isfinite(label), "a number within the range of float32"


class ClassWeights:
    """A weight for each class, as float32; 1 where none is set."""

    def __init__(self, weights: Mapping[str, float], loss: Loss, units: int, targets: int) -> None:
        """Raise ConfigError unless the loss and the outputs have the classes of `weights`."""
        self.binary = isinstance(loss, BinaryCrossentropy)
        if self.binary and targets != 1:
            raise ConfigError(
                f"[train] class_weight: the loss {loss.name} takes weights for one column and "
                f"horizon of [target], received {targets} labels. Name one, or remove class_weight"
            )
        if not isinstance(loss, BinaryCrossentropy | CategoricalCrossentropy):
            raise ConfigError(
                f"[train] class_weight: the labels of {loss.name} are not classes; remove "
                "class_weight, or name a column of weights in [target] weight"
            )
        classes = 2 if self.binary else units
        self._weights = np.ones(classes, np.float32)
        for name, weight in weights.items():
            if int(name) >= classes:
                raise ConfigError(
                    f'[train] class_weight: expected classes "0" to "{classes - 1}", received '
                    f'"{name}"'
                )
            self._weights[int(name)] = weight

    def of(self, label: Floats) -> Floats:
        """Return the weight of the class of each label (…, K).

        The class is the label itself, or, with K > 1, the position of its largest value.
        """
        ids = label[..., 0] if label.shape[-1] == 1 else label.argmax(axis=-1)
        weights: Floats = self._weights[ids.astype(np.int64)]
        return weights


States = dict[str, Floats]
"""Name -> (B, size) float32, as a `StepRunner` has them."""


class Judged(NamedTuple):
    """The mean loss over the `counted` steps of a window.

    `norm` is the norm of the gradient before clipping, 0 if there was no update.
    """

    loss: float
    counted: int
    norm: float = 0.0


class Learner:
    """Trains a model window by window, from the states that earlier windows left.

    The gradient stops at the beginning of a window. `runner` scores with the model; if it
    carries states, as the default runner does, training does, too. `metrics` sum over windows until
    they are reset. `output` (B, T, U), or (B, U) for one output per window: the last outputs, on
    the scale of the target. `class_weights` apply to the loss in training, not to metrics.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        optimizer: Optimizer,
        metrics: Sequence[MeanMetric],
        scale: Scale | None,
        seed: int,
        runner: StepRunner | SequenceRunner | None = None,
    ) -> None:
        self._plan = plan_of(model, one_output=True)
        if not self._plan.weights:
            raise ConfigError(
                f"fit: no weight of {model} is trainable. Add a layer with weights, or do not "
                "freeze all layers"
            )
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.metrics, self.scale, self.seed = metrics, scale, seed
        self.runner = StepRunner(model) if runner is None else runner
        self.class_weights: ClassWeights | None = None
        self.output: Floats | None = None
        self._kept: dict[Any, Any] = {}

    def train(self, window: TrainingWindow, states: States) -> Judged:
        """Update the weights once, unless no step counts; advance `states`, in place.

        Raises DivergedError, and then leaves the trainable weights as they were.
        """
        if not window.counts.any():
            return self.test(window, states)
        recording = Recording(
            self._plan,
            training=True,
            seed=self.seed,
            step=self.optimizer.iterations,
            kept=self._kept,
        )
        lengths = window.ragged_lengths
        kind = self.runner.call_kind
        context = CallContext(training=True, kind=kind, lengths=lengths, states=states)
        none = [False] * len(window.inputs)
        masks = [window.mask] * len(window.inputs)
        inputs = window.inputs
        if isinstance(self.runner, SequenceRunner):
            inputs = self.runner.read(inputs)
        with np.errstate(all="ignore"):  # a loss that is not finite is reported below
            passed = record(self.model.graph, inputs, masks, context, recording, none)
            weight = window.weight
            if self.class_weights is not None:
                weight = weight * self.class_weights.of(window.label)
            (output,), (own,) = passed.outputs, self.runner.own
            if own:
                output = flat_steps(output)
            value, slope = self._judge(window, output, weight)
            passed.pullback([in_steps(slope, own) if own else slope], none)
            value += self._plan.penalty()
            recording.add_slopes()
            updates = recording.updates()
            square = 0.0
            for update in updates:
                square += sums.dot(update.gradient, update.gradient)
            if not math.isfinite(square):
                step = _worst_step(output, window)
                raise DivergedError(f"the norm of the gradient is {math.sqrt(square)}", step)
            self.optimizer.change(updates)
            for holder in self._plan.holders:
                holder.weights_changed()
        return Judged(value, int(window.counts.sum()), math.sqrt(square))

    def test(self, window: TrainingWindow, states: States) -> Judged:
        """Return the loss of the outputs that a run would give; advance `states`, in place.

        Raises DivergedError.
        """
        inputs, lengths, runner = window.inputs, window.ragged_lengths, self.runner
        if isinstance(runner, StepRunner):
            (output,) = runner.run(inputs, lengths, states)
        else:
            (output,) = runner.run(inputs, lengths)
        with np.errstate(all="ignore"):
            value, _ = self._judge(window, output, window.weight)
            value += self._plan.penalty()
        return Judged(value, int(window.counts.sum()))

    def _judge(
        self, window: TrainingWindow, output: Floats, weight: Floats
    ) -> tuple[float, Floats]:
        """Return the loss, with weights of steps, and its derivative with respect to outputs."""
        output = np.ascontiguousarray(output)
        label = window.label
        if self.scale is not None:
            label = self.scale.standardized(label)
        truth = self.loss.truth(label, output)
        value, slope = self.loss.with_slope(truth, output, weight, window.counts)
        if not math.isfinite(value):
            raise DivergedError(f"the loss is {value}", _worst_step(output, window))
        self.output = real = output if self.scale is None else self.scale.restored(output)
        for metric in self.metrics:
            metric.update_state(window.label, real, window.weight, mask=window.counts)
        return value, slope


def _worst_step(output: Floats, window: TrainingWindow) -> tuple[int, int]:
    """Return (lane, step) of the first output that is not finite, else of the largest one."""
    size = np.where(window.counts[..., np.newaxis], np.abs(output), 0).max(axis=-1)
    size[~np.isfinite(size)] = np.inf
    lane, *step = np.unravel_index(int(np.argmax(size)), size.shape)
    return int(lane), int(step[0] if step else window.lengths[lane] - 1)


WindowCall = Callable[[TrainingWindow, States], Judged]
"""`Learner.train` or `Learner.test`: advances the states of the window's lanes, in place."""


class LaneStates:
    """The states that B lanes carry from window to window; none if a window carries no state.

    `table` has the states of the streams that resume, by `Staged.slot_S`. `values`: states of the
    lanes by name, (B, size); `at_cut`: states of the streams, (S, size).
    """

    def __init__(
        self,
        runner: StepRunner | SequenceRunner,
        staged: Staged,
        table: StateTable,
        division: Division,
        lanes: int,
    ) -> None:
        self._runner, self._staged, self._table = runner, staged, table
        self._pieces, validation = division.training, division.validation
        self.values: States = {}
        self.at_cut: States = {}
        if isinstance(runner, StepRunner):
            self.values = runner.initial_state(lanes)
            carries = isinstance(validation, Pieces) and (validation.origin == CARRIED).any()
            self.at_cut = runner.initial_state(len(staged.slot_S) if carries else 0)

    def of_validation(self, pieces: Pieces | Samples, lanes: int) -> "LaneStates":
        """Return states for the lanes of validation; its pieces may continue training pieces."""
        states = copy(self)
        states._pieces = pieces
        if isinstance(self._runner, StepRunner):
            states.values = self._runner.initial_state(lanes)
        return states

    def begin(self, placement: Placement) -> None:
        """Set the states of lanes that begin a piece."""
        runner, pieces = self._runner, self._pieces
        lanes = np.flatnonzero(placement.first_B & (placement.length_B > 0))
        if not (len(lanes) and isinstance(runner, StepRunner) and isinstance(pieces, Pieces)):
            return
        piece = placement.sequence_B[lanes]
        stream, origin = pieces.stream[piece], pieces.origin[piece]
        begun = runner.initial_state(len(lanes))
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
        """Run `call` on the lanes of a window."""
        lanes, states = window.lanes, self.values
        if len(lanes) == len(next(iter(states.values()), lanes)):
            return call(window, states)
        of_lanes = {name: np.ascontiguousarray(values[lanes]) for name, values in states.items()}
        judged = call(window, of_lanes)
        for name, values in of_lanes.items():
            states[name][lanes] = values
        return judged

    def keep_ends(self, placement: Placement) -> None:
        """Keep the states of the streams that have reached the cut."""
        pieces = self._pieces
        if not isinstance(pieces, Pieces):
            return
        piece, length = placement.sequence_B, placement.length_B
        ends = pieces.begin[piece] + pieces.length[piece]
        done = (length > 0) & (placement.begin_B + length == ends) & pieces.last[piece]
        stream = pieces.stream[piece[done]]
        for name, values in self.values.items():
            if len(stream):
                self.at_cut[name][stream] = values[done]
