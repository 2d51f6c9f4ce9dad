"""Derivatives of the activations: from the value where that determines them, else from the input.

At a kink the derivative is that of the side of smaller inputs for relu and its kind (Keras on JAX),
and zero at the ends of a clipped range.
"""

from collections.abc import Callable

import numpy as np

from streamrnn.nn.simd.functions import (
    erfc_of_positive,
    exp,
    exp_negative,
    sigmoid,
    softplus,
    tanh,
    twice_gelu_angle,
)
from streamrnn.nn.simd.jit import Inlined, inline
from streamrnn.nn.simd.names import Spec, split_spec
from streamrnn.nn.simd.piecewise import hard_sigmoid
from streamrnn.nn.simd.vector import absolute, fma, where_less


@inline
def _of_linear(y):
    return where_less(y, y, y, 1.0)


@inline
def _of_tanh(y):
    return fma(-y, y, 1.0)


@inline
def _of_sigmoid(y):
    return fma(-y, y, y)


@inline
def _of_relu(y):
    return where_less(0.0, y, 1.0, 0.0)


@inline
def _of_softplus(y):
    return 1.0 - exp_negative(y)


@inline
def _of_softsign(y):
    rest = 1.0 - absolute(y)
    return rest * rest


@inline
def _of_exponential(y):
    return y


def _of_relu_with(negative_slope: float, threshold: float, max_value: float) -> Inlined:
    if (negative_slope, threshold, max_value) == (0, 0, np.inf):
        return _of_relu

    @inline
    def slope(y):
        return where_less(0.0, y, where_less(y, max_value, 1.0, 0.0), negative_slope)

    return slope


def _of_relu_up_to(top: float) -> Inlined:
    @inline
    def slope(y):
        return where_less(0.0, y, where_less(y, top, 1.0, 0.0), 0.0)

    return slope


def _of_leaky_relu(negative_slope: float) -> Inlined:
    @inline
    def slope(y):
        return where_less(0.0, y, 1.0, negative_slope)

    return slope


def _of_elu(alpha: float, scale: float) -> Inlined:
    @inline
    def slope(y):
        return where_less(0.0, y, scale, y + scale * alpha)

    return slope


def _of_hard_sigmoid(alpha: float, beta: float) -> Inlined:
    @inline
    def slope(y):
        return where_less(0.0, y, where_less(y, 1.0, alpha, 0.0), 0.0)

    return slope


def _of_celu(alpha: float) -> Inlined:
    @inline
    def slope(y):
        return where_less(0.0, y, 1.0, fma(y, 1.0 / alpha, 1.0))

    return slope


def _of_squareplus(b: float) -> Inlined:
    @inline
    def slope(y):
        return 1.0 / (1.0 + (0.25 * b) / (y * y))

    return slope


def _of_shrink(limit: float) -> Inlined:
    @inline
    def slope(y):
        return where_less(0.0, absolute(y), 1.0, 0.0)

    return slope


@inline
def _of_hard_tanh(y):
    return where_less(absolute(y), 1.0, 1.0, 0.0)


@inline
def _of_log_sigmoid(y):
    return 1.0 - exp_negative(-y)


@inline
def _of_hard_silu(x):
    middle = where_less(x, 3.0, fma(x, 1 / 3, 0.5), 1.0)
    return where_less(-3.0, x, middle, 0.0)


@inline
def _of_tanh_shrink(x):
    t = tanh(x)
    return t * t


def _of_threshold(limit: float, default_value: float) -> Inlined:
    @inline
    def slope(x):
        return where_less(limit, x, 1.0, 0.0)

    return slope


@inline
def _of_silu(x):
    s = sigmoid(x)
    return fma(fma(-s, s, s), x, s)


@inline
def _of_mish(x):
    t, s = tanh(softplus(x)), sigmoid(x)
    return fma(fma(-t, t, 1.0) * s, x, t)


@inline
def _of_exact_gelu(x):
    tail = 0.5 * erfc_of_positive(0.70710678 * absolute(x))
    density = 0.3989422804 * exp(-0.5 * (x * x))
    return fma(x, density, where_less(x, 0.0, tail, 1.0 - tail))


@inline
def _of_gelu_by_tanh(x):
    s = sigmoid(twice_gelu_angle(x))
    steep = 1.5957691216 * fma(0.134145 * x, x, 1.0)
    return fma(fma(-s, s, s) * steep, x, s)


def _of_gelu(approximate: float) -> Inlined:
    return _of_gelu_by_tanh if approximate else _of_exact_gelu


_FROM_VALUE: dict[str, Inlined] = {
    "linear": _of_linear,
    "tanh": _of_tanh,
    "sigmoid": _of_sigmoid,
    "softplus": _of_softplus,
    "softsign": _of_softsign,
    "exponential": _of_exponential,
    "hard_tanh": _of_hard_tanh,
    "log_sigmoid": _of_log_sigmoid,
    "sparse_sigmoid": _of_hard_sigmoid(0.5, 0.5),
}
_MADE_FROM_VALUE: dict[str, Callable[..., Inlined]] = {
    "relu6": _of_relu_up_to,
    "leaky_relu": _of_leaky_relu,
    "elu": _of_elu,
    "selu": _of_elu,
    "hard_sigmoid": _of_hard_sigmoid,
    "hard_sigmoid_02": _of_hard_sigmoid,
    "relu": _of_relu_with,
    "celu": _of_celu,
    "hard_shrink": _of_shrink,
    "soft_shrink": _of_shrink,
    "squareplus": _of_squareplus,
}
_FROM_INPUT: dict[str, Inlined] = {
    "silu": _of_silu,
    "mish": _of_mish,
    "hard_silu": _of_hard_silu,
    "sparse_plus": hard_sigmoid(0.5, 0.5),
    "tanh_shrink": _of_tanh_shrink,
}
_MADE_FROM_INPUT: dict[str, Callable[..., Inlined]] = {
    "gelu": _of_gelu,
    "threshold": _of_threshold,
}


def of_value(spec: Spec) -> Inlined:
    """Return the derivative at the input that gives a value, as a function of that value."""
    name, numbers = split_spec(spec)
    return _FROM_VALUE[name] if name in _FROM_VALUE else _MADE_FROM_VALUE[name](*numbers)


def of_input(spec: Spec) -> Inlined:
    """Return the derivative as a function of the input, for activations without `of_value`."""
    name, numbers = split_spec(spec)
    return _FROM_INPUT[name] if name in _FROM_INPUT else _MADE_FROM_INPUT[name](*numbers)
