"""Means and deviations from the training rows: of Normalization layers, and of the target.

Sums are in float64, in the order of the rows, so that a fit has the same bits on any machine.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Doubles, Floats
from streamrnn.errors import ConfigError, DataError, UnsupportedError
from streamrnn.jobs.fitting.division import Scale, StepRuns
from streamrnn.jobs.fitting.staging import Staged
from streamrnn.jobs.preflight import CALIBRATION
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.naming import counted_from_the_start
from streamrnn.nn.layers.scaling import Normalization, Rescaling
from streamrnn.nn.layers.structure import leaves
from streamrnn.nn.models import Model, Sequential

_BLOCK = 1 << 16


def split_off_scale(model: Model) -> tuple[Model, Rescaling | None]:
    """Return the model without the Rescaling at its end, and that layer; None if it has none."""
    symbols = model.graph.outputs
    last = symbols[0].node.layer
    if len(symbols) != 1 or not isinstance(last, Rescaling):
        return model, None
    (before,) = leaves(symbols[0].node.inputs)
    return Model(model.graph.inputs, before, name=model.name), last


def without_calibration(model: Model) -> Model:
    """Return the model without the layer that `with_calibration` appended, if it has one."""
    core, layer = split_off_scale(model)
    if layer is None or not layer.name.startswith(CALIBRATION):
        return model
    if isinstance(model, Sequential):
        config: dict[str, Any] = model.get_config()
        core = Sequential.from_config({**config, "layers": config["layers"][:-1]})
        core.set_weights(model.get_weights())
    return core


def with_calibration(model: Model, shifts: Sequence[float]) -> Model:
    """Return a model whose outputs are shifted, each by its own number."""
    offset = np.array(shifts, np.float32)
    return with_scale(model, Scale(offset, np.ones_like(offset)), CALIBRATION)


def with_scale(model: Model, scale: Scale, name: str = "rescaling") -> Model:
    """Return a model that ends in a Rescaling to the scale of the target."""
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


def scale_of(layer: Rescaling) -> Scale:
    """Return the scale of a Rescaling layer at the end of a model."""
    return Scale(np.atleast_1d(layer.offset), np.atleast_1d(layer.scale))


def target_scale(staged: Staged, training: StepRuns) -> Scale:
    """Return mean and deviation of the labels that count in training. Raises DataError."""
    count, mean, variance = _moments_of_labels(staged, training)
    if not count:
        raise DataError("fit: no training row has a label; check [target] and [train] validation")
    deviation = np.sqrt(variance)
    deviation[deviation == 0] = 1
    return Scale(mean.astype(np.float32), deviation.astype(np.float32))


def label_means(staged: Staged, training: StepRuns) -> Floats:
    """Return the means (K,) of the labels that count in training; 0 if none does."""
    _, mean, _ = _moments_of_labels(staged, training)
    return mean.astype(np.float32)


def _moments_of_labels(staged: Staged, training: StepRuns) -> tuple[int, Doubles, Doubles]:
    def labels() -> Iterator[Array]:
        for block in _blocks(staged.labels, training):
            yield block[block[:, -1] > 0, : staged.targets]

    return _moments(labels, staged.targets)


def adapt_normalization(model: Model, staged: Staged, training: StepRuns) -> None:
    """Set mean and variance of each Normalization that has none, from the training rows.

    Raises UnsupportedError for one that does not read an input of the model.
    """
    inputs = {id(symbol): number for number, symbol in enumerate(model.graph.inputs)}
    for node in model.graph.nodes:
        layer = node.layer
        if not isinstance(layer, Normalization) or not _is_blank(layer):
            continue
        (symbol,) = leaves(node.inputs)
        if id(symbol) not in inputs:
            raise UnsupportedError(
                f"{layer}: it has no mean and variance, and fit finds them only for a layer that "
                "reads an input of the model. Pass mean and variance, or move it to the front"
            )
        source = staged.inputs[inputs[id(symbol)]]

        def blocks(source: Array = source) -> Iterator[Array]:
            return _blocks(source, training)

        count, mean, variance = _moments(blocks, source.shape[1])
        if layer.features is None:  # axis=None: one mean over all features
            square = (variance + mean * mean).mean()
            mean, variance = mean.mean(), square - mean.mean() ** 2
        largest = float(np.finfo(np.float32).max)
        beyond = np.atleast_1d((np.abs(mean) > largest) | ~(variance <= largest))
        if beyond.any():
            index = int(np.flatnonzero(beyond)[0])
            raise DataError(
                f"{layer}: feature {index} (from 0) has the variance "
                f"{np.atleast_1d(variance)[index]:.3g}, more than float32 holds. Limit it with "
                "clip in [source] features"
            )
        layer.set_weights([mean, variance, np.float32(count)])


def _is_blank(layer: Layer) -> bool:
    """Return whether a layer has its initial weights: files of Keras have a count of 0, too."""
    weights = layer.named_weights()
    if "count" not in weights:
        return False
    initial = not weights["mean"].any() and (weights["variance"] == 1).all()
    return bool(initial and weights["count"] == 0)


def check_finite_scale(scale: Scale) -> None:
    """Raise ConfigError unless labels can be standardized."""
    if not (np.isfinite(scale.deviation).all() and (scale.deviation != 0).all()):
        raise ConfigError(
            f"fit: the last layer of the model scales by {scale.deviation.tolist()}: labels cannot "
            "be standardized. Set [train] scale_target = false"
        )


def _blocks(array: Array, rows: StepRuns) -> Iterator[Array]:
    """Yield these rows of an array."""
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
