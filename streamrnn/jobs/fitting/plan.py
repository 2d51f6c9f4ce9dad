"""The model, loss and optimizer of a fit, checked before any row is read; scales from its rows.

Means and deviations are computed from the training rows, for Normalization layers and for the
target. Sums are in float64, in the order of the rows, so that a fit has the same bits on any
machine.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from typing import Any, Self

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Doubles, Floats
from streamrnn.base.display import count as counted
from streamrnn.errors import (
    ArgumentError,
    ConfigError,
    DataError,
    ShapeError,
    StreamRNNError,
    UnsupportedError,
)
from streamrnn.jobs.fitting.division import DivisionRule, SampleRule, Scale, StepRuns
from streamrnn.jobs.fitting.learner import ClassWeights, Learner, check_units
from streamrnn.jobs.fitting.staging import Staged
from streamrnn.jobs.preflight import CALIBRATION
from streamrnn.nn.layers import Gaussian
from streamrnn.nn.layers.registry import counted_from_the_start
from streamrnn.nn.layers.scaling import Normalization, Rescaling
from streamrnn.nn.layers.structure import leaves
from streamrnn.nn.models import Model, SequenceRunner, Sequential
from streamrnn.nn.models.steps import flat_steps, in_steps
from streamrnn.nn.training import Loss, MeanMetric, Optimizer
from streamrnn.nn.training.losses import GaussianNLL, Quantile, loss_of
from streamrnn.nn.training.metrics import metric_of
from streamrnn.nn.training.optimizers import optimizer_of
from streamrnn.stream.config import Config
from streamrnn.stream.scoring import LoadedPipeline
from streamrnn.stream.sources import parse_time


@dataclass
class FitModel:
    """A model to train: `learner` trains all of it but a Rescaling at its end.

    `model_scale` is the scale of that Rescaling; None if there is no such layer, or if the layer is
    trained like others. `scales`: whether labels are standardized. `own`: the number of steps that
    the output has of its own, if any: then `units` and scales count each of them.
    """

    model: Model
    learner: Learner
    model_scale: Scale | None
    scales: bool
    units: int
    own: int | None

    @classmethod
    def of(cls, loaded: LoadedPipeline, config: Config) -> Self:
        """Build what [train] asks for. Raises ConfigError, UnsupportedError."""
        train, model = config.train, loaded.model
        core, layer = split_off_scale(model)
        scales = train.scale_target
        if scales is None:  # outputs of a model without a scale may be in the target's unit
            scales = train.may_scale and (train.init is None or layer is not None)
        model_scale = None
        own, (_, units) = loaded.runner.own[0], loaded.runner.outputs[0]
        if layer is None or not scales:
            core = model
        else:
            model_scale = Scale(np.atleast_1d(layer.offset), np.atleast_1d(layer.scale))
            if own:
                shape = own, units // own
                model_scale = Scale(*(flat_steps(np.broadcast_to(v, shape)) for v in model_scale))
            deviation = model_scale.deviation
            if not (np.isfinite(deviation).all() and (deviation != 0).all()):
                raise ConfigError(
                    f"fit: the last layer of the model scales by {deviation.tolist()}, expected "
                    "finite numbers other than 0: otherwise labels cannot be standardized. Set "
                    "[train] scale_target = false"
                )
        loss = Quantile(train.quantiles) if train.quantiles else loss_of(train.loss)
        targets = len(config.target.labels)
        runner = loaded.kind.runner(core, config.window.steps, loaded.last)
        learner = Learner(core, loss, _optimizer(config), [], model_scale, train.seed, runner)
        _check_head(core, model_scale, loss)
        check_units(loss, units, targets)
        learner.metrics = [_metric(name, loss, units, targets) for name in train.metrics]
        if train.class_weight is not None:
            learner.class_weights = ClassWeights(train.class_weight, loss, units, targets)
        return cls(model, learner, model_scale, scales, units, own)

    def scale(self, staged: Staged, training: StepRuns) -> None:
        """Compute the scale of the labels from the training rows, if one is needed.

        Nothing is computed if the model has a scale, or labels are not standardized.
        """
        if self.scales and self.model_scale is None:

            def labels() -> Iterator[Array]:
                for block in _blocks(staged.labels, training):
                    yield block[block[:, -1] > 0, : staged.targets]

            _, mean, variance = _moments(labels, staged.targets)
            deviation = np.sqrt(variance)
            deviation[deviation == 0] = 1
            scale = Scale(mean.astype(np.float32), deviation.astype(np.float32))
            of_moments = isinstance(self.learner.loss, GaussianNLL)
            self.learner.scale = scale.of_moments() if of_moments else scale

    def finished(self, shifts: Sequence[float]) -> Model:
        """Return the model with its final weights, and its outputs in the unit of the target.

        `shifts`: what is added to each output; empty if they stay as they are.
        """
        scale, model = self.learner.scale, self.model
        if scale is not None and self.model_scale is None:
            if self.own:
                scale = Scale(*(in_steps(values, self.own) for values in scale))
            model = with_scale(model, scale)
        if shifts:
            offset = np.array(shifts, np.float32)
            model = with_scale(model, Scale(offset, np.ones_like(offset)), CALIBRATION)
        return model


def _optimizer(config: Config) -> Optimizer:
    train = config.train
    options = {key: value for key, value in train.optimizer.items() if key != "name"}
    if train.clip_norm is not None:
        options["global_clipnorm"] = train.clip_norm
    if train.clip_value is not None:
        options["clipvalue"] = train.clip_value
    try:
        kind = type(optimizer_of(train.optimizer["name"]))
        parameters = inspect.signature(kind).parameters
        wrong = [
            f"{key} = {value!r}"
            for key, value in options.items()
            if isinstance(value, int | float)
            and (not math.isfinite(value) or (key in parameters and value < 0))
        ]
        if wrong:
            raise ConfigError(
                f"[train] optimizer: expected finite numbers, 0 or more, received {wrong[0]}"
            )
        return kind(**options)
    except (ArgumentError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"[train] optimizer: {error}") from None


def _check_head(core: Model, scale: Scale | None, loss: Loss) -> None:
    """Raise ConfigError unless the model's end, Gaussian or not, and its `scale` suit the loss."""
    ends = isinstance(core.graph.outputs[0].node.layer, Gaussian)
    if ends != isinstance(loss, GaussianNLL):
        said = "ends in Gaussian" if ends else "does not end in Gaussian"
        raise ConfigError(
            f"fit: the model {said}, but the loss is {loss.name}. The loss of Gaussian is "
            'gaussian_nll: either set [train] loss = "gaussian_nll" and end [model] layers with '
            '{ type = "Gaussian" }, or do neither'
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
                "fit: the Rescaling after Gaussian shifts deviations, or scales them by other "
                "factors than the means. Remove it: the fit adds one in the unit of the target"
            )


