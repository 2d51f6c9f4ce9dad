"""The scaling that a model applies to its inputs."""

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn.layers.scaling import Normalization
from streamrnn.nn.models.model import Model


def input_scaling(model: Model) -> dict[str, tuple[Floats, Floats]]:
    """Return mean and deviation, each (F,) or (1,), of the `Normalization` that reads an input.

    By name of the input; one that no such layer reads is left out.
    """
    found = {}
    for symbol in model.graph.inputs:
        for node in model.graph.consumers(symbol):
            layer = node.layer
            if isinstance(layer, Normalization) and not layer.invert:
                mean, variance = layer.mean, layer.variance
                if mean is None or variance is None:
                    mean, variance = layer.get_weights()[:2]
                found[symbol.layer.name] = np.ravel(mean), np.sqrt(np.ravel(variance))
    return found
