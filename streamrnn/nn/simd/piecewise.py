"""Activations whose pieces are polynomials. Formulas are those of Keras 3; NaN stays NaN.

Parameters are constants of the compiled code.
"""

import numpy as np

from streamrnn.nn.simd.jit import Inlined, inline
from streamrnn.nn.simd.vector import absolute, fma, where_less


@inline
def relu(x):
    """Return max(x, 0)."""
    return where_less(x, 0.0, 0.0, x)


def relu_with(negative_slope: float, threshold: float, max_value: float) -> Inlined:
    """Make x up to max_value; negative_slope * (x - threshold) at the threshold and below."""
    if (negative_slope, threshold, max_value) == (0, 0, np.inf):
        return relu
    above = _next(threshold)
    floor = 0.0 if max_value < np.inf else -np.inf  # Keras clips to 0…max_value, if to anything

    @inline
    def bent(x):
        high = where_less(max_value, x, max_value, x)
        high = where_less(high, floor, floor, high)
        return where_less(x, above, negative_slope * (x - threshold), high)

    return bent


def relu_up_to(top: float) -> Inlined:
    """Make relu, limited to `top`."""

    @inline
    def clipped(x):
        x = where_less(x, 0.0, 0.0, x)
        return where_less(top, x, top, x)

    return clipped


def leaky_relu(slope: float) -> Inlined:
    """Make relu with a slope below zero."""

    @inline
    def leaky(x):
        return where_less(x, 0.0, slope * x, x)

    return leaky


def hard_sigmoid(alpha: float, beta: float) -> Inlined:
    """Make alpha * x + beta, limited to [0, 1]."""

    @inline
    def ramp(x):
        x = fma(x, alpha, beta)
        x = where_less(x, 0.0, 0.0, x)
        return where_less(1.0, x, 1.0, x)

    return ramp


def thresholded_relu(alpha: float) -> Inlined:
    """Make x, zero below alpha."""

    @inline
    def cut(x):
        return where_less(x, alpha, 0.0, x)

    return cut


@inline
def hard_tanh(x):
    """Return x, limited to [-1, 1]."""
    x = where_less(x, -1.0, -1.0, x)
    return where_less(1.0, x, 1.0, x)


_SIXTH = hard_sigmoid(1 / 6, 0.5)


@inline
def hard_silu(x):
    """Return x * hard_sigmoid(x), zero below -3."""
    return where_less(x, -3.0, 0.0, x * _SIXTH(x))


@inline
def sparse_plus(x):
    """Return (x + 1)**2 / 4 between -1 and 1, zero below, x above."""
    half = fma(where_less(x, -1.0, -1.0, x), 0.5, 0.5)
    return where_less(x, 1.0, half * half, x)


def hard_shrink(limit: float) -> Inlined:
    """Make x, zero from -limit to limit."""
    outside = _next(limit)

    @inline
    def cut(x):
        return where_less(absolute(x), outside, 0.0, x)

    return cut


def soft_shrink(limit: float) -> Inlined:
    """Make x less what is in -limit to limit of it."""

    @inline
    def shrunk(x):
        return x - where_less(x, -limit, -limit, where_less(limit, x, limit, x))

    return shrunk


def threshold(limit: float, default_value: float) -> Inlined:
    """Make x, default_value at the limit and below."""
    above = _next(limit)

    @inline
    def cut(x):
        return where_less(x, above, default_value, x)

    return cut


def _next(limit: float) -> float:
    """Return the float32 above a limit: x < it where x <= limit, and nowhere for NaN."""
    return float(np.nextafter(np.float32(limit), np.float32(np.inf)))
