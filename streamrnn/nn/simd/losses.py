"""Losses and their derivatives, element by element.

Formulas of Keras 3. `p`: the prediction, `t`: the truth.
"""

import functools

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.activations import softplus
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.functions import (
    exp_negative,
    log,
    log1p_of_fraction,
    positive,
    sigmoid,
    tanh,
)
from streamrnn.nn.simd.jit import Inlined, inline
from streamrnn.nn.simd.vector import absolute, load, make_copy, store, where_less

EPSILON = 1e-7
"""Probabilities are clipped to EPSILON … 1 - EPSILON, as in Keras."""
LN2 = 0.69314718
SMALLEST = 1.1754944e-38
"""The smallest normal float: `log` takes only normal ones."""


@inline
def to_probability(p):
    """Return a probability, clipped to EPSILON … 1 - EPSILON."""
    return where_less(p, EPSILON, EPSILON, where_less(1.0 - EPSILON, p, 1.0 - EPSILON, p))


@inline
def _squared(p, t, q):
    return (p - t) * (p - t), 2.0 * (p - t)


@inline
def _absolute(p, t, q):
    e = p - t
    return absolute(e), where_less(e, 0.0, -1.0, where_less(0.0, e, 1.0, e * 0.0))


def _huber(delta: float) -> Inlined:
    @inline
    def loss(p, t, q):
        e = p - t
        a = absolute(e)
        near = 0.5 * (e * e)
        far = delta * (a - 0.5 * delta)
        slope = where_less(e, 0.0, -delta, delta)
        return where_less(delta, a, far, near), where_less(delta, a, slope, e)

    return loss


@inline
def _binary(p, t, q):
    near = to_probability(p)
    value = -(t * log(near) + (1.0 - t) * log(1.0 - near))
    slope = (1.0 - t) / (1.0 - near) - t / near
    inside = where_less(p, EPSILON, 0.0, where_less(1.0 - EPSILON, p, 0.0, slope))
    return value, inside


@inline
def _binary_of_logits(p, t, q):
    value = positive(p) - p * t + log1p_of_fraction(exp_negative(absolute(p)))
    return value, sigmoid(p) - t


@inline
def _pinball(p, t, q):
    e = t - p
    return where_less(e, 0.0, (q - 1.0) * e, q * e), where_less(e, 0.0, 1.0 - q, -q)


@inline
def _percentage(p, t, q):
    size = absolute(t)
    share = 100.0 / where_less(size, EPSILON, EPSILON, size)
    e = p - t
    slope = where_less(e, 0.0, -share, where_less(0.0, e, share, e * 0.0))
    return absolute(e) * share, slope


@inline
def _squared_logarithm(p, t, q):
    one = 1.0 + where_less(EPSILON, p, p, EPSILON)
    e = log(one) - log(1.0 + where_less(EPSILON, t, t, EPSILON))
    slope = where_less(EPSILON, p, 2.0 * e / one, 0.0 * p)
    return e * e + 0.0 * (p + t), slope  # NaN stays NaN


@inline
def _log_cosh(p, t, q):
    e = p - t
    return e + softplus(-2.0 * e) - LN2, tanh(e)


@inline
def _poisson(p, t, q):
    near = p + EPSILON
    log_near = where_less(near, SMALLEST, where_less(near, 0.0, np.nan, -np.inf), log(near))
    return p - t * log_near, 1.0 - t / near


@inline
def _hinge(p, t, q):
    e = 1.0 - t * p
    return positive(e), where_less(0.0, e, -t, e * 0.0)


@inline
def _squared_hinge(p, t, q):
    e = positive(1.0 - t * p)
    return e * e, -2.0 * t * e


@inline
def _gaussian(p, t, q):
    z = t / p
    return log(p) + 0.5 * (z * z), (1.0 - z * z) / p


_ELEMENTWISE: dict[str, Inlined] = {
    "squared": _squared,
    "absolute": _absolute,
    "binary": _binary,
    "binary_of_logits": _binary_of_logits,
    "pinball": _pinball,
    "percentage": _percentage,
    "squared_logarithm": _squared_logarithm,
    "log_cosh": _log_cosh,
    "poisson": _poisson,
    "hinge": _hinge,
    "squared_hinge": _squared_hinge,
    "gaussian": _gaussian,
}


@functools.cache
def elementwise_entry(name: str, *parameters: float) -> Kernel:
    """Return the kernel of a loss: (p, t, q, value, slope), with the derivative by p in `slope`.

    `q`: the quantile of each element for "pinball", else empty.
    """
    n = jit.width()

    def build() -> Kernel:
        of = _huber(*parameters) if name == "huber" else _ELEMENTWISE[name]
        copy = make_copy(n)

        @jit.kernel
        def run(p, t, q, value, slope):
            rest = np.zeros(5 * n, np.float32)
            for i in range(0, p.size, n):
                count = min(n, p.size - i)
                copy(p, i, rest, 0, count)
                copy(t, i, rest, n, count)
                copy(q, i, rest, 2 * n, min(count, q.size))
                one, other = of(load(rest, 0, n), load(rest, n, n), load(rest, 2 * n, n))
                store(rest, 3 * n, one)
                store(rest, 4 * n, other)
                copy(rest, 3 * n, value, i, count)
                copy(rest, 4 * n, slope, i, count)

        return run

    f1 = types.Array(types.float32, 1, "C")
    full = "-".join([f"loss_{name}-{n}", *map(repr, parameters)])
    return jit.compiled(full, build, types.void(f1, f1, f1, f1, f1))
