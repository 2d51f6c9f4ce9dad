"""The model, loss and optimizer of a fit, checked before any row is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from streamrnn.errors import ConfigError, ShapeError, StreamRNNError, UnsupportedError
from streamrnn.jobs.fitting.division import DivisionRule, SampleRule, Scale, StepRuns
from streamrnn.jobs.fitting.learner import (
    ClassWeights,
    Learner,
    WrongLabel,
    check_units,
    find_wrong_label,
)
from streamrnn.jobs.fitting.request import optimizer_from
from streamrnn.jobs.fitting.scaling import (
    check_finite_scale,
    scale_of,
    split_off_scale,
    target_scale,
    with_calibration,
    with_scale,
)
from streamrnn.jobs.fitting.staging import Staged
from streamrnn.nn.layers import Gaussian
from streamrnn.nn.models import Model, SequenceRunner
from streamrnn.nn.training import Loss, MeanMetric
from streamrnn.nn.training.losses import GaussianNLL, Quantile, loss_of
from streamrnn.nn.training.metrics import metric_of
from streamrnn.stream.config import Config
from streamrnn.stream.scoring import LoadedPipeline
from streamrnn.stream.sources import parse_time


@dataclass
class FitModel:
    """A model to train: `learner` trains all of it but a Rescaling at its end.

    `model_scale` is the scale of that Rescaling, None if there is none or if it is trained like
    other layers. `scales`: whether labels are standardized.
    """

    model: Model
    learner: Learner
    model_scale: Scale | None
    scales: bool
    units: int

    @classmethod
    def of(cls, loaded: LoadedPipeline, config: Config) -> Self:
        """Build what [train] asks for. Raises ConfigError, UnsupportedError."""
        train, model = config.train, loaded.model
        core, layer = split_off_scale(model)
        scales = train.scale_target
        if scales is None:  # outputs of a model without a scale may be in the target's unit
            scales = train.may_scale and (train.init is None or layer is not None)
        model_scale = None if layer is None or not scales else scale_of(layer)
        if model_scale is None:
            core = model
        else:
            check_finite_scale(model_scale)
        loss = Quantile(train.quantiles) if train.quantiles else loss_of(train.loss)
        targets = len(config.target.labels)
        units = int(core.graph.outputs[0].shape[-1] or 0)
        metrics = [_metric(name, loss, units, targets) for name in train.metrics]
        runner = loaded.kind.runner(core)
        learner = Learner(
            core, loss, optimizer_from(config), metrics, model_scale, train.seed, runner
        )
        _check_head(core, model_scale, loss)
        check_units(loss, units, targets)
        if train.class_weight is not None:
            learner.class_weights = ClassWeights(train.class_weight, loss, units, targets)
        return cls(model, learner, model_scale, scales, units)

    def scale(self, staged: Staged, training: StepRuns) -> None:
        """Set the scale of the labels, from the training rows unless the model has one."""
        if self.scales and self.model_scale is None:
            scale = target_scale(staged, training)
            of_moments = isinstance(self.learner.loss, GaussianNLL)
            self.learner.scale = scale.of_moments() if of_moments else scale

    def wrong_label(self, staged: Staged) -> WrongLabel | None:
        """Return the first label that the loss cannot use."""
        weights = self.learner.class_weights
        binary = weights is not None and weights.binary
        return find_wrong_label(staged, self.learner.loss, self.units, only_classes=binary)

    def finished(self, shifts: Sequence[float]) -> Model:
        """Return the model with its final weights, and its outputs in the unit of the target.

        `shifts`: what is added to each output; empty if they stay as they are.
        """
        scale, model = self.learner.scale, self.model
        if scale is not None and self.model_scale is None:
            model = with_scale(model, scale)
        return with_calibration(model, shifts) if shifts else model


def _check_head(core: Model, scale: Scale | None, loss: Loss) -> None:
    """Raise ConfigError unless the model's end, Gaussian or not, and its `scale` fit the loss."""
    ends = isinstance(core.graph.outputs[0].node.layer, Gaussian)
    if ends != isinstance(loss, GaussianNLL):
        said = "ends in Gaussian" if ends else "does not end in Gaussian"
        raise ConfigError(
            f"fit: the model {said}, and the loss is {loss.name}. The loss of Gaussian is "
            "gaussian_nll: set both [train] loss and, at the end of [model] layers, { type = "
            '"Gaussian" }, or neither'
        )
    if isinstance(loss, Quantile) and scale is not None and any(len(set(of)) > 1 for of in scale):
        raise ConfigError(
            "fit: the Rescaling at the end has a scale or an offset for each quantile, but all "
            "share one label. Give the layer one scale and one offset, or set [train] scale_target "
            "= false"
        )
    if ends and scale is not None:
        scale = Scale(*np.broadcast_arrays(*scale))
        half = len(scale.offset) // 2
        wanted = Scale(scale.offset[:half], scale.deviation[:half]).of_moments()
        if not all(map(np.array_equal, scale, wanted)):
            raise ConfigError(
                "fit: the Rescaling behind Gaussian shifts deviations, or scales them apart from "
                "their means. Remove it: the fit adds one in the unit of the target"
            )


