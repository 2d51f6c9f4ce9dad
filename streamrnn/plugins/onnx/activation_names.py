"""The names of activations in ONNX, one row for each, for graphs and recurrent nodes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

_NONE: Mapping[str, float] = MappingProxyType({})


class Row(NamedTuple):
    """An operator, and its attributes, one for each of our parameters: name -> default value.

    in_nodes: recurrent nodes have it, too. by_kernel: our kernel computes exactly this operator.
    """

    operator: str
    attributes: Mapping[str, float] = _NONE
    in_nodes: bool = False
    by_kernel: bool = True


NAMES = {
    "tanh": Row("Tanh", in_nodes=True),
    "sigmoid": Row("Sigmoid", in_nodes=True),
    "relu": Row("Relu", in_nodes=True),
    "softplus": Row("Softplus", in_nodes=True),
    "softsign": Row("Softsign", in_nodes=True),
    "exponential": Row("Exp"),
    "erf": Row("Erf"),
    "mish": Row("Mish"),
    "celu": Row("Celu", {"alpha": 1.0}, by_kernel=False),
    "hard_silu": Row("HardSwish", by_kernel=False),
    "leaky_relu": Row("LeakyRelu", {"alpha": 0.01}, in_nodes=True),
    "elu": Row("Elu", {"alpha": 1.0}, in_nodes=True),
    "selu": Row("Selu", {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}),
    "hard_sigmoid_02": Row("HardSigmoid", {"alpha": 0.2, "beta": 0.5}, in_nodes=True),
    "affine": Row("Affine", {"alpha": 1.0, "beta": 0.0}, in_nodes=True, by_kernel=False),
    "scaled_tanh": Row("ScaledTanh", {"alpha": 1.0, "beta": 1.0}, in_nodes=True, by_kernel=False),
    "thresholded_relu": Row("ThresholdedRelu", {"alpha": 1.0}, in_nodes=True, by_kernel=False),
}
"""Our name -> ONNX's. Activations without a row are composed of other operators, or refused."""
