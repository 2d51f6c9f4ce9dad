"""Functions of vectors, declared without the compiler: instructions, and elementary functions.

`vector` tells Numba what they are, when a kernel calls one. Elementary functions are computed by
polynomials and at most two divisions. Errors in ulp are the largest over all float32, of which
tests/nn/kernels/test_functions.py takes a sample. NaN stays NaN everywhere; infinities give the
limit (tanh: within two ulp), except where the formula itself has none.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Inlined: TypeAlias = Callable[..., Any]
"""A function that only kernels call: what it takes and returns is a matter of Numba's types."""


class Inline:
    """A Python function, and Numba's dispatcher: None until a kernel calls the function."""

    def __init__(self, function: Inlined) -> None:
        self.function = function
        self.dispatcher: Any = None


class Instruction:
    """The function of this name in `vector`."""

    def __init__(self, name: str) -> None:
        self.name = name


def inline(function: Inlined) -> Inlined:
    """Declare a building block of kernels."""
    block: Any = Inline(function)
    return block  # type: ignore[no-any-return]


def _instruction(name: str) -> Inlined:
    instruction: Any = Instruction(name)
    return instruction  # type: ignore[no-any-return]


absolute = _instruction("absolute")
exponent = _instruction("exponent")
fma = _instruction("fma")
mantissa = _instruction("mantissa")
power_of_two = _instruction("power_of_two")
square_root = _instruction("square_root")
where_at_most = _instruction("where_at_most")
where_less = _instruction("where_less")

ROUND = 12582912.0  # 1.5 * 2**23: adding and subtracting it rounds to an integer
SMALLEST_NORMAL = 2.0**-126
LOG2_E, LN2_HIGH, LN2_LOW = 1.44269504, 0.693359375, -2.12194440e-4


@inline
def positive(x):
    """Return max(x, 0)."""
    return where_less(x, 0.0, 0.0, x)


@inline
def _exp_near_zero(r):
    """Return e**r for |r| <= ln(2)/2. Coefficients as in Cephes' expf."""
    p = fma(r, 1.9875691500e-4, 1.3981999507e-3)
    p = fma(p, r, 8.3334519073e-3)
    p = fma(p, r, 4.1665795894e-2)
    p = fma(p, r, 1.6666665459e-1)
    p = fma(p, r, 5.0000001201e-1)
    return fma(p, r * r, r) + 1.0


@inline
def exp(x):
    """Return e**x within 1.02 ulp, from zero below -103.97 to infinity above 88.72."""
    x = where_less(x, -104.0, -104.0, x)
    x = where_less(89.0, x, 89.0, x)
    whole = fma(x, LOG2_E, ROUND) - ROUND
    p = _exp_near_zero(fma(whole, -LN2_LOW, fma(whole, -LN2_HIGH, x)))
    half = fma(whole, 0.5, ROUND) - ROUND  # in two steps: 2**128 and 2**-149 are not normal floats
    return p * power_of_two(half) * power_of_two(whole - half)


@inline
def exp_negative(a):
    """Return e**-a for a >= 0 within 1.02 ulp; a result below 2**-126 is zero, to save a step."""
    a = where_less(88.0, a, 88.0, a)
    whole = fma(a, -LOG2_E, ROUND) - ROUND
    p = _exp_near_zero(fma(whole, -LN2_LOW, fma(whole, -LN2_HIGH, -a)))
    return p * power_of_two(whole)


@inline
def sigmoid(x):
    """Return 1 / (1 + exp(-x)) within 2.41 ulp, in [0, 1]; a result below 2**-126 is zero."""
    e = exp_negative(absolute(x))
    return where_less(x, 0.0, e, 1.0) / (1.0 + e)


@inline
def tanh(x):
    """Return tanh(x) within 5.12 ulp.

    It is an odd rational function of degree 9 over 8 with the smallest relative error on [0, 8.3].
    From 8.3 on, and at infinity, it is 0.99999988, two ulp below 1. Below 8.3, rounding gives 1 for
    some floats, and for 116 floats from 8.2 on it gives the largest value, 1.0000001.
    """
    x = where_less(x, -8.3, -8.3, x)
    x = where_less(8.3, x, 8.3, x)
    s = x * x
    p = fma(s, 1.4711360984415627e-08, 2.1555258483953252e-05)
    p = fma(p, s, 3.5520820845323783e-03)
    p = fma(p, s, 1.3428352250116457e-01)
    q = fma(s, 8.321262757240588e-07, 3.3786608010638315e-04)
    q = fma(q, s, 2.6091118523734486e-02)
    q = fma(q, s, 4.6761679897394154e-01)
    return fma(x * s, p, x) / fma(q, s, 1.0)


@inline
def expm1_of_negative(x):
    """Return e**x - 1 for x <= 0, by tanh: small values keep their precision."""
    t = tanh(0.5 * x)
    return (t + t) / (1.0 - t)


@inline
def log1p_of_fraction(e):
    """Return log(1 + e) for 0 <= e <= 1: twice the series of atanh at e / (2 + e)."""
    s = e / (2.0 + e)
    u = s * s
    p = fma(u, 2 / 15, 2 / 13)
    p = fma(p, u, 2 / 11)
    p = fma(p, u, 2 / 9)
    p = fma(p, u, 2 / 7)
    p = fma(p, u, 2 / 5)
    p = fma(p, u, 2 / 3)
    return fma(p * u, s, s + s)


@inline
def log(x):
    """Return the logarithm of positive normal floats. Coefficients as in Cephes' logf."""
    e, m = exponent(x), mantissa(x)
    e = where_less(1.41421356, m, e + 1.0, e)
    m = where_less(1.41421356, m, 0.5 * m, m) - 1.0
    p = fma(m, 7.0376836292e-2, -1.1514610310e-1)
    p = fma(p, m, 1.1676998740e-1)
    p = fma(p, m, -1.2420140846e-1)
    p = fma(p, m, 1.4249322787e-1)
    p = fma(p, m, -1.6668057665e-1)
    p = fma(p, m, 2.0000714765e-1)
    p = fma(p, m, -2.4999993993e-1)
    p = fma(p, m, 3.3333331174e-1)
    s = m * m
    p = fma(e, LN2_LOW, p * m * s)
    finite = fma(e, LN2_HIGH, m + fma(s, -0.5, p))
    return where_less(x, np.inf, finite, x)


@inline
def log_of_any(x):
    """Return the logarithm of any float: NaN below zero, -inf at zero."""
    scaled = log(where_less(x, SMALLEST_NORMAL, x * 2.0**24, x))
    y = where_less(x, SMALLEST_NORMAL, scaled - 16.635532, scaled)  # 24 * log(2)
    return where_less(0.0, x, y, where_less(x, 0.0, np.nan, x - np.inf))


@inline
def erfc_of_positive(z):
    """Return erfc(z) for z >= 0. Source: Numerical Recipes, erfcc (Chebyshev fit in t)."""
    t = 1.0 / fma(z, 0.5, 1.0)
    p = fma(t, 0.17087277, -0.82215223)
    p = fma(p, t, 1.48851587)
    p = fma(p, t, -1.13520398)
    p = fma(p, t, 0.27886807)
    p = fma(p, t, -0.18628806)
    p = fma(p, t, 0.09678418)
    p = fma(p, t, 0.37409196)
    p = fma(p, t, 1.00002368)
    p = fma(p, t, -1.26551223)
    return t * exp(fma(-z, z, p))
