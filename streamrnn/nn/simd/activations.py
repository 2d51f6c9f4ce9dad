"""Activations with their parameters and, except for a few, their derivatives. Needs no compiler.

To add an activation, write it here, and add its name to `__all__` if layers take it. Where Keras 3
has an activation, its name and formula are Keras's; parameters are constants of the compiled code.
NaN stays NaN; infinities give the limit, except where the formula has no value there: silu, gelu
and mish of -inf, softsign of both infinities, and 0 times an infinity, are NaN.
leaky_relu with negative_slope=0 computes this product at -inf, as in Keras; so does relu with
negative_slope=0 and a max_value or a threshold, for which Keras gives 0.

At a kink, relu and its variants have the derivative from the left, as in Keras on JAX; at the ends
of a clipped range the derivative is zero.
"""

from math import inf

from streamrnn.nn.simd import functions
from streamrnn.nn.simd.functions import (
    Inlined,
    absolute,
    erfc_of_positive,
    exp,
    exp_negative,
    expm1_of_negative,
    fma,
    inline,
    log1p_of_fraction,
    log_of_any,
    positive,
    square_root,
    where_at_most,
    where_less,
)
from streamrnn.nn.simd.names import ACTIVATIONS, Spec, activation, split_spec, unclipped

__all__: tuple[str, ...] = (
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_sigmoid_02",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "mish",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "squareplus",
    "tanh",
    "tanh_shrink",
)


@activation()
def linear(x):
    """Return x."""
    return x


@linear.derivative("value")
def _(y):
    return where_less(y, y, y, 1.0)


@activation()
def tanh(x):
    """Return the hyperbolic tangent."""
    return functions.tanh(x)


@tanh.derivative("value")
def _(y):
    return fma(-y, y, 1.0)


@activation()
def sigmoid(x):
    """Return 1 / (1 + exp(-x))."""
    return functions.sigmoid(x)


@sigmoid.derivative("value")
def _(y):
    return fma(-y, y, y)


@activation()
def relu(x, negative_slope=0.0, threshold=0.0, max_value=inf):
    """Return x up to max_value; negative_slope (x - threshold) at the threshold and below."""
    if negative_slope == 0 and threshold == 0 and max_value == inf:
        return positive(x)
    floor = 0.0 if max_value < inf else -inf  # Keras clips to 0…max_value, or not at all
    high = where_less(max_value, x, max_value, x)
    high = where_less(high, floor, floor, high)
    return where_at_most(x, threshold, negative_slope * (x - threshold), high)


@relu.derivative("value", least=0)
def _(y, negative_slope, threshold, max_value):
    if negative_slope == 0 and threshold == 0 and max_value == inf:
        return where_less(0.0, y, 1.0, 0.0)
    return where_less(0.0, y, where_less(y, max_value, 1.0, 0.0), negative_slope)


@activation()
def softplus(x):
    """Return log(1 + exp(x))."""
    return positive(x) + log1p_of_fraction(exp_negative(absolute(x)))


@softplus.derivative("value")
def _(y):
    return 1.0 - exp_negative(y)


@activation()
def softsign(x):
    """Return x / (1 + |x|)."""
    return x / (1.0 + absolute(x))


@softsign.derivative("value")
def _(y):
    rest = 1.0 - absolute(y)
    return rest * rest


@activation()
def silu(x):
    """Return x sigmoid(x); also called swish."""
    return x * functions.sigmoid(x)


@silu.derivative("input")
def _(x):
    s = functions.sigmoid(x)
    return fma(fma(-s, s, s), x, s)


@inline
def _twice_gelu_angle(x):
    """Return 2 sqrt(2 / pi) (x + 0.044715 x**3)."""
    return 1.5957691216 * fma(0.044715 * x, x * x, x)


@activation()
def gelu(x, approximate=False):
    """Return x Phi(x), where Phi is the standard normal distribution; approximate: by tanh."""
    if approximate:  # (1 + tanh(u)) / 2 is sigmoid(2 u), without the cancellation
        return x * functions.sigmoid(_twice_gelu_angle(x))
    tail = 0.5 * erfc_of_positive(0.70710678 * absolute(x))
    return x * where_less(x, 0.0, tail, 1.0 - tail)