def _metric(name: str, loss: Loss, units: int, targets: int) -> MeanMetric:
    try:
        metric = metric_of(name, loss, units)
        assert isinstance(metric, MeanMetric)  # as are all metrics that have a name
        metric.update_state(
            np.zeros((1, 1, targets), np.float32), np.zeros((1, 1, units), np.float32)
        )
    except ShapeError:
        raise ConfigError(
            f"[train] metrics: remove or replace {name!r}: it does not fit "
            f"{counted(units, 'output')} and the loss {loss.name}"
        ) from None
    except StreamRNNError as error:
        raise ConfigError(f"[train] metrics: {error}") from None
    if not isinstance(metric.result(), float):
        raise ConfigError(
            f"[train] metrics: {name!r} has several values, one for each output. Name a metric "
            "with one value"
        )
    metric.reset_state()
    return metric


def division_rule(loaded: LoadedPipeline, config: Config, schema: pa.Schema) -> DivisionRule:
    """Return how steps are divided. Raises ConfigError, UnsupportedError."""
    train, window, source = config.train, config.window, config.source
    validation = train.validation
    since = None if validation is None else validation.since
    ticks: dict[str, int] = {}
    for key, limit in (("until", train.until), ("validation.since", since)):
        if limit is not None:
            kind = schema.field(str(source.time)).type
            ticks[key] = parse_time(limit, kind, f"[train] {key}", source.time_zone)
    return DivisionRule(
        ticks.get("validation.since"),
        None if validation is None else validation.streams,
        config.output.warmup if train.burn_in is None else train.burn_in,
        0 if isinstance(train.pieces, str) else train.pieces,
        window.lanes,
        window.steps,
        _sample_rule(loaded, config),
    )


