"""Activations: the names that layers accept, functions to call on arrays, and layers.

Names and arguments are as in Keras 3: `hard_sigmoid` is clip(x/6 + 0.5, 0, 1). `hard_sigmoid_02` is
the hard sigmoid of Keras 2 and ONNX, clip(0.2 x + 0.5, 0, 1). The functions compute in float32 with
the same bits as in a layer: softmax, log_softmax, sparsemax and glu along an axis (by default the
last), the others element by element.

A layer takes a name, one of these functions, or a list of a name and its parameters:
``Dense(4, activation=["celu", 0.5])``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Any

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array, Floats
from streamrnn.base.display import not_one_of
from streamrnn.errors import ArgumentError, ShapeError, UnsupportedError
from streamrnn.nn.kernels import activation as kernel
from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.kernels.activations import *
from streamrnn.nn.kernels.activations import __all__ as __all__
from streamrnn.nn.layers.axes import AlongAxes, as_rows, checked_axis, from_rows
from streamrnn.nn.layers.built_in import Stepwise
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Accepted, Argument
from streamrnn.nn.layers.initializers import Initial
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import StoredConfig, builtin_layer
from streamrnn.nn.layers.structure import Shape
from streamrnn.nn.layers.symbol import symbols_in

_NAMES = (*__all__, "relu", *sorted(kernel.ROW_WISE))
"""The names that layers accept."""

__all__ += ("compute", "get", "glu", "hard_swish", "log_softmax", "relu", "softmax", "sparsemax")
__all__ += ("swish", "threshold")
__all__ = tuple(sorted(__all__))

_ALIASES = {
    "swish": "silu",
    "hard_swish": "hard_silu",
    "hard_sigmoid_2": "hard_sigmoid_02",
    "exp": "exponential",
}


def compute(spec: kernel.Spec, x: npt.ArrayLike) -> Floats:
    """Apply the activation `spec` (as `get` returned it) to x; return a new float32 array."""
    return kernel.applied(spec, np.asarray(x, dtype=np.float32))


swish = silu
hard_swish = hard_silu


def relu(
    x: npt.ArrayLike,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> Floats:
    """Return x, at most max_value, where x > threshold; else negative_slope (x - threshold)."""
    return compute(spec_of_relu(negative_slope, max_value, threshold), x)


def threshold(x: npt.ArrayLike, threshold: float, default_value: float) -> Floats:
    """Return x where x > threshold, else default_value."""
    return compute(("threshold", float(threshold), float(default_value)), x)


def softmax(x: npt.ArrayLike, axis: int | Sequence[int] = -1) -> Floats:
    """Return exp(x) / sum of exp(x) over an axis, or over several."""
    return compute_over("softmax", x, axis)


def log_softmax(x: npt.ArrayLike, axis: int | Sequence[int] = -1) -> Floats:
    """Return x - log(sum of exp(x)) over an axis, or over several."""
    return compute_over("log_softmax", x, axis)


def sparsemax(x: npt.ArrayLike, axis: int = -1) -> Floats:
    """Return max(x - t, 0) over an axis, with t as in Keras 3.

    With this t, the values need not add up to 1; see `simd.activation.sparsemax_kernel`.
    """
    return compute_over("sparsemax", x, axis)


def glu(x: npt.ArrayLike, axis: int = -1) -> Floats:
    """Return a * sigmoid(b), where a and b are the halves of x along an axis. Layers refuse glu."""
    array = np.asarray(x, dtype=np.float32)
    if not -array.ndim <= axis < array.ndim or array.shape[axis] % 2:
        raise ShapeError(f"glu: expected an even size on axis {axis}, received {array.shape}")
    a, b = np.split(array, 2, axis)
    y: Floats = a * sigmoid(b)
    return y


_FUNCTIONS: dict[str, Callable[..., Floats]] = {name: globals()[name] for name in _NAMES}
_ALONE = {
    "glu": "it halves the last axis; call streamrnn.activations.glu on arrays",
    "threshold": "it needs two arguments; use relu or hard_shrink, or call "
    "streamrnn.activations.threshold on arrays",
}
"""Function that a layer cannot take as its activation -> the reason."""


def spec_of_relu(negative_slope: float, max_value: float | None, threshold: float) -> kernel.Spec:
    """Return the spec of a ReLU with Keras's arguments."""
    slope, limit = float(negative_slope), float(threshold)
    if limit:
        return ("relu", slope, limit, *(() if max_value is None else (float(max_value),)))
    if max_value is None:
        return ("leaky_relu", slope) if slope else "relu"
    return ("relu", slope, limit, float(max_value)) if slope else ("relu6", float(max_value))