@gelu.derivative("input")
def _(x, approximate):
    if approximate:
        s = functions.sigmoid(_twice_gelu_angle(x))
        steep = 1.5957691216 * fma(0.134145 * x, x, 1.0)
        return fma(fma(-s, s, s) * steep, x, s)
    tail = 0.5 * erfc_of_positive(0.70710678 * absolute(x))
    density = 0.3989422804 * exp(-0.5 * (x * x))
    return fma(x, density, where_less(x, 0.0, tail, 1.0 - tail))


@activation()
def mish(x):
    """Return x tanh(log(1 + exp(x)))."""
    return x * functions.tanh(softplus(x))


@mish.derivative("input")
def _(x):
    t, s = functions.tanh(softplus(x)), functions.sigmoid(x)
    return fma(fma(-t, t, 1.0) * s, x, t)


@activation()
def exponential(x):
    """Return exp(x)."""
    return exp(x)


@exponential.derivative("value")
def _(y):
    return y


@activation()
def log(x):
    """Return the logarithm: NaN below zero, -inf at zero."""
    return log_of_any(x)


@activation()
def erf(x):
    """Return the error function."""
    size = 1.0 - erfc_of_positive(absolute(x))
    return where_less(x, 0.0, -size, size)


@activation(bounds="greater than 0")
def celu(x, alpha=1.0):
    """Return x where x > 0, else alpha (exp(x / alpha) - 1); alpha > 0."""
    down = alpha * expm1_of_negative(where_less(0.0, x, 0.0, x) / alpha)
    return where_less(x, 0.0, down, x)


@celu.derivative("value")
def _(y, alpha):
    return where_less(0.0, y, 1.0, fma(y, 1.0 / alpha, 1.0))


@activation(bounds="0 or more")
def hard_shrink(x, threshold=0.5):
    """Return x where |x| > threshold, else 0."""
    return where_at_most(absolute(x), threshold, 0.0, x)


def _of_shrink(y, threshold):
    return where_less(0.0, absolute(y), 1.0, 0.0)


hard_shrink.derivative("value")(_of_shrink)


@activation()
def hard_silu(x):
    """Return x clip(x / 6 + 0.5, 0, 1); also called hard_swish."""
    return where_less(x, -3.0, 0.0, x * _ramp(x, 1 / 6, 0.5))


@hard_silu.derivative("input")
def _(x):
    middle = where_less(x, 3.0, fma(x, 1 / 3, 0.5), 1.0)
    return where_less(-3.0, x, middle, 0.0)


@activation()
def hard_tanh(x):
    """Return clip(x, -1, 1)."""
    x = where_less(x, -1.0, -1.0, x)
    return where_less(1.0, x, 1.0, x)


@hard_tanh.derivative("value")
def _(y):
    return where_less(absolute(y), 1.0, 1.0, 0.0)


@activation()
def log_sigmoid(x):
    """Return log(1 / (1 + exp(-x)))."""
    return -softplus(-x)


@log_sigmoid.derivative("value")
def _(y):
    return 1.0 - exp_negative(-y)


@activation(bounds="0 or more")
def soft_shrink(x, threshold=0.5):
    """Return x - threshold where x > threshold, x + threshold where x < -threshold, else 0."""
    return x - where_less(x, -threshold, -threshold, where_less(threshold, x, threshold, x))


soft_shrink.derivative("value")(_of_shrink)


@activation()
def sparse_plus(x):
    """Return (x + 1)^2 / 4 where -1 < x < 1, 0 below, x above."""
    half = fma(where_less(x, -1.0, -1.0, x), 0.5, 0.5)
    return where_less(x, 1.0, half * half, x)


@sparse_plus.derivative("input")
def _(x):
    return _ramp(x, 0.5, 0.5)


@activation()
def sparse_sigmoid(x):
    """Return clip(0.5 x + 0.5, 0, 1)."""
    return _ramp(x, 0.5, 0.5)


@sparse_sigmoid.derivative("value")
def _(y):
    return where_less(0.0, y, where_less(y, 1.0, 0.5, 0.0), 0.0)


@activation(bounds="0 or more")
def squareplus(x, b=4.0):
    """Return (x + sqrt(x^2 + b)) / 2."""
    total = absolute(x) + square_root(fma(x, x, b))
    return where_less(x, 0.0, (0.5 * b) / total, 0.5 * total)


@squareplus.derivative("value")
def _(y, b):
    return 1.0 / (1.0 + (0.25 * b) / (y * y))