def _sample_rule(loaded: LoadedPipeline, config: Config) -> SampleRule | None:
    """Return how windows are cut; None where they carry a state.

    Raises ConfigError, UnsupportedError.
    """
    kind, window = loaded.kind, config.window
    if kind.carries_state:
        return None
    if config.train.pieces != "auto":
        raise ConfigError(
            f'[train] pieces: windows of [window] kind "{kind.name}" carry no state, so streams '
            "are not cut into pieces; remove pieces"
        )
    runner, steps = loaded.runner, window.steps if kind.waits else None
    assert isinstance(runner, SequenceRunner)
    at_end = not runner.sequences[0]
    if steps is None and not runner.ragged:
        raise UnsupportedError(
            f"fit: a layer of {loaded.model} changes the number of steps, or an input reads the "
            "last rows alone, and streams have different lengths. Cut them into windows of one "
            "length, by another [window] kind"
        )
    if steps is None and at_end and config.target.ahead:
        raise ConfigError(
            "fit: the model has one output for each stream, at its last row, and no later row "
            "gives its label. Remove [target] horizon and rows, give the last recurrent layer "
            "return_sequences = true, or set a [window] kind of windows of one length"
        )
    if steps is not None and (other := runner.resized(steps)):
        raise ConfigError(
            f"fit: output {other[0]!r} has {other[1]} steps for a window of {steps} rows, so that "
            "its steps have no labels. Let the model return one vector, as a recurrent layer "
            'without return_sequences does, or keep the steps, with padding = "causal" or "same"'
        )
    return SampleRule(steps, window.stride, at_end)


_BLOCK = 1 << 16


def split_off_scale(model: Model) -> tuple[Model, Rescaling | None]:
    """Return the model without the Rescaling at its end, and that layer.

    If the model does not end in a Rescaling, or has several outputs, return that model and None.
    """
    symbols = model.graph.outputs
    last = symbols[0].node.layer
    if len(symbols) != 1 or not isinstance(last, Rescaling):
        return model, None
    (before,) = leaves(symbols[0].node.inputs)
    return Model(model.graph.inputs, before, name=model.name), last


def without_calibration(model: Model) -> Model:
    """Return the model without the layer that shifts its quantiles, if it has one."""
    core, layer = split_off_scale(model)
    if layer is None or not layer.name.startswith(CALIBRATION):
        return model
    if isinstance(model, Sequential):
        config: dict[str, Any] = model.get_config()
        core = Sequential.from_config({**config, "layers": config["layers"][:-1]})
        core.set_weights(model.get_weights())
    return core


def with_scale(model: Model, scale: Scale, name: str = "rescaling") -> Model:
    """Return the model with a Rescaling at its end."""
    names = {layer.name for layer in model.layers}
    numbered = (f"{name}_{number}" for number in count(1))
    name = next(name for name in chain([name], numbered) if name not in names)
    with counted_from_the_start():
        layer = Rescaling(scale.deviation.tolist(), scale.offset.tolist(), name=name)
    if isinstance(model, Sequential):
        scaled: Model = Sequential.from_config(model.get_config())
        scaled.set_weights(model.get_weights())
        scaled.add(layer)  # type: ignore[attr-defined]
        return scaled
    return Model(model.graph.inputs, layer(model.graph.outputs[0]), name=model.name)