def compute_over(name: str, x: npt.ArrayLike, axis: int | Sequence[int]) -> Floats:
    """Apply an activation of rows along one axis of x, or over all values on several axes.

    Raises ShapeError for axes that x does not have, for repeated axes, and for an empty list.
    """
    array = np.asarray(x, dtype=np.float32)
    if isinstance(axis, int | np.integer):
        if not -array.ndim <= axis < array.ndim:
            raise ShapeError(
                f"{name}: axis={axis} is out of range for an array of shape {array.shape}"
            )
        y = compute(name, np.moveaxis(array, axis, -1))
        return np.ascontiguousarray(np.moveaxis(y, -1, axis))
    axes = tuple(axis)
    outside = [axis for axis in axes if not -array.ndim <= axis < array.ndim]
    if outside or not axes or len({axis % array.ndim for axis in axes}) < len(axes):
        raise ShapeError(
            f"{name}: axis={axes} must be one or more axes of an array of shape {array.shape}, "
            "each once"
        )
    ends = tuple(range(-len(axes), 0))
    moved = np.ascontiguousarray(np.moveaxis(array, axes, ends))
    rows = moved.reshape(*moved.shape[: -len(axes)], -1)
    activated = compute(name, rows).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(activated, ends, axes))


ActivationLike = str | Sequence[str | float] | StoredConfig | Callable[..., Floats] | Layer | None
"""What `get` accepts."""


def get(identifier: ActivationLike, owner: str = "") -> kernel.Spec:
    """Return the spec of an activation: a name, None, a function, a layer, or Keras's config.

    A spec is the name, or (name, parameter, …) if there are parameters. A spec is accepted, too,
    including its form in files, a list. Raises UnsupportedError, which names `owner`, for anything
    that is not an activation of layers.
    """
    if identifier is None:
        return "linear"
    what = f"{owner}: activation" if owner else "activation"
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
    elif (
        isinstance(identifier, list | tuple)
        and identifier
        and identifier[0] in _FUNCTIONS
        and all(isinstance(number, int | float) for number in identifier[1:])
    ):
        name, numbers = kernel.split_spec(tuple(identifier))
        return kernel.ACTIVATIONS[name].spec(*numbers) if numbers else name
    for name, why in _ALONE.items():
        if identifier in (name, globals()[name]):
            raise UnsupportedError(f"{what} {name!r} is not supported in layers: {why}")
    raise UnsupportedError(not_one_of(f"{what} {identifier!r}", _FUNCTIONS, identifier))


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
    if class_name == "ReLU":
        slope, threshold = config.get("negative_slope") or 0.0, config.get("threshold") or 0.0
        return spec_of_relu(slope, config.get("max_value"), threshold)
    arguments = {key: config[key] for key in config if key not in ("name", "trainable", "dtype")}
    what = f"{owner}: activation {class_name}" if owner else f"activation {class_name}"
    if arguments:
        what += f" with {arguments}"
    raise UnsupportedError(
        f"{what} is not supported; use one of: {', '.join(sorted(_FUNCTIONS))}. Outside recurrent "
        "layers, you can also leave the activation out, and add it as the next layer"
    )


class Activated(Argument[ActivationLike, Spec]):
    """An activation."""

    type_name = "ActivationLike"

    def take(self, owner: object, name: str, value: Any) -> Spec:
        return get(value, str(owner))


LEAST = np.float32(-3e38)
LEAST_DEVIATION = np.float32(1e-3)
"""Smallest deviation that Gaussian gives: without it, the density could grow without limit."""


@builtin_layer
class Activation(Stepwise):
    """An activation as a layer: Activation("tanh")."""

    activation: Activated

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return compute(self.activation, inputs)


@builtin_layer
class ReLU(Stepwise):
    """x, at most max_value, where x > threshold; else negative_slope (x - threshold)."""

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def complete(self) -> None:
        self.negative_slope = self.negative_slope or 0.0
        self.threshold = self.threshold or 0.0

    def apply(self, inputs: Array, context: CallContext) -> Array:
        threshold, slope = np.float32(self.threshold), np.float32(self.negative_slope)
        low = inputs <= threshold if threshold else inputs < threshold  # as Keras 3 computes it
        y = np.where(low, slope * (inputs - threshold), inputs)
        return y if self.max_value is None else np.minimum(y, np.float32(self.max_value))


@builtin_layer
class LeakyReLU(Stepwise):
    """x where x >= 0, else negative_slope x. Keras 2 calls negative_slope `alpha`."""

    negative_slope: float = 0.3
    _: KW_ONLY
    alpha: Accepted = Accepted(None)

    def complete(self) -> None:
        if self.alpha is not None:
            self.negative_slope = self.alpha

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.where(inputs < 0, np.float32(self.negative_slope) * inputs, inputs)


@builtin_layer
class ELU(Stepwise):
    """x where x > 0, else alpha (exp(x) - 1)."""

    alpha: float = 1.0

    def apply(self, inputs: Array, context: CallContext) -> Array:
        y = compute("elu", inputs)
        return np.where(inputs > 0, y, np.float32(self.alpha) * y)