@activation()
def tanh_shrink(x):
    """Return x - tanh(x)."""
    return x - functions.tanh(x)


@tanh_shrink.derivative("input")
def _(x):
    t = functions.tanh(x)
    return t * t


@activation()
def threshold(x, threshold=0.0, default_value=0.0):
    """Return x where x > threshold, else default_value."""
    return where_at_most(x, threshold, default_value, x)


@threshold.derivative("input")
def _(x, threshold, default_value):
    return where_less(threshold, x, 1.0, 0.0)


@activation(arguments=0)
def relu6(x, max_value=6.0):
    """Return min(max(x, 0), 6)."""
    x = positive(x)
    return where_less(max_value, x, max_value, x)


@relu6.derivative("value")
def _(y, max_value):
    return where_less(0.0, y, where_less(y, max_value, 1.0, 0.0), 0.0)


@activation()
def leaky_relu(x, negative_slope=0.2):
    """Return x where x >= 0, else negative_slope x."""
    return where_less(x, 0.0, negative_slope * x, x)


@leaky_relu.derivative("value", least=0)
def _(y, negative_slope):
    return where_less(0.0, y, 1.0, negative_slope)


@inline
def _elu(x, alpha, scale):
    down = (scale * alpha) * expm1_of_negative(where_less(0.0, x, 0.0, x))
    return where_less(x, 0.0, down, scale * x)


def _of_elu(y, alpha, scale):
    return where_less(0.0, y, scale, y + scale * alpha)


@activation(arguments=1)
def elu(x, alpha=1.0, scale=1.0):
    """Return x where x > 0, else alpha (exp(x) - 1)."""
    return _elu(x, alpha, scale)


elu.derivative("value", least=0)(_of_elu)


@activation(arguments=0)
def selu(x, alpha=1.6732632423543772, scale=1.0507009873554805):
    """Return 1.0507 x where x > 0, else 1.0507 * 1.6733 (exp(x) - 1)."""
    return _elu(x, alpha, scale)


selu.derivative("value")(_of_elu)


@inline
def _ramp(x, alpha, beta):
    """Return alpha * x + beta, limited to [0, 1]."""
    x = positive(fma(x, alpha, beta))
    return where_less(1.0, x, 1.0, x)


def _of_ramp(y, alpha, beta):
    return where_less(0.0, y, where_less(y, 1.0, alpha, 0.0), 0.0)


@activation(arguments=0)
def hard_sigmoid(x, alpha=1 / 6, beta=0.5):
    """Return clip(x / 6 + 0.5, 0, 1), as in Keras 3."""
    return _ramp(x, alpha, beta)


hard_sigmoid.derivative("value")(_of_ramp)


@activation(arguments=0)
def hard_sigmoid_02(x, alpha=0.2, beta=0.5):
    """Return clip(0.2 x + 0.5, 0, 1), as in Keras 2 and ONNX."""
    return _ramp(x, alpha, beta)


hard_sigmoid_02.derivative("value")(_of_ramp)


@activation()
def scaled_tanh(x, alpha=1.0, beta=1.0):
    """Return alpha tanh(beta x)."""
    return alpha * functions.tanh(beta * x)


@activation()
def affine(x, alpha=1.0, beta=0.0):
    """Return alpha x + beta."""
    return fma(x, alpha, beta)


@activation()
def thresholded_relu(x, alpha=1.0):
    """Return x where x >= alpha, else 0."""
    return where_less(x, alpha, 0.0, x)


def function_of(spec: Spec) -> Inlined:
    """Return the vector function of an activation, given its name or (name, parameter, ...)."""
    limit, spec = unclipped(spec)
    name, numbers = split_spec(spec)
    function = _with(ACTIVATIONS[name], numbers)
    if limit is None:
        return function
    return inline(lambda x: function(where_less(x, -limit, -limit, where_less(limit, x, limit, x))))


def derivative_of(spec: Spec) -> Inlined:
    """Return the derivative of an activation as a function of its `derivative_source`."""
    name, numbers = split_spec(spec)
    slope = ACTIVATIONS[name].slope
    assert slope is not None
    return _with(slope, numbers)


def _with(function: Inlined, numbers: tuple[float, ...]) -> Inlined:
    """Return a function of vectors with its parameters as constants."""
    return inline(lambda x: function(x, *numbers)) if numbers else function