def label_means(staged: Staged, training: StepRuns, *, values: bool = False) -> Floats:
    """Return the weighted means (K,) of the labels that count in training; 0 if none does.

    With `values`, labels that are changes count as the values that they lead to.
    """
    total, weights = np.zeros(staged.targets), np.zeros(1)
    for block in _blocks(staged.labels, training):
        counted = block[block[:, -1] > 0].astype(np.float64)
        weight = counted[:, -1:]
        label, now, _ = np.split(counted, [staged.targets, -1], axis=1)
        total += _sum(weight * (label + now if values and staged.change else label))
        weights += _sum(weight)
    means: Floats = (total / np.where(weights > 0, weights, 1)).astype(np.float32)
    return means


def last_time(staged: Staged, training: StepRuns) -> int:
    """Return the time of the last training row, in ticks."""
    return max(int(block.max()) for block in _blocks(staged.time, training))


def adapt_normalization(model: Model, staged: Staged, training: StepRuns) -> None:
    """Set mean and variance of each Normalization that has none, from the training rows.

    Raises UnsupportedError if such a layer does not read an input of the model, and DataError for
    values whose variance float32 cannot hold.
    """
    inputs = {id(symbol): number for number, symbol in enumerate(model.graph.inputs)}
    for node in model.graph.nodes:
        layer = node.layer
        if not isinstance(layer, Normalization):
            continue
        weights = layer.named_weights()
        # A count of 0 alone does not show that weights are initial: Keras files have it, too.
        if weights.get("count") != 0 or weights["mean"].any() or (weights["variance"] != 1).any():
            continue
        (symbol,) = leaves(node.inputs)
        if id(symbol) not in inputs:
            raise UnsupportedError(
                f"{layer} has no mean and variance, and fit computes them only for a layer that "
                "reads an input of the model. Set mean and variance, or move the layer to the front"
            )
        source = staged.inputs[inputs[id(symbol)]]
        count, mean, variance = _moments(partial(_blocks, source, training), source.shape[1])
        if layer.features is None:  # axis=None: one mean over all features
            square = (variance + mean * mean).mean()
            mean, variance = mean.mean(), square - mean.mean() ** 2
        largest = float(np.finfo(np.float32).max)
        beyond = np.atleast_1d((np.abs(mean) > largest) | ~(variance <= largest))
        if beyond.any():
            index = int(np.flatnonzero(beyond)[0])
            raise DataError(
                f"{layer}: feature {index} (from 0) has the variance "
                f"{np.atleast_1d(variance)[index]:.3g}, more than float32 holds. Limit the "
                "feature with clip in [source] features"
            )
        layer.set_weights([mean, variance, np.float32(count)])


def _blocks(array: Array, rows: StepRuns) -> Iterator[Array]:
    for begin, length in zip(rows.begin.tolist(), rows.length.tolist(), strict=True):
        for first in range(begin, begin + length, _BLOCK):
            yield np.asarray(array[first : min(first + _BLOCK, begin + length)])


def _moments(blocks: Callable[[], Iterator[Array]], columns: int) -> tuple[int, Doubles, Doubles]:
    """Return the number of rows, and mean and variance (F,) of each column, in two passes."""
    count, total = 0, np.zeros(columns)
    for block in blocks():
        count += len(block)
        total += _sum(block.astype(np.float64))
    mean = total / max(1, count)
    total = np.zeros(columns)
    for block in blocks():
        total += _sum((block.astype(np.float64) - mean) ** 2)
    return count, mean, total / max(1, count)


def _sum(block: Doubles) -> Doubles:
    """Return the sum of rows, added one after another: np.sum may add in another order."""
    total: Doubles = np.cumsum(block, axis=0)[-1] if len(block) else np.zeros(block.shape[1])
    return total
