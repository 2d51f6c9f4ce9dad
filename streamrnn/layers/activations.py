"""Activations: the names that layers accept, and the same functions to call on arrays.

Names have the meaning of Keras 3: `hard_sigmoid` is clip(x/6 + 0.5, 0, 1), and `hard_sigmoid_02` is
that of Keras 2 and ONNX, clip(0.2 x + 0.5, 0, 1). The functions compute in float32, element by
element (softmax: over the last axis), with the same bits as inside a layer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from streamrnn.arrays import Floats
from streamrnn.display import closest
from streamrnn.errors import UnsupportedError
from streamrnn.kernels import activation as kernel
from streamrnn.layers.registry import ConfigDict, StoredConfig

__all__ = [
    "compute",
    "elu",
    "exponential",
    "gelu",
    "get",
    "hard_sigmoid",
    "hard_sigmoid_02",
    "leaky_relu",
    "linear",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]

_ALIASES = {"swish": "silu", "hard_sigmoid_2": "hard_sigmoid_02", "exp": "exponential"}


def compute(spec: kernel.Spec, x: npt.ArrayLike) -> Floats:
    """Apply the activation `spec` (as `get` returned it) to x; return a new float32 array."""
    return kernel.applied(spec, np.asarray(x, dtype=np.float32))


Activation = Callable[[npt.ArrayLike], Floats]


def _function(name: str, doc: str) -> Activation:
    def activation(x: npt.ArrayLike) -> Floats:
        return compute(name, x)

    activation.__name__ = activation.__qualname__ = name
    activation.__doc__ = doc
    return activation


linear = _function("linear", "x")
tanh = _function("tanh", "The hyperbolic tangent.")
sigmoid = _function("sigmoid", "1 / (1 + exp(-x))")
relu = _function("relu", "max(x, 0)")
relu6 = _function("relu6", "min(max(x, 0), 6)")
hard_sigmoid = _function("hard_sigmoid", "clip(x / 6 + 0.5, 0, 1), as in Keras 3.")
hard_sigmoid_02 = _function("hard_sigmoid_02", "clip(0.2 x + 0.5, 0, 1), as in Keras 2 and ONNX.")
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

_FUNCTIONS: dict[str, Activation] = {
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


class _ActivationLayer(Protocol):
    def get_config(self) -> ConfigDict: ...


ActivationLike = str | Sequence[str | float] | StoredConfig | Activation | _ActivationLayer | None
"""What `get` accepts."""


def get(identifier: ActivationLike, owner: str = "") -> kernel.Spec:
    """Return the spec of a name, None, one of these functions, a layer, or Keras's config.

    A spec is the name, or (name, parameter, …) of a layer with parameters. It is accepted too, also
    as the list that a file holds. Raises UnsupportedError that names `owner` and the known
    activations, or the layer and its unsupported parameters.
    """
    if identifier is None:
        return "linear"
    for name, function in _FUNCTIONS.items():
        if identifier is function:
            return name
    if isinstance(identifier, str):
        name = _ALIASES.get(identifier, identifier)
        if name in _FUNCTIONS:
            return name
    elif isinstance(identifier, Mapping) and "config" in identifier:
        config = identifier["config"]
        if not isinstance(config, Mapping):
            return get(config, owner)
        return _of_layer(str(identifier.get("class_name")), config, owner)
    elif hasattr(identifier, "get_config") and not isinstance(identifier, type):
        return _of_layer(type(identifier).__name__, identifier.get_config(), owner)
    elif isinstance(identifier, list | tuple) and _is_spec(identifier):
        name, numbers = kernel.split_spec(tuple(identifier))
        return (name, *numbers)
    near = closest(identifier, _FUNCTIONS) if isinstance(identifier, str) else None
    raise UnsupportedError(
        f"{_prefix(owner)}activation {identifier!r} is not supported"
        f"{f'; did you mean {near!r}? Supported' if near else '; supported'}: "
        f"{', '.join(sorted(_FUNCTIONS))}"
    )


def _is_spec(value: Sequence[object]) -> TypeGuard[Sequence[str | float]]:
    return (
        len(value) > 0
        and value[0] in _FUNCTIONS
        and all(isinstance(number, int | float) for number in value[1:])
    )


def _of_layer(class_name: str, config: StoredConfig, owner: str) -> kernel.Spec:
    """Return the spec of an activation layer, by its class and config."""
    if class_name == "LeakyReLU":
        return ("leaky_relu", float(config.get("negative_slope", config.get("alpha", 0.3))))
    if class_name == "ELU":
        return ("elu", float(config.get("alpha", 1.0)))
    if class_name == "Activation":
        return get(config.get("activation"), owner)
    if class_name == "Softmax" and config.get("axis", -1) == -1:
        return "softmax"
    if class_name == "ReLU" and not config.get("threshold"):
        top, slope = config.get("max_value"), config.get("negative_slope") or 0.0
        if top is None:
            return ("leaky_relu", float(slope)) if slope else "relu"
        if not slope:
            return ("relu6", float(top))
    given = {key: config[key] for key in config if key not in ("name", "trainable", "dtype")}
    raise UnsupportedError(
        f"{_prefix(owner)}activation {class_name} with {given} is not supported; put the layer "
        f"after this one, or use one of: {', '.join(sorted(_FUNCTIONS))}"
    )


def _prefix(owner: str) -> str:
    return f"{owner}: " if owner else ""
