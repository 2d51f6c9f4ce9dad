"""Activations: names that layers take, and the same functions to call on arrays.

A name stands for what it means in Keras 3. `hard_sigmoid` there is clip(x/6 + 0.5, 0, 1);
`hard_sigmoid_02` is the one of Keras 2 and ONNX, clip(0.2 x + 0.5, 0, 1). The functions compute in
float32, element by element (softmax: over the last axis), with the same bits as inside a layer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from streamrnn.errors import UnsupportedError
from streamrnn.kernels import activation as kernel
from streamrnn.layers.run import Floats

_ALIASES = {"swish": "silu", "hard_sigmoid_2": "hard_sigmoid_02", "exp": "exponential"}


def compute(name: str, x: Any) -> Floats:
    """The activation `name` (as `get` returned it) of x, as a new float32 array."""
    array = np.ascontiguousarray(x, dtype=np.float32)
    if name == "linear":
        return array.copy()
    out = np.empty_like(array)
    if array.size:
        kernel.run(name, array, out)
    return out


def _function(name: str, doc: str) -> Callable[[Any], Floats]:
    def activation(x: Any) -> Floats:
        return compute(name, x)

    activation.__name__ = activation.__qualname__ = name
    activation.__doc__ = doc
    return activation


linear = _function("linear", "x")
tanh = _function("tanh", "The hyperbolic tangent.")
sigmoid = _function("sigmoid", "1 / (1 + exp(-x))")
relu = _function("relu", "max(x, 0)")
relu6 = _function("relu6", "min(max(x, 0), 6)")
hard_sigmoid = _function("hard_sigmoid", "clip(x / 6 + 0.5, 0, 1), as Keras 3.")
hard_sigmoid_02 = _function("hard_sigmoid_02", "clip(0.2 x + 0.5, 0, 1), as Keras 2 and ONNX.")
softmax = _function("softmax", "exp(x) / sum of exp(x) over the last axis.")
elu = _function("elu", "x where x > 0, else exp(x) - 1.")
selu = _function("selu", "1.0507 x where x > 0, else 1.0507 * 1.6733 (exp(x) - 1).")
softplus = _function("softplus", "log(1 + exp(x))")
softsign = _function("softsign", "x / (1 + |x|)")
silu = _function("silu", "x sigmoid(x); also called swish.")
mish = _function("mish", "x tanh(log(1 + exp(x)))")
gelu = _function("gelu", "x Phi(x), Phi the normal distribution (the exact form).")
exponential = _function("exponential", "exp(x)")
leaky_relu = _function("leaky_relu", "x where x >= 0, else 0.2 x.")
swish = silu

_FUNCTIONS: dict[str, Callable[[Any], Floats]] = {
    f.__name__: f
    for f in (
        linear,
        tanh,
        sigmoid,
        relu,
        relu6,
        hard_sigmoid,
        hard_sigmoid_02,
        softmax,
        elu,
        selu,
        softplus,
        softsign,
        silu,
        mish,
        gelu,
        exponential,
        leaky_relu,
    )
}


def get(identifier: Any, who: str = "") -> str:
    """The name of an activation given as a name, None, one of these functions, or Keras's config.

    Raises UnsupportedError, naming `who` and the activations that are known.
    """
    if identifier is None:
        return "linear"
    if isinstance(identifier, Mapping):
        identifier = identifier.get("config") if "config" in identifier else identifier
        identifier = identifier.get("name") if isinstance(identifier, Mapping) else identifier
    if callable(identifier):
        for name, function in _FUNCTIONS.items():
            if identifier is function:
                return name
    if isinstance(identifier, str):
        name = _ALIASES.get(identifier, identifier)
        if name in _FUNCTIONS:
            return name
    raise UnsupportedError(
        f"{who + ': ' if who else ''}activation {identifier!r} is not supported; supported: "
        f"{', '.join(sorted(_FUNCTIONS))}"
    )
