"""Labels that a loss cannot use, and weights of classes."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.errors import ConfigError
from streamrnn.jobs.fitting.staging import Staged
from streamrnn.nn.training import Loss
from streamrnn.nn.training.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    Hinge,
    KLDivergence,
    MeanSquaredLogarithmicError,
    Poisson,
    Quantile,
    SparseCategoricalCrossentropy,
)

_BLOCK = 1 << 16
_OF_CLASSES = (CategoricalCrossentropy, CategoricalHinge)
_OF_PROBABILITIES = (BinaryCrossentropy, KLDivergence, *_OF_CLASSES)


class WrongLabel(NamedTuple):
    """A label that a loss cannot use: the number of its row, of its stream and of its target."""

    row: int
    stream: int
    target: int
    value: float
    expected: str


def check_units(loss: Loss, units: int, targets: int) -> None:
    """Raise ConfigError unless a model with so many outputs fits the loss and the targets."""
    if isinstance(loss, Quantile):
        expected, wanted, per = len(loss.quantiles), 1, "one for each quantile"
    elif isinstance(loss, SparseCategoricalCrossentropy):
        expected, wanted, per = units, 1, "one for each class"
    else:
        expected, wanted, per = targets, targets, "one for each column of [target]"
    if targets != wanted:
        raise ConfigError(
            f"[target] column: the loss {loss.name} takes one column, received {targets}"
        )
    if units != expected:
        raise ConfigError(
            f"fit: the model has {units} outputs, and the loss {loss.name} needs {expected}: {per}."
            " Change the units of the last layer"
        )
    if isinstance(loss, _OF_CLASSES) and units < 2:
        raise ConfigError(f"fit: the loss {loss.name} needs an output for each class, received 1")


def find_wrong_label(
    staged: Staged, loss: Loss, units: int, *, only_classes: bool = False
) -> WrongLabel | None:
    """Return the first label, of the first stream that has one, that the loss cannot use.

    only_classes: refuse probabilities between 0 and 1, too, as classes have weights.
    """
    targets = staged.targets
    for begin in range(0, staged.steps, _BLOCK):
        block = np.asarray(staged.labels[begin : begin + _BLOCK])
        wrong, expected = _wrong(loss, block[:, :targets], units, only_classes)
        found = np.argwhere(wrong & (block[:, -1:] > 0))
        if len(found):
            step, target = begin + int(found[0][0]), int(found[0][1])
            sequence = np.searchsorted(staged.start_Q, step, side="right") - 1
            value = float(staged.labels[step, target])
            return WrongLabel(
                int(staged.row[step]), int(staged.stream_Q[sequence]), target, value, expected
            )
    return None


def _wrong(loss: Loss, label: Floats, units: int, only_classes: bool) -> tuple[Bools, str]:
    if isinstance(loss, SparseCategoricalCrossentropy):
        whole = (label == np.floor(label)) & (label >= 0) & (label < units)
        return ~whole, f"the number of a class, 0 to {units - 1}"
    if only_classes:
        return (label != 0) & (label != 1), "0 or 1, as [train] class_weight is given"
    if isinstance(loss, _OF_PROBABILITIES):
        return ~((label >= 0) & (label <= 1)), "a probability, 0 to 1"
    if isinstance(loss, Hinge):
        return ~np.isin(label, (-1, 0, 1)), "-1 or 1, or 0 or 1"
    if isinstance(loss, Poisson | MeanSquaredLogarithmicError):
        return ~((label >= 0) & (label < np.inf)), "a number from 0 on, within float32"
    return ~np.isfinite(label), "a number within the range of float32"


class ClassWeights:
    """A weight for each class, as float32; those that are not given are 1."""

    def __init__(self, given: Mapping[str, float], loss: Loss, units: int, targets: int) -> None:
        """Raise ConfigError unless the loss and the outputs have such classes."""
        if isinstance(loss, BinaryCrossentropy):
            classes = 2
            if targets != 1:
                raise ConfigError(
                    f"[train] class_weight: the loss {loss.name} takes weights for one column of "
                    f"[target], received {targets}"
                )
        elif isinstance(loss, CategoricalCrossentropy):
            classes = units
        else:
            raise ConfigError(
                f"[train] class_weight: the labels of {loss.name} are no classes; remove "
                "class_weight, or name a column of weights in [target] weight"
            )
        self.binary = isinstance(loss, BinaryCrossentropy)
        self._weights = np.ones(classes, np.float32)
        for name, weight in given.items():
            if int(name) >= classes:
                raise ConfigError(
                    f'[train] class_weight: expected classes "0" to "{classes - 1}", received '
                    f'"{name}"'
                )
            self._weights[int(name)] = weight

    def of(self, label: Floats) -> Floats:
        """Return the weight of each label (…, K): a class, or with K > 1 its place."""
        ids = label[..., 0] if label.shape[-1] == 1 else label.argmax(axis=-1)
        found: Floats = self._weights[ids.astype(np.int64)]
        return found
