"""One compiled model: its optimizer, loss and metrics, and what they do to one batch."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streamrnn.arrays import Array, Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.layers.context import CallContext
from streamrnn.layers.weights import WeightSet
from streamrnn.models import Model
from streamrnn.models.graph import Graph
from streamrnn.training.callbacks import History
from streamrnn.training.losses import loss_of
from streamrnn.training.metrics import Metric, metric_of
from streamrnn.training.optimizer import WeightUpdate
from streamrnn.training.optimizers import optimizer_of
from streamrnn.training.passes import check_trainable, record
from streamrnn.training.recording import Recorded, Recording, Trained

Refused = Mapping[str, tuple[object, object]]
"""Arguments of Keras that are not supported: (received, the value that asks for nothing)."""


class Batch(NamedTuple):
    """Rows of a model's inputs, their masks, the truth and the weights of samples."""

    inputs: list[Array]
    masks: list[Array | None]
    y: Array
    weight: Array | None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.y)

    def take(self, rows: Any) -> "Batch":
        """Return some of the rows: a slice, or their numbers."""
        return Batch(
            [array[rows] for array in self.inputs],
            [None if mask is None else np.ascontiguousarray(mask[rows]) for mask in self.masks],
            self.y[rows],
            None if self.weight is None else self.weight[rows],
        )


def refuse(method: str, refused: Refused) -> None:
    """Raise ArgumentError for an argument of Keras that is not supported."""
    for argument, (received, nothing) in refused.items():
        if received is not nothing and received != nothing:
            raise ArgumentError(f"{method}: the argument {argument}={received!r} is not supported")


class Plan(NamedTuple):
    """What training a graph changes, checked: weights by name, as (holder, name there, array)."""

    graph: Graph
    trained: Trained
    weights: dict[str, tuple[WeightSet, str, Floats]]
    holders: list[WeightSet]

    @classmethod
    def of(cls, model: Model) -> "Plan":
        """Return the plan of a model. Raises UnsupportedError, naming the layer."""
        trained = Trained.of(model)
        check_trainable(model, trained)
        rows = zip(model.named_weights().items(), model.holders(), strict=True)
        weights = {
            name: (holder, key, array) for (name, array), (holder, key, trains) in rows if trains
        }
        holders = {id(holder): holder for holder, _, _ in weights.values()}
        return cls(model.graph, trained, weights, list(holders.values()))