def _metric(name: str, loss: Loss, units: int, targets: int) -> MeanMetric:
    """Make a metric that fits outputs and labels. Raises ConfigError."""
    try:
        metric = metric_of(name, loss, units)
        assert isinstance(metric, MeanMetric)  # as are all metrics that have a name
        metric.update_state(
            np.zeros((1, 1, targets), np.float32), np.zeros((1, 1, units), np.float32)
        )
    except ShapeError:
        raise ConfigError(
            f"[train] metrics: {name!r} does not fit {units} outputs and the loss {loss.name}"
        ) from None
    except StreamRNNError as error:
        raise ConfigError(f"[train] metrics: {error}") from None
    if not isinstance(metric.result(), float):
        raise ConfigError(f"[train] metrics: {name!r} has a value for each output, not one")
    metric.reset_state()
    return metric


def division_rule(loaded: LoadedPipeline, config: Config, schema: pa.Schema) -> DivisionRule:
    """Return how steps are divided. Raises ConfigError for an invalid time."""
    train, window = config.train, config.window
    validation = train.validation
    since, zone = None, config.source.time_zone
    if train.until is not None:
        parse_time(train.until, schema.field(str(config.source.time)).type, "[train] until", zone)
    if validation is not None and validation.since is not None:
        kind = schema.field(str(config.source.time)).type
        since = parse_time(validation.since, kind, "[train] validation.since", zone)
    return DivisionRule(
        since,
        None if validation is None else validation.streams,
        config.output.warmup if train.burn_in is None else train.burn_in,
        0 if isinstance(train.pieces, str) else train.pieces,
        window.lanes,
        window.steps,
        _sample_rule(loaded, config),
    )


def _sample_rule(loaded: LoadedPipeline, config: Config) -> SampleRule | None:
    """Return how windows are cut; None where they carry a state. Raises ConfigError."""
    kind, window = loaded.kind, config.window
    if kind.carries_state:
        return None
    if config.train.pieces != "auto":
        raise ConfigError(
            f'[train] pieces: windows of [window] kind "{kind.name}" carry no state, so streams '
            "are not cut into pieces; remove pieces"
        )
    at_end = len(loaded.model.graph.outputs[0].shape) == 2
    steps = window.steps if kind.waits else None
    if steps is None and not SequenceRunner(loaded.model).ragged:
        raise UnsupportedError(
            f"fit: a layer of {loaded.model} changes the number of steps, and streams have "
            "different lengths. Cut them into windows of one length, by another [window] kind"
        )
    if steps is None and at_end and config.target.ahead:
        raise ConfigError(
            "fit: the model has one output for each stream, at its last row, and no later row "
            "gives its label. Remove [target] horizon and rows, or give the last recurrent layer "
            "return_sequences = true"
        )
    return SampleRule(steps, window.stride, at_end)
