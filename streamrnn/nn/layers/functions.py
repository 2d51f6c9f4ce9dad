"""Functions of arrays, named as in keras.ops. They compute in float32; comparisons give bool.

Sums are computed in float64 from the first element to the last and rounded once, so no bit depends
on the machine.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import dense
from streamrnn.nn.kernels.activation import ACTIVATIONS, Spec, applied
from streamrnn.nn.layers.activations import compute_over


class Function(NamedTuple):
    """compute(*operands, **arguments) -> array.

    along: the elements that an output element depends on. "each": only the element at its own
    place; "axis": all elements along the argument `axis`; "new": as "each", but `axis` is an axis
    of the output; "key": elements that the key of get_item selects; "all": any elements.
    """

    compute: Callable[..., Any]
    along: str = "each"


def floats(x: Any) -> Floats:
    """Return an array, or a number, as float32."""
    array = np.asarray(x)
    return array if array.dtype == np.float32 else array.astype(np.float32)


def truths(x: Any) -> Array:
    """Return where an array is not 0."""
    array = np.asarray(x)
    return array if array.dtype == np.bool_ else array != 0


# ---- element by element


def _of_floats(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *xs: function(*map(floats, xs))


def _add(x: Any, y: Any) -> Any:
    if np.asarray(x).dtype == bool and np.asarray(y).dtype == bool:
        raise ArgumentError(
            "add: the sum of two booleans is logical_or in Keras; write logical_or, or cast them "
            "to float32 to count"
        )
    return np.add(floats(x), floats(y))


def _of_truths(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *xs: function(*map(truths, xs))


def activation_of(name: str, arguments: Mapping[str, Any]) -> Spec:
    """Return the spec of the activation that a function computes with these arguments."""
    record = ACTIVATIONS[name]
    return record.spec(*(record.defaults | dict(arguments)).values()) if arguments else name


def _activation(name: str) -> Callable[..., Any]:
    return lambda x, **arguments: applied(activation_of(name, arguments), floats(x))


def _power(x: Any, exponent: Any) -> Floats:
    """Return x ** exponent, by products and roots; the exponent is a whole number or ±0.5."""
    if np.ndim(exponent) or not math.isfinite(exponent):
        raise ArgumentError(f"power: the exponent must be a finite number, received {exponent!r}")
    base, number = floats(x), float(exponent)
    y: Floats
    if abs(number) == 0.5:
        y = np.sqrt(base)
    elif number != int(number) or abs(number) > 64:
        raise ArgumentError(
            f"power: the exponent must be a whole number from -64 to 64, or ±0.5, received "
            f"{exponent!r}; write exp(exponent * log(x)) for x > 0"
        )
    else:
        factors, whole = [], abs(int(number))
        while whole:
            if whole % 2:
                factors.append(base)
            base, whole = base * base, whole // 2
        y = reduce(np.multiply, factors, np.ones_like(floats(x)))
    if number < 0:
        y = np.float32(1) / y
    return y


def _log1p(x: Any) -> Floats:
    x = floats(x)
    above = np.float32(1) + x  # Kahan: the quotient undoes the rounding of this sum
    with np.errstate(all="ignore"):
        y = applied("log", above) * (x / (above - np.float32(1)))
    return floats(np.where((above == 1) | (x == np.inf), x, y))


def _gelu(x: Any, approximate: bool = True) -> Floats:
    if not approximate:
        return applied("gelu", floats(x))
    x = floats(x)
    inner = np.float32(0.7978845608) * (x + np.float32(0.044715) * x * x * x)
    y: Floats = np.float32(0.5) * x * (np.float32(1) + applied("tanh", inner))
    return y


def _matmul(x: Any, y: Any) -> Floats:
    x, y = floats(x), floats(y)
    if not 2 <= y.ndim <= x.ndim <= 3 or x.shape[-1] != y.shape[-2]:
        raise ValueError("matmul needs (batch, …, n) and numbers (n, m) or a tensor (batch, n, m)")
    rows = x if x.ndim == 3 else x[:, None]
    z = dense.products(rows, np.broadcast_to(y, (len(x), *y.shape[-2:])))
    return z.reshape(*x.shape[:-1], y.shape[-1])


def _cast(x: Any, dtype: str = "float32") -> Array:
    if dtype == "bool":
        return truths(x)
    if dtype == "float32":
        return floats(x)
    if dtype in ("int32", "int64"):
        return np.asarray(x).astype(dtype)
    raise ArgumentError(f"cast: dtype must be float32, int32, int64 or bool, received {dtype!r}")


def _clip(x: Any, x_min: float, x_max: float) -> Floats:
    return np.minimum(np.maximum(floats(x), np.float32(x_min)), np.float32(x_max))


# ---- along an axis


def _total(x: Any, axis: Any, keepdims: bool) -> Any:
    """Return the sum in float64, added from first to last, and the number of elements."""
    x = np.asarray(floats(x))
    numbers = range(x.ndim) if axis is None else np.atleast_1d(axis).tolist()
    axes = sorted({a % x.ndim for a in numbers})
    kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    rest = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    number = math.prod(x.shape[a] for a in axes)
    rows = np.moveaxis(x, axes, range(len(axes))).reshape(number, *rest)
    total = np.zeros(rest, np.float64)
    for row in rows:
        total = total + row
    return (total.reshape(kept) if keepdims else total), len(rows)


def _sum(x: Any, axis: Any = None, keepdims: bool = False) -> Floats:
    return np.asarray(_total(x, axis, keepdims)[0], np.float32)


def _mean(x: Any, axis: Any = None, keepdims: bool = False) -> Floats:
    total, number = _total(x, axis, keepdims)
    return np.asarray(total / number, np.float32)


def _var(x: Any, axis: Any = None, keepdims: bool = False) -> Floats:
    centered = floats(x) - _mean(x, axis, keepdims=True)
    return _mean(centered * centered, axis, keepdims)


def _extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    def compute(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Floats:
        options = {}
        if initial is not None:
            if np.ndim(initial) or np.asarray(initial).dtype.kind not in "fiub":
                raise ArgumentError(f"max, min: initial must be a number, received {initial!r:.60}")
            options["initial"] = np.float32(initial)
        reduced = function(floats(x), axis=_axes(axis), keepdims=keepdims, **options)
        return np.asarray(reduced + np.float32(0))  # NumPy may return 0 or -0: make both 0

    return compute


def _quantifier(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis=None, keepdims=False: np.asarray(
        function(truths(x), axis=_axes(axis), keepdims=keepdims)
    )


def _axes(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def _normalize(x: Any, axis: Any = -1, order: int = 2, epsilon: float = 1e-7) -> Floats:
    if order != 2:
        raise ArgumentError(f"normalize: order must be 2, received {order!r}")
    norm = np.sqrt(_sum(np.square(floats(x)), axis, keepdims=True))
    return floats(floats(x) / np.maximum(norm, np.float32(epsilon)))


def _log_softmax(x: Any, axis: int = -1) -> Floats:
    x = floats(x)
    below = x - np.max(x, axis=axis, keepdims=True)
    y: Floats = below - applied("log", _sum(applied("exponential", below), axis, keepdims=True))
    return y


# ---- shapes


def _of_rows(function: Callable[..., Array]) -> Callable[..., Array]:
    def compute(x: Any, **arguments: Any) -> Array:
        y = function(x, **arguments)
        if np.ndim(y) != np.ndim(x) or len(y) != len(x):
            raise ArgumentError(
                f"pad, tile: the first axis is the batch, which must stay as it is: {arguments}"
            )
        return y

    return compute


def _of_one_type(xs: Sequence[Any]) -> list[Array]:
    arrays = [np.asarray(x) for x in xs]
    same = len({array.dtype for array in arrays}) == 1
    return arrays if same else [floats(array) for array in arrays]


_OF_FLOATS = [
    np.absolute, np.ceil, np.equal, np.floor, np.floor_divide, np.greater, np.greater_equal,
    np.isnan, np.less, np.less_equal, np.maximum, np.minimum, np.multiply, np.negative,
    np.not_equal, np.sign, np.sqrt, np.square, np.subtract,
]  # fmt: skip
"""Functions that NumPy has under the same names."""

ARRAY_FUNCTIONS: dict[str, Function] = {
    **{name: Function(_activation(name)) for name in ACTIVATIONS},
    **{function.__name__: Function(_of_floats(function)) for function in _OF_FLOATS},
    "add": Function(_add),
    "all": Function(_quantifier(np.all), "axis"),
    "argmax": Function(
        lambda x, axis=None, **kept: np.int32(np.argmax(floats(x), axis, **kept)), "axis"
    ),
    "any": Function(_quantifier(np.any), "axis"),
    "cast": Function(_cast),
    "clip": Function(_clip),
    "concatenate": Function(lambda *xs, axis=-1: np.concatenate(_of_one_type(xs), axis), "axis"),
    "cumsum": Function(
        lambda x, axis=None: np.cumsum(floats(x), axis, np.float64).astype(np.float32), "axis"
    ),
    "exp": Function(_activation("exponential")),
    "expand_dims": Function(lambda x, axis: np.expand_dims(np.asarray(x), axis), "new"),
    "flip": Function(lambda x, axis=None: np.flip(np.asarray(x), axis), "axis"),
    "gelu": Function(_gelu),
    "get_item": Function(lambda x, key: np.asarray(np.asarray(x)[tuple(key)]), "key"),
    "log1p": Function(_log1p),
    "log_softmax": Function(_log_softmax, "axis"),
    "logical_and": Function(_of_truths(np.logical_and)),
    "logical_not": Function(_of_truths(np.logical_not)),
    "logical_or": Function(_of_truths(np.logical_or)),
    "matmul": Function(_matmul, "all"),
    "max": Function(_extreme(np.max), "axis"),
    "mean": Function(_mean, "axis"),
    "min": Function(_extreme(np.min), "axis"),
    "mod": Function(_of_floats(np.mod)),
    "normalize": Function(_normalize, "axis"),
    "one_hot": Function(
        lambda x, num_classes, axis=-1: np.moveaxis(
            floats(np.asarray(x)[..., None] == np.arange(num_classes)), -1, axis
        ),
        "new",
    ),
    "ones_like": Function(lambda x: np.ones_like(floats(x))),
    "pad": Function(_of_rows(np.pad), "all"),
    "power": Function(_power),
    "repeat": Function(lambda x, repeats, axis=None: np.repeat(x, repeats, axis=axis), "axis"),
    "reshape": Function(
        lambda x, newshape: np.reshape(np.asarray(x), [-1 if n is None else n for n in newshape]),
        "all",
    ),
    "roll": Function(lambda x, shift, axis=None: np.roll(np.asarray(x), shift, axis), "axis"),
    "rsqrt": Function(lambda x: np.float32(1) / np.sqrt(floats(x))),
    "softmax": Function(partial(compute_over, "softmax"), "axis"),
    "squeeze": Function(lambda x, axis=None: np.squeeze(np.asarray(x), axis=_axes(axis)), "axis"),
    "stack": Function(lambda *xs, axis=0: np.stack(_of_one_type(xs), axis=axis), "new"),
    "std": Function(lambda x, **over: np.asarray(np.sqrt(_var(x, **over))), "axis"),
    "sum": Function(_sum, "axis"),
    "take": Function(lambda x, indices, axis=None: np.take(x, indices, axis), "axis"),
    "tile": Function(_of_rows(lambda x, repeats: np.tile(x, repeats)), "all"),
    "transpose": Function(lambda x, axes=None: np.transpose(np.asarray(x), axes), "all"),
    "true_divide": Function(_of_floats(np.true_divide)),
    "var": Function(_var, "axis"),
    "where": Function(lambda chosen, x1, x2: np.where(truths(chosen), floats(x1), floats(x2))),
    "zeros_like": Function(lambda x: np.zeros_like(floats(x))),
}
