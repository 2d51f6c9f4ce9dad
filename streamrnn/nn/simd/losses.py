"""Losses and their derivatives, element by element or of whole rows, and sums in order.

Where Keras 3 has a loss, the formula is Keras's. `p`: the prediction, `t`: the truth (gaussian: the
deviation and the error).
"""

import math
from collections.abc import Callable

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.activations import softplus
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.functions import (
    exp,
    exp_negative,
    log,
    log1p_of_fraction,
    positive,
    sigmoid,
    tanh,
)
from streamrnn.nn.simd.jit import D1, F1, I1, Inlined, inline
from streamrnn.nn.simd.vector import absolute, load, make_copy, splat, store, where_less

EPSILON = 1e-7
"""Probabilities are clipped to EPSILON … 1 - EPSILON (divergence: to EPSILON … 1), as in Keras."""
LN2 = 0.69314718
SMALLEST = 1.1754944e-38
"""The smallest normal float: `log` takes only normal ones."""


@inline
def _to_probability(p):
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
    near = _to_probability(p)
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


@jit.for_width("loss", types.void(F1, F1, F1, F1, F1))
def elementwise_kernel(n: int, name: str, *parameters: float) -> Kernel:
    """Return the kernel of a loss: (p, t, q, value, slope), with the derivative by p in `slope`.

    `q`: the quantile of each element for "pinball", else empty.
    """
    of = _huber(*parameters) if name == "huber" else _ELEMENTWISE[name]
    copy = make_copy(n)

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


@jit.for_width("loss_of_rows", types.void(F1, F1, types.intp, F1, F1))
def of_rows_kernel(n: int, kind: str) -> Kernel:
    """Return the kernel of a loss of whole rows of `units` elements.

    Called as (p, t, units, value, slope), with one value per row. `kind`: "logits" or
    "probabilities" for the cross-entropy of these (probabilities are first divided by their sum);
    "divergence", the Kullback-Leibler divergence; "cosine", the negative cosine similarity;
    "hinge", the categorical hinge loss.
    """
    copy, row = make_copy(n), _ROWS[kind](n)

    def run(p, t, units, value, slope):
        width = -(-units // n) * n
        s = np.zeros(3 * width + n, np.float32)
        for r in range(value.size):
            copy(p, r * units, s, 0, units)
            copy(t, r * units, s, width, units)
            value[r] = row(s, units, width)
            copy(s, 2 * width, slope, r * units, units)

    return run


# A row in s: p, t and the slope, `width` floats each, then one vector. Sums are scalar loops, as
# their order must not depend on n.


def _of_logits(n: int) -> Inlined:
    @inline
    def row(s, units, width):
        out, scratch = 2 * width, 3 * width
        top = s[0]
        for u in range(1, units):
            top = max(top, s[u])
        for u in range(0, width, n):
            store(s, out + u, exp(load(s, u, n) - top))
        total = weight = chosen = np.float32(0)
        for u in range(units):
            total += s[out + u]
            weight += s[width + u]
            chosen += s[width + u] * (s[u] - top)
        store(s, scratch, log(splat(total, n)))
        for u in range(units):
            s[out + u] = weight * (s[out + u] / total) - s[width + u]
        return weight * s[scratch] - chosen

    return row


def _of_probabilities(n: int) -> Inlined:
    @inline
    def row(s, units, width):
        out = 2 * width
        total = value = dot = np.float32(0)
        for u in range(units):
            total += s[u]
        for u in range(0, width, n):
            store(s, u, load(s, u, n) / total)
            store(s, out + u, log(_to_probability(load(s, u, n))))
        for u in range(units):
            value -= s[width + u] * s[out + u]
            inside = EPSILON <= s[u] <= 1 - EPSILON
            s[out + u] = -s[width + u] / s[u] if inside else np.float32(0)
            dot += s[out + u] * s[u]
        for u in range(units):
            s[out + u] = (s[out + u] - dot) / total
        return value

    return row


def _divergence(n: int) -> Inlined:
    @inline
    def row(s, units, width):
        out = 2 * width
        value = np.float32(0)
        for u in range(units):
            s[width + u] = min(max(s[width + u], np.float32(EPSILON)), np.float32(1))
        for u in range(0, width, n):
            p = load(s, u, n)
            near = where_less(p, EPSILON, EPSILON, where_less(1.0, p, 1.0, p))
            store(s, out + u, log(load(s, width + u, n) / near))
        for u in range(units):
            value += s[width + u] * s[out + u]
            inside = EPSILON <= s[u] <= 1
            s[out + u] = -s[width + u] / s[u] if inside else s[u] * np.float32(0)
        return value

    return row


def _cosine(n: int) -> Inlined:
    @inline
    def row(s, units, width):
        pp = tt = pt = 0.0
        for u in range(units):
            a, b = types.float64(s[u]), types.float64(s[width + u])
            pp, tt, pt = pp + a * a, tt + b * b, pt + a * b
        size, other = max(math.sqrt(pp), EPSILON), max(math.sqrt(tt), EPSILON)
        cosine = pt / (size * other)
        turn = cosine / size if size > EPSILON else 0.0  # 0: EPSILON is the divisor, not p's length
        for u in range(units):
            s[2 * width + u] = turn * (s[u] / size) - s[width + u] / other / size
        return -cosine

    return row


def _hinge_of_categories(n: int) -> Inlined:
    @inline
    def row(s, units, width):
        chosen, top, place = np.float32(0), (np.float32(1) - s[width]) * s[0], 0
        for u in range(units):
            chosen += s[width + u] * s[u]
            other = (np.float32(1) - s[width + u]) * s[u]
            if other > top:
                top, place = other, u
        value = top - chosen + np.float32(1)
        for u in range(units):
            slope = -s[width + u]
            if u == place:
                slope += np.float32(1) - s[width + u]
            s[2 * width + u] = slope if value > 0 else np.float32(0)
        return np.float32(0) if value < 0 else value

    return row


_ROWS: dict[str, Callable[[int], Inlined]] = {
    "logits": _of_logits,
    "probabilities": _of_probabilities,
    "divergence": _divergence,
    "cosine": _cosine,
    "hinge": _hinge_of_categories,
}


@jit.on_demand("sum_of_products", types.void(F1, F1, D1))
def products_kernel(a, b, out):
    """Set out[0] to the sum of a[i] * b[i], in float64."""
    total = 0.0
    for i in range(a.size):
        total += types.float64(a[i]) * types.float64(b[i])
    out[0] = total


@jit.on_demand("means_of_rows", types.void(F1, types.intp, F1))
def means_of_rows_kernel(a, units, out):
    """Set out[r] to the mean of the r-th run of `units` elements, which are summed in float64."""
    for r in range(out.size):
        total = 0.0
        for i in range(r * units, (r + 1) * units):
            total += types.float64(a[i])
        out[r] = total / units


@jit.on_demand("add_at", types.void(D1, I1, D1))
def add_at_kernel(out, ids, values):
    """Add values[i] to out[ids[i]], one value after the other."""
    for i in range(ids.size):
        out[ids[i]] += values[i]
