"""Weights of classes: [train] class_weight."""

from collections.abc import Mapping

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import ConfigError
from streamrnn.nn.training import Loss
from streamrnn.nn.training.losses import BinaryCrossentropy, CategoricalCrossentropy


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