class Trainer:
    """Trains a model. Not part of a copy of the model: that has to be compiled again."""

    def __init__(
        self,
        model: Model,
        optimizer: Any,
        loss: Any,
        metrics: Any,
        weighted_metrics: Any,
        *,
        seed: int,
        refused: Refused,
    ) -> None:
        refuse("compile", refused)
        if loss is None:
            raise ArgumentError("compile: expected a loss, as in compile('adam', loss='mse')")
        self.model, self.seed = model, int(seed)
        self.optimizer, self.loss = optimizer_of(optimizer), loss_of(loss)
        self._given = _listed(metrics), _listed(weighted_metrics)
        self._metrics: list[Metric] | None = None
        self._kept: dict[Any, Any] = {}
        self._plan: Plan | None = None
        self.history: History | None = None
        self.stop_training = False
        if model.built:
            _ = self.plan  # refuses what cannot be trained
            _ = self.metrics  # refuses an unknown name

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    @property
    def plan(self) -> Plan:
        """What is trained: made once, for the weights that are trainable then, as in Keras."""
        if self._plan is None or self._plan.graph is not self.model.graph:
            self._plan = Plan.of(self.model)
        return self._plan

    @property
    def metrics(self) -> list[Metric]:
        """All metrics, the weighted ones last."""
        if self._metrics is None:
            if not self.model.built:
                return []
            units = int(self.model.graph.outputs[0].shape[-1] or 0)
            given = [*self._given[0], *self._given[1]]
            self._metrics = [metric_of(metric, self.loss, units) for metric in given]
        return self._metrics

    def batch(self, x: Any, y: Any, sample_weight: Any, lengths: Any) -> Batch:
        """Return the rows that a caller passed, checked. Raises ShapeError."""
        if y is None:
            raise ArgumentError(f"{self.model}: expected y, the truth")
        inputs = self.model.check_arrays(x)
        masks: list[Array | None] = [None] * len(inputs)
        if lengths is not None:
            masks = self.model.make_mask([array.shape for array in inputs], None, lengths)
        truth = np.asarray(y)
        weight = None if sample_weight is None else np.asarray(sample_weight, np.float32)
        sizes = {"y": truth, "sample_weight": weight}
        for name, array in sizes.items():
            if array is not None and (not array.ndim or len(array) != len(inputs[0])):
                raise ShapeError(
                    f"{self.model}: expected {len(inputs[0])} rows of {name}, as of x, received "
                    f"shape {array.shape}"
                )
        return Batch(inputs, masks, truth, weight)

    def train(self, batch: Batch) -> float:
        """Update the weights once; return the loss before."""
        value, recording = self._run(batch, training=True)
        try:
            self.optimizer.apply(
                [
                    WeightUpdate(name, array, recording.gradients[id(holder), key])
                    for name, (holder, key, array) in self.plan.weights.items()
                    if (id(holder), key) in recording.gradients
                ]
            )
        finally:  # also if it is interrupted: nothing packed may differ from the weights
            for holder in self.plan.holders:
                holder.weights_changed()
        return value

    def test(self, batch: Batch) -> float:
        """Return the loss of a batch."""
        context = CallContext()
        try:
            outputs, masks = self.model.graph.run(batch.inputs, batch.masks, context)
            return self._judge(batch, outputs[0], masks[0])[0]
        except BaseException:
            context.undo()
            raise

    def _run(self, batch: Batch, *, training: bool) -> tuple[float, Recording]:
        """Run a batch forward and back."""
        recording = Recording(
            self.plan.trained,
            training=training,
            seed=self.seed,
            step=self.optimizer.iterations,
            kept=self._kept,
        )
        context = CallContext(training=training)
        none = [False] * len(batch.inputs)
        try:
            made: Recorded = record(
                self.model.graph, batch.inputs, batch.masks, context, recording, none
            )
            value, slope = self._judge(batch, made.outputs[0], made.masks[0])
            made.pullback([slope], none)
        except BaseException:
            context.undo()
            raise
        return value, recording

    def _judge(self, batch: Batch, outputs: Floats, mask: Array | None) -> tuple[float, Floats]:
        """Return the loss and its derivative; add the batch to the metrics."""
        if mask is not None and mask.ndim >= outputs.ndim:
            mask = None
        outputs = np.ascontiguousarray(outputs)
        truth = self.loss.truth(batch.y, outputs)
        value, slope = self.loss.with_slope(truth, outputs, batch.weight, mask)
        plain = len(self._given[0])
        for number, metric in enumerate(self.metrics):
            weight = None if number < plain else batch.weight
            metric.update_state(batch.y, outputs, weight, mask=mask)
        return value, slope

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
        self.reset_metrics()
        try:
            _, recording = self._run(batch, training=training)
        finally:
            self.model.set_state(states)
        made = {}
        for name, (holder, key, weight) in self.plan.weights.items():
            found = recording.gradients.get((id(holder), key))
            made[name] = np.zeros_like(weight)
            if found is not None:
                made[name][...] = found.reshape(weight.shape)
        return made

    def on_batch(
        self,
        x: Any,
        y: Any,
        sample_weight: npt.ArrayLike | None,
        lengths: npt.ArrayLike | None,
        return_dict: bool,
        refused: Refused,
        *,
        train: bool,
    ) -> Any:
        """Train on a batch, or test it; return what Keras returns."""
        refuse("train_on_batch", refused)
        batch = self.batch(x, y, sample_weight, lengths)
        self.reset_metrics()
        value = self.train(batch) if train else self.test(batch)
        return self.report(self.logs(value), return_dict)

    def reset_metrics(self) -> None:
        """Forget the samples of all metrics."""
        for metric in self.metrics:
            metric.reset_state()

    def logs(self, loss: float) -> dict[str, float]:
        """Return the loss and all metrics by name."""
        return {"loss": loss} | {metric.name: metric.result() for metric in self.metrics}

    def report(self, logs: dict[str, float], return_dict: bool) -> Any:
        """Return the loss, or [loss, metrics…], or a dictionary."""
        if return_dict:
            return logs
        return list(logs.values()) if len(logs) > 1 else logs["loss"]


def _listed(given: Any) -> Sequence[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]
