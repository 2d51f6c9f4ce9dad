"""One compiled model: its optimizer, loss and metrics, applied to one batch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.models import Model
from streamrnn.nn.training.batches import (
    Batch,
    arrays_of_table,
    checked_reset,
    class_weights,
    is_table,
    memories,
)
from streamrnn.nn.training.callbacks import History
from streamrnn.nn.training.losses import loss_of
from streamrnn.nn.training.metrics import Metric
from streamrnn.nn.training.objective import Objective, truths_of, weights_of_samples
from streamrnn.nn.training.optimizers import optimizer_of
from streamrnn.nn.training.passes import plan_of, record, refuse_lower_precision
from streamrnn.nn.training.recording import Plan, Recording


class Trainer:
    """Trains a model. A copy of the model has no Trainer, and must be compiled again."""

    def __init__(
        self,
        model: Model,
        optimizer: Any,
        loss: Any,
        loss_weights: Any,
        metrics: Any,
        weighted_metrics: Any,
        *,
        seed: int,
    ) -> None:
        if loss is None:
            raise ArgumentError("compile: expected a loss, as in compile('adam', loss='mse')")
        self.model, self.seed = model, int(seed)
        self.optimizer = optimizer_of(optimizer)
        self.optimizer.bind(self)
        self._compiled_with = loss, loss_weights, metrics, weighted_metrics
        self._objective: Objective | None = None
        self._kept: dict[Any, Any] = {}
        self._plan: Plan | None = None
        self.history: History | None = None
        self.stop_training = False
        if model.built:
            _ = self.objective  # refuses an unknown name
            _ = self.plan  # refuses what cannot be trained
        elif not isinstance(loss, list | tuple | Mapping):
            loss_of(loss)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    @property
    def plan(self) -> Plan:
        """The plan of training, made on first use, with the weights that are trainable then.

        Raises UnsupportedError for a model that cannot be trained, such as one into which integer
        weights have been loaded since.
        """
        if self._plan is None or self._plan.graph is not self.model.graph:
            self._plan = plan_of(self.model)
        elif any(layer.integers for layer in self._plan.packable):
            refuse_lower_precision(self.model)
        return self._plan

    @property
    def objective(self) -> Objective:
        """Losses and metrics, made on first use, which needs a built model."""
        if self._objective is None:
            self._objective = Objective(self.model, *self._compiled_with)
        return self._objective

    @property
    def metrics(self) -> list[Metric]:
        """All metrics, the weighted ones last; none before the model is built."""
        return self.objective.metrics if self.model.built else []

    @property
    def loss(self) -> Any:
        """The loss; a list for several outputs."""
        return self.objective.loss if self.model.built else loss_of(self._compiled_with[0])

    def batch(self, x: Any, y: Any, sample_weight: Any, lengths: Any) -> Batch:
        """Return a batch of the rows that a caller passed. Raises ShapeError, ArgumentError."""
        if is_table(x):
            x, y, sample_weight = arrays_of_table(self.model, x, y, sample_weight)
        self.model.build_on(x)
        inputs = self.model.check_arrays(x)
        masks = self.model.make_mask([array.shape for array in inputs], None, lengths)
        names = self.objective.names
        truths = truths_of(self.model, y, names, self.objective.needed)
        weights = weights_of_samples(self.model, sample_weight, names)
        for name, arrays in {"y": truths, "sample_weight": weights}.items():
            for array in arrays:
                if array is not None and (not array.ndim or len(array) != len(inputs[0])):
                    raise ShapeError(
                        f"{self.model}: expected {len(inputs[0])} rows of {name}, as in x, "
                        f"received shape {array.shape}"
                    )
        return Batch(inputs, masks, truths, weights)

    def weighed(self, batch: Batch, class_weight: Any) -> Batch:
        """Return a batch whose samples are weighted by class. Raises ArgumentError."""
        if class_weight is None:
            return batch
        if len(batch.y) > 1:
            raise ArgumentError(
                f"{self.model}: class_weight needs a model with one output; pass sample_weight for "
                "each output"
            )
        if batch.weights[0] is not None:
            raise ArgumentError("class_weight and sample_weight cannot both be given")
        weights = class_weights(batch.y[0], class_weight, len(self.model.graph.outputs[0].shape))
        return batch._replace(weights=[weights])

    def train(self, batch: Batch) -> list[float]:
        """Update the weights once; return the losses before the update: see Objective.judge."""
        self.optimizer.bind(self)
        values, recording = self._run(batch, training=True)
        try:
            self.optimizer.change(recording.updates())
        finally:  # even if interrupted: nothing packed may differ from the weights
            for holder in self.plan.holders:
                holder.weights_changed()
        return values

    def test(self, batch: Batch) -> list[float]:
        """Return the losses of a batch: see Objective.judge."""
        context = CallContext()
        with context:
            self._reset_rows(batch, context)
            outputs, masks = self.model.graph.run(batch.inputs, batch.masks, context)
            values, _ = self.objective.judge(batch, outputs, masks)
        return self._penalized(values)

    def _reset_rows(self, batch: Batch, context: CallContext) -> None:
        """Reset rows to initial states; if the pass fails, the context restores all states."""
        if batch.reset is None:
            return
        for memory in memories(self.model):
            context.remember(memory)
            memory.reset_rows(batch.reset)

    def _run(self, batch: Batch, *, training: bool) -> tuple[list[float], Recording]:
        self.objective.require_gradients()
        recording = Recording(
            self.plan,
            training=training,
            seed=self.seed,
            step=self.optimizer.iterations,
            kept=self._kept,
        )
        context = CallContext(training=training)
        none = [False] * len(batch.inputs)
        with context:
            self._reset_rows(batch, context)
            recorded = record(self.model.graph, batch.inputs, batch.masks, context, recording, none)
            values, slopes = self.objective.judge(batch, recorded.outputs, recorded.masks)
            recorded.pullback(slopes, none)
        recording.add_slopes()
        return self._penalized(values), recording

    def _penalized(self, values: list[float]) -> list[float]:
        """Return losses with the penalty of regularizers added to the first, the total."""
        total, *others = values
        return [total + self.plan.penalty(), *others]

    def gradients(
        self,
        x: Any,
        y: Any,
        sample_weight: npt.ArrayLike | None,
        lengths: npt.ArrayLike | None,
        training: bool,
    ) -> dict[str, Floats]:
        """Return the gradient of each trainable weight, by name."""
        states = self.model.get_state()
        batch = self.batch(x, y, sample_weight, lengths)
        self.objective.reset()
        weights = self.model.get_weights()
        try:
            _, recording = self._run(batch, training=training)
        finally:
            self.model.set_state(states)
            if training:  # moving moments
                self.model.set_weights(weights)
        gradients = {
            name: np.zeros_like(array) for name, (_, _, array) in self.plan.weights.items()
        }
        for name, weight, gradient in recording.updates():
            gradients[name][...] = gradient.reshape(weight.shape)
        return gradients

    def on_batch(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Any,
        lengths: Any,
        reset: Any,
        return_dict: bool,
        *,
        train: bool,
    ) -> Any:
        """Train on a batch, or test it; return what Keras returns."""
        batch = self.weighed(self.batch(x, y, sample_weight, lengths), class_weight)
        if reset is not None:
            batch = batch._replace(reset=checked_reset(self.model, reset, batch.rows))
        self.objective.reset()
        values = self.train(batch) if train else self.test(batch)
        return self.report(self.objective.logs(values), return_dict)

    def report(self, logs: dict[str, float], return_dict: bool) -> Any:
        """Return the loss, or [loss, metrics…] in the order of Keras, or a dictionary."""
        if return_dict:
            return logs
        return self.objective.listed(logs) if len(logs) > 1 else logs["loss"]