@builtin_layer
class PReLU(Stepwise):
    """x where x >= 0, else alpha x, with a learned alpha.

    Weight: alpha, in the shape of one input, but of size 1 on the shared axes. shared_axes: axes
    (from 1; as in Keras, 0 is the last one) along which all values share an alpha; an axis of
    unknown size must be one of them.
    """

    alpha_initializer: Initial = Initial("zeros")
    shared_axes: Argument[Sequence[int] | int | None, Sequence[int] | None] = Argument(default=None)

    def complete(self) -> None:
        if self.shared_axes is not None:
            words = "shared_axes must be an int or a list/tuple of ints"
            axes = checked_axis(self, self.shared_axes, words)
            self.shared_axes = axes if isinstance(axes, list) else [axes]

    def build(self, input_shape: Shape) -> None:
        sizes = list(input_shape[1:])
        for axis in self.shared_axes or ():
            if not 1 - len(sizes) <= axis <= len(sizes):
                raise ArgumentError(
                    f"{self}: shared_axes={self.shared_axes} is out of bounds for an input of "
                    f"{len(input_shape)} axes (batch first)"
                )
            sizes[axis - 1] = 1
        shape = [size for size in sizes if size is not None]
        if len(shape) < len(sizes):
            raise ArgumentError(
                f"{self}: each axis must have a known size or be in shared_axes, received shape "
                f"{input_shape}; share alpha over time with shared_axes=[1]"
            )
        self.add_weight("alpha", shape, self.alpha_initializer)

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        alpha = self._weights["alpha"].shape
        return "it has an alpha for each step" if len(alpha) > 1 and alpha[0] != 1 else None

    def check_input(self, shape: Shape) -> None:
        alpha = self._weights["alpha"].shape
        if alpha and alpha[-1] != 1:  # one alpha for all features fits any number of them
            self.expect_features(shape, alpha[-1])
        sizes = zip(alpha[::-1], (1, *shape[1:])[::-1], strict=False)
        if len(alpha) > len(shape) or any(m not in (1, n) and n is not None for m, n in sizes):
            raise ShapeError(
                f"{self}: an alpha of shape {alpha} does not fit an input of shape {shape}; make "
                "another layer for such inputs"
            )

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.where(inputs < 0, self._weights["alpha"] * inputs, inputs)


@builtin_layer
class Softmax(AlongAxes):
    """exp(x) / sum of exp(x) over an axis, or over several; over time, it cannot run on streams.

    A call on arrays also takes a mask of values, which is broadcast to the inputs. The mask has as
    many axes as the inputs, or for inputs (B, F) at most as many. Where the mask is False, the
    output is 0 and the sum leaves the value out, as in Keras.
    """

    def __call__(self, inputs: Any, *args: Any, mask: Any = None, **kwargs: Any) -> Any:
        """Compute the outputs; see Layer, and Softmax for the mask."""
        of_steps = mask is None or bool(symbols_in([inputs, mask]))
        if of_steps or (np.ndim(inputs) > 2 and np.ndim(mask) < np.ndim(inputs)):
            return super().__call__(inputs, *args, mask=mask, **kwargs)
        x, taken = self._cast(inputs), np.asarray(mask)
        taken = taken if taken.dtype == bool else taken > 0.5
        try:
            taken = np.broadcast_to(taken, x.shape)
        except ValueError:
            raise ShapeError(
                f"{self}: a mask must be broadcastable to inputs of shape {x.shape}, and must "
                f"not have more dimensions, received shape {taken.shape}"
            ) from None
        y = super().__call__(np.where(taken, x, LEAST), *args, **kwargs)
        return np.where(taken, y, np.float32(0))

    def apply(self, inputs: Array, context: CallContext) -> Array:
        rows, shape = as_rows(inputs, self.axes)
        return from_rows(compute("softmax", rows), self.axes, shape)


@builtin_layer
class Gaussian(Stepwise):
    """Means and standard deviations of K normal distributions, from 2 K inputs. Not in Keras.

    The first K inputs are the means, unchanged; the others give the deviations,
    softplus(x) + 0.001. The layer follows a Dense of 2 K units at the end of a model, and
    the model's loss is `gaussian_nll`.
    """

    def check_input(self, shape: Shape) -> None:
        if shape[-1] is None or shape[-1] % 2:
            raise ShapeError(
                f"{self}: expected a mean and a deviation for each label, an even number of "
                f"features, received shape {shape}. Change the units of the layer before it"
            )

    def apply(self, inputs: Array, context: CallContext) -> Array:
        half = inputs.shape[-1] // 2
        above = compute("softplus", np.ascontiguousarray(inputs[..., half:]))
        return np.concatenate([inputs[..., :half], above + LEAST_DEVIATION], axis=-1)
