"""Rules of operations: the gradients of `x * 2`, `ops.mean(x, axis=1)` and so on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn.kernels.activation import ACTIVATIONS, derivative_source
from streamrnn.nn.kernels.gradients import summed_over, times_derivative
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.functions import ARRAY_FUNCTIONS, activation_of, floats, truths
from streamrnn.nn.training.recording import Recorded, Recording
from streamrnn.nn.training.simple_rules import check_activation, parts_of

_sum = ARRAY_FUNCTIONS["sum"].compute

_Back = Callable[[Any, list[Any], Floats, Floats], list[Any]]
"""Maps (arguments, operands, y, dy) to the gradient of each operand, before broadcasting is undone;
None for an operand without a gradient."""


def _chosen(first: Any, dy: Floats) -> list[Any]:
    """Return the gradients of two operands; `first`: where the first operand is the result."""
    return [np.where(first, dy, np.float32(0)), np.where(first, np.float32(0), dy)]


def _of_extreme(a: Any, xs: list[Any], y: Floats, dy: Floats) -> list[Any]:
    return _chosen(y == floats(xs[0]), dy)


def _of_quotient(a: Any, xs: list[Any], y: Floats, dy: Floats) -> list[Any]:
    share = dy / floats(xs[1])
    return [share, -share * y]


def _of_power(a: Any, xs: list[Any], y: Floats, dy: Floats) -> list[Any]:
    number = float(xs[1])
    if number == 0.5:
        return [dy * np.float32(0.5) / y, None]
    if number == -0.5:
        return [dy * np.float32(-0.5) * y / floats(xs[0]), None]
    whole, x = int(number), floats(xs[0])
    slope = np.full_like(x, whole)
    for _ in range(abs(whole - 1)):
        slope = slope * x if whole > 0 else slope / x
    return [dy * slope, None]


def _over(a: Any, x: Floats, value: Floats) -> Floats:
    """Return the values of a reduction, each repeated for the elements that it comes from."""
    if not a.get("keepdims"):
        value = np.expand_dims(value, tuple(np.atleast_1d(a["axis"])))
    return np.broadcast_to(value, x.shape)


def _of_item(a: Any, xs: list[Any], y: Floats, dy: Floats) -> list[Any]:
    dx = np.zeros(xs[0].shape, np.float32)
    dx[tuple(a["key"])] = dy
    return [dx]


def _of_clip(a: Any, xs: list[Any], y: Floats, dy: Floats) -> list[Any]:
    x = floats(xs[0])
    inside = (x >= np.float32(a["x_min"])) & (x <= np.float32(a["x_max"]))
    return [np.where(inside, dy, np.float32(0))]


def _reshaped(a: Any, xs: list[Any], y: Floats, dy: Floats) -> list[Any]:
    return [dy.reshape(xs[0].shape)]


def _of_activation(name: str, **defaults: float) -> _Back:
    def back(a: Any, xs: list[Any], y: Floats, dy: Floats) -> list[Any]:
        spec = activation_of(name, defaults | a)
        kept = np.ascontiguousarray(floats(xs[0])) if derivative_source(spec) == "input" else y
        return [times_derivative(spec, kept, np.ascontiguousarray(dy))]

    return back


BACK: dict[str, _Back] = {
    **{name: _of_activation(name) for name in ACTIVATIONS if derivative_source(name)},
    "absolute": lambda a, xs, y, dy: [dy * np.sign(floats(xs[0]))],
    "add": lambda a, xs, y, dy: [dy, dy],
    "clip": _of_clip,
    "concatenate": lambda a, xs, y, dy: parts_of(dy, a["axis"], xs),
    "exp": lambda a, xs, y, dy: [dy * y],
    "expand_dims": _reshaped,
    "flip": lambda a, xs, y, dy: [np.flip(dy, a["axis"])],
    "gelu": _of_activation("gelu", approximate=True),
    "get_item": _of_item,
    "log": lambda a, xs, y, dy: [dy / floats(xs[0])],
    "log1p": lambda a, xs, y, dy: [dy / (np.float32(1) + floats(xs[0]))],
    "maximum": _of_extreme,
    "mean": lambda a, xs, y, dy: [_over(a, xs[0], dy) / np.float32(xs[0].size // max(y.size, 1))],
    "minimum": _of_extreme,
    "multiply": lambda a, xs, y, dy: [dy * floats(xs[1]), dy * floats(xs[0])],
    "negative": lambda a, xs, y, dy: [-dy],
    "power": _of_power,
    "reshape": _reshaped,
    "rsqrt": lambda a, xs, y, dy: [dy * np.float32(-0.5) * y / floats(xs[0])],
    "softmax": lambda a, xs, y, dy: [y * (dy - _sum(dy * y, axis=a["axis"], keepdims=True))],
    "sqrt": lambda a, xs, y, dy: [dy * np.float32(0.5) / y],
    "square": lambda a, xs, y, dy: [dy * np.float32(2) * floats(xs[0])],
    "squeeze": _reshaped,
    "stack": lambda a, xs, y, dy: list(np.moveaxis(dy, a["axis"], 0)),
    "subtract": lambda a, xs, y, dy: [dy, -dy],
    "sum": lambda a, xs, y, dy: [_over(a, xs[0], dy)],
    "true_divide": _of_quotient,
    "where": lambda a, xs, y, dy: [None, *_chosen(truths(xs[0]), dy)],
    **dict.fromkeys(
        (
            *("equal", "greater", "greater_equal", "less", "less_equal", "not_equal"),
            *("logical_and", "logical_not", "logical_or", "ones_like", "sign", "zeros_like"),
            *("argmax", "isnan", "one_hot"),
        ),
        lambda a, xs, y, dy: [None] * len(xs),
    ),
}


def check_operation(layer: Any) -> None:
    """Raise UnsupportedError, naming the layer, for a function or activation without a gradient."""
    if layer.function not in BACK:
        raise UnsupportedError(
            f"{layer}: training through the operation {layer.function!r} is not supported; "
            f"supported: {', '.join(sorted(BACK))}"
        )
    if layer.function in ACTIVATIONS and layer.arguments:
        check_activation(layer, activation_of(layer.function, layer.arguments))


def operation(layer: Any, inputs: Any, context: CallContext, recording: Recording) -> Recorded:
    """Compute an operation, and record the backward pass."""
    check_operation(layer)
    arrays = inputs if isinstance(inputs, list) else [inputs]
    y = layer.apply(inputs, context)
    operands = layer.all_operands(arrays)
    places = [i for i, constant in enumerate(layer.constants) if constant is None]

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        if dys[0] is None:
            return [None] * len(arrays)
        with np.errstate(all="ignore"):
            shares = BACK[layer.function](layer.canonical, operands, y, dys[0])
        return [
            None if shares[i] is None else _fitted(shares[i], x)
            for i, x in zip(places, arrays, strict=True)
        ]

    return Recorded([floats(y)], [None], pullback)


def _fitted(share: Floats, x: Floats) -> Floats:
    """Return a gradient summed to the shape of its operand, which may have been broadcast."""
    missing = share.ndim - x.ndim
    total = summed_over(np.ascontiguousarray(share, np.float32), (1,) * missing + x.shape)
    return total.reshape(x.shape)
