"""A model, its loss and its optimizer: what a window does to them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import ConfigError, DivergedError
from streamrnn.jobs.fitting.labels import ClassWeights
from streamrnn.jobs.fitting.window import Scale, TrainingWindow
from streamrnn.nn.kernels import losses as sums
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.models import Model, SequenceRunner, StepRunner
from streamrnn.nn.training import Loss, MeanMetric, Optimizer
from streamrnn.nn.training.optimizer import WeightUpdate
from streamrnn.nn.training.passes import record
from streamrnn.nn.training.recording import Recording
from streamrnn.nn.training.trainer import Plan

States = dict[str, Floats]
"""Name -> (B, size) float32, as a `StepRunner` has them."""


class Judged(NamedTuple):
    """The mean loss over the `counted` steps of a window.

    `norm` is that of the gradient before clips, 0 if there was no update.
    """

    loss: float
    counted: int
    norm: float = 0.0


class Learner:
    """Trains a model window by window, from the states that the windows before it left.

    The gradient stops at the begin of a window. `runner` scores the model; by default it carries
    states, as training then does. `metrics` sum over windows until they are reset.
    `output` (B, T, U): the last outputs, on the scale of the target. `class_weights`: of the loss
    in training, not of metrics.
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
        self._plan = Plan.of(model)
        if not self._plan.weights:
            raise ConfigError(f"fit: no weight of {model} is trainable")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.metrics, self.scale, self.seed = metrics, scale, seed
        self.runner = StepRunner(model) if runner is None else runner
        self.class_weights: ClassWeights | None = None
        self.output: Floats | None = None
        self._kept: dict[Any, Any] = {}

    def train(self, window: TrainingWindow, states: States) -> Judged:
        """Update the weights once, unless no step counts; advance `states`, in place.

        Raises DivergedError, with all weights as before.
        """
        if not window.counts.any():
            return self.test(window, states)
        recording = Recording(
            self._plan.trained,
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
        with np.errstate(all="ignore"):  # a loss that is not finite is reported below
            made = record(self.model.graph, window.inputs, masks, context, recording, none)
            weight = window.weight
            if self.class_weights is not None:
                weight = weight * self.class_weights.of(window.label)
            value, slope = self._judge(window, made.outputs[0], weight)
            made.pullback([slope], none)
            value += self._plan.penalty.value()
            self._plan.penalty.add_slopes(recording)
            norm = self._update(recording)
        if not math.isfinite(norm):
            step = _worst_step(made.outputs[0], window)
            raise DivergedError(f"the norm of the gradient is {norm}", step)
        return Judged(value, int(window.counts.sum()), norm)

    def test(self, window: TrainingWindow, states: States) -> Judged:
        """Return the loss as a run would have it; advance `states`, in place."""
        inputs, lengths, runner = window.inputs, window.ragged_lengths, self.runner
        if isinstance(runner, StepRunner):
            (output,) = runner.run(inputs, lengths, states)
        else:
            (output,) = runner.run(inputs, lengths)
        with np.errstate(all="ignore"):
            value, _ = self._judge(window, output, window.weight)
            value += self._plan.penalty.value()
        return Judged(value, int(window.counts.sum()))

    def _judge(
        self, window: TrainingWindow, output: Floats, weight: Floats
    ) -> tuple[float, Floats]:
        """Return the loss, with weights of steps, and its derivative by the outputs."""
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

    def _update(self, recording: Recording) -> float:
        """Apply the gradients, unless their norm is not finite; return it."""
        updates = [
            WeightUpdate(name, array, recording.gradients[id(holder), key])
            for name, (holder, key, array) in self._plan.weights.items()
            if (id(holder), key) in recording.gradients
        ]
        square = 0.0
        for update in updates:
            square += sums.dot(update.gradient, update.gradient)
        if not math.isfinite(square):
            return math.sqrt(square)
        self.optimizer.change(updates)
        for holder in self._plan.holders:
            holder.weights_changed()
        return math.sqrt(square)


def _worst_step(output: Floats, window: TrainingWindow) -> tuple[int, int]:
    """Return (lane, step) of the first output that is not finite, else of the largest one."""
    size = np.where(window.counts[..., np.newaxis], np.abs(output), 0).max(axis=-1)
    size[~np.isfinite(size)] = np.inf
    lane, *step = np.unravel_index(int(np.argmax(size)), size.shape)
    return int(lane), int(step[0] if step else window.lengths[lane] - 1)
