"""The functions of keras.ops that recurrent models use, on arrays and on symbols.

On symbols, each function adds an `Operation` to the graph, as operators do: `x * 2`, `x[:, -1]`.
Functions that compute return float32; comparisons and logical functions return bool, and `cast`
returns the dtype that it is passed. Some other functions exist as layers.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from streamrnn.errors import ArgumentError
from streamrnn.nn.layers.operation import get_item, operate

__all__ = [
    "abs", "absolute", "add", "all", "any", "argmax", "cast", "ceil", "clip", "concatenate",
    "cumsum", "divide", "elu", "equal", "exp", "expand_dims", "flip", "floor", "floor_divide",
    "gelu", "get_item", "greater", "greater_equal", "hard_sigmoid", "isnan", "leaky_relu", "less",
    "less_equal", "log", "log1p", "log_softmax", "logical_and", "logical_not", "logical_or",
    "matmul", "max", "maximum", "mean", "min", "minimum", "mod", "multiply", "negative",
    "normalize", "not_equal", "one_hot", "ones_like", "pad", "power", "relu", "relu6", "repeat",
    "reshape", "roll", "rsqrt", "selu", "sigmoid", "sign", "silu", "softmax", "softplus",
    "softsign", "split", "sqrt", "square", "squeeze", "stack", "std", "subtract", "sum", "swish",
    "take", "tanh", "tile", "transpose", "true_divide", "var", "where", "zeros_like",
]  # fmt: skip


def _documented(name: str, doc: str, function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _binary(name: str, doc: str) -> Callable[[Any, Any], Any]:
    return _documented(name, doc, lambda x1, x2: operate(name, x1, x2))


def _unary(name: str, doc: str) -> Callable[[Any], Any]:
    return _documented(name, doc, lambda x: operate(name, x))


def _over_axes(name: str, doc: str) -> Callable[..., Any]:
    def function(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Any:
        return operate(name, x, axis=axis, keepdims=keepdims)

    return _documented(name, doc, function)


def _along(name: str, doc: str, default: int | None = None) -> Callable[..., Any]:
    def function(x: Any, axis: int | None = default) -> Any:
        return operate(name, x, axis=axis)

    return _documented(name, doc, function)


def _extreme(name: str, doc: str) -> Callable[..., Any]:
    def function(
        x: Any,
        axis: int | Sequence[int] | None = None,
        keepdims: bool = False,
        initial: float | None = None,
    ) -> Any:
        options = {} if initial is None else {"initial": initial}
        return operate(name, x, axis=axis, keepdims=keepdims, **options)

    return _documented(name, doc, function)


add = _binary("add", "x1 + x2")
subtract = _binary("subtract", "x1 - x2")
multiply = _binary("multiply", "x1 * x2")
true_divide = _binary("true_divide", "x1 / x2")
floor_divide = _binary("floor_divide", "The largest whole number not above x1 / x2.")
mod = _binary("mod", "The remainder of floor_divide, with the sign of x2.")
power = _binary("power", "x1 ** x2; x2 is a whole number from -64 to 64, or ±0.5.")
matmul = _binary("matmul", "The matrix product x1 @ x2 for each row of the batch.")
maximum = _binary("maximum", "The larger of the two.")
minimum = _binary("minimum", "The smaller of the two.")
equal = _binary("equal", "x1 == x2 (bool).")
not_equal = _binary("not_equal", "x1 != x2 (bool).")
greater = _binary("greater", "x1 > x2 (bool).")
greater_equal = _binary("greater_equal", "x1 >= x2 (bool).")
less = _binary("less", "x1 < x2 (bool).")
less_equal = _binary("less_equal", "x1 <= x2 (bool).")
logical_and = _binary("logical_and", "Whether neither is 0 (bool).")
logical_or = _binary("logical_or", "Whether at least one is not 0 (bool).")
absolute = _unary("absolute", "|x|")
ceil = _unary("ceil", "The smallest whole number not below x.")
exp = _unary("exp", "The exponential.")
floor = _unary("floor", "The largest whole number not above x.")
hard_sigmoid = _unary("hard_sigmoid", "clip(x / 6 + 0.5, 0, 1)")
log = _unary("log", "The natural logarithm; -inf for 0, NaN below 0.")
logical_not = _unary("logical_not", "Whether x is 0 (bool).")
negative = _unary("negative", "-x")
ones_like = _unary("ones_like", "An array of ones in the shape of x.")
relu = _unary("relu", "max(x, 0)")
relu6 = _unary("relu6", "min(max(x, 0), 6)")
rsqrt = _unary("rsqrt", "1 / sqrt(x)")
selu = _unary("selu", "1.0507 x where x > 0, else 1.7581 (exp(x) - 1).")
sigmoid = _unary("sigmoid", "1 / (1 + exp(-x))")
sign = _unary("sign", "The sign of x: -1, 0 or 1.")
silu = _unary("silu", "x sigmoid(x)")
softplus = _unary("softplus", "log(1 + exp(x))")
softsign = _unary("softsign", "x / (1 + |x|)")
sqrt = _unary("sqrt", "The square root.")
square = _unary("square", "x * x")
tanh = _unary("tanh", "The hyperbolic tangent.")
isnan = _unary("isnan", "Whether x is NaN (bool).")
log1p = _unary("log1p", "The logarithm of 1 + x, precise near 0.")
zeros_like = _unary("zeros_like", "An array of zeros in the shape of x.")
cumsum = _along("cumsum", "The sum of the values up to each place along an axis.")
flip = _along("flip", "The values in reverse order along an axis; None: along all.")
softmax = _along("softmax", "exp(x) / sum of exp(x) along an axis.", -1)
log_softmax = _along("log_softmax", "The logarithm of softmax.", -1)
argmax = _over_axes("argmax", "The index of the largest value along an axis (int32).")
sum = _over_axes("sum", "The sum over an axis, or several.")
mean = _over_axes("mean", "The mean over an axis, or several.")
var = _over_axes("var", "The variance over an axis, or several.")
std = _over_axes("std", "The standard deviation over an axis, or several.")
max = _extreme("max", "The largest value over an axis, or several; at least `initial`.")
min = _extreme("min", "The smallest value over an axis, or several; at most `initial`.")
any = _over_axes("any", "Whether any value over an axis, or several, is not 0 (bool).")
all = _over_axes("all", "Whether no value over an axis, or several, is 0 (bool).")
abs = absolute
divide = true_divide
swish = silu


def cast(x: Any, dtype: str) -> Any:
    """Return x as "float32", "int32", "int64" or "bool"."""
    return operate("cast", x, dtype=dtype)


def clip(x: Any, x_min: float, x_max: float) -> Any:
    """Return x limited to x_min … x_max."""
    return operate("clip", x, x_min=x_min, x_max=x_max)


def concatenate(xs: Sequence[Any], axis: int = 0) -> Any:
    """Join tensors along an axis, one after the other."""
    return operate("concatenate", *xs, axis=axis)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """Return x where x > 0, else alpha (exp(x) - 1)."""
    return operate("elu", x, alpha=alpha)


def expand_dims(x: Any, axis: int | Sequence[int]) -> Any:
    """Return x with a new axis of size 1, or several; `axis` is an axis of the result."""
    return operate("expand_dims", x, axis=axis)


def gelu(x: Any, approximate: bool = True) -> Any:
    """Return x Phi(x), where Phi is the distribution function of the standard normal.

    By default, as in Keras, Phi is approximated by tanh.
    """
    return operate("gelu", x, approximate=approximate)


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """Return x where x >= 0, else negative_slope * x."""
    return operate("leaky_relu", x, negative_slope=negative_slope)


def normalize(x: Any, axis: int | Sequence[int] = -1, order: int = 2, epsilon: float = 1e-7) -> Any:
    """Return x divided by the root of the sum of its squares along an axis, or several."""
    return operate("normalize", x, axis=axis, order=order, epsilon=epsilon)


def one_hot(x: Any, num_classes: int, axis: int = -1) -> Any:
    """Return 1 at the index x of a new axis, and 0 elsewhere."""
    return operate("one_hot", x, num_classes=num_classes, axis=axis)


def pad(x: Any, pad_width: Sequence[Sequence[int]], mode: str = "constant", **value: float) -> Any:
    """Return x with [before, after] more elements along each axis: of constant_values=0, or of x.

    NumPy has other modes, too, such as "reflect".
    """
    return operate("pad", x, pad_width=pad_width, mode=mode, **value)


def repeat(x: Any, repeats: int, axis: int | None = None) -> Any:
    """Return x with each element along an axis `repeats` times; None: of the flattened x."""
    return operate("repeat", x, repeats=repeats, axis=axis)


def reshape(x: Any, newshape: Sequence[int]) -> Any:
    """Return x in another shape, which includes the batch; one entry may be -1."""
    return operate("reshape", x, newshape=newshape)


def roll(x: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Any:
    """Return x moved along an axis; what leaves it at the end comes in at the beginning."""
    return operate("roll", x, shift=shift, axis=axis)


def split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Any]:
    """Return the parts of x along an axis: as many equal ones, or cut before these indices."""
    return [x[key] for key in split_keys(x.shape, indices_or_sections, axis)]


def split_keys(shape: Sequence[int | None], cuts: int | Sequence[int], axis: int) -> list[Any]:
    """Return the index of each part of a tensor of this shape that is split along an axis."""
    if not isinstance(cuts, int):
        bounds: Sequence[int | None] = [0, *cuts, None]
    elif (size := shape[axis]) is None or cuts < 1 or size % cuts:
        raise ArgumentError(f"split: axis {axis} of shape {shape} has no {cuts} equal parts")
    else:
        bounds = range(0, size + 1, size // cuts)
    before = [slice(None)] * (axis % len(shape))
    return [(*before, slice(start, end)) for start, end in pairwise(bounds)]


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """Return x without axes of size 1."""
    return operate("squeeze", x, axis=axis)


def stack(x: Sequence[Any], axis: int = 0) -> Any:
    """Stack tensors of one shape along a new axis."""
    return operate("stack", *x, axis=axis)


def take(x: Any, indices: int | Sequence[int], axis: int | None = None) -> Any:
    """Return the elements of x at these indices along an axis."""
    return operate("take", x, indices=indices, axis=axis)


def tile(x: Any, repeats: Sequence[int]) -> Any:
    """Return x several times one after the other, along each axis as often as `repeats` says."""
    return operate("tile", x, repeats=repeats)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """Return x with its axes in another order; None: in reverse order."""
    return operate("transpose", x, axes=axes)


def where(condition: Any, x1: Any, x2: Any) -> Any:
    """Return x1 where the condition is not 0, else x2."""
    return operate("where", condition, x1, x2)
