"""Losses and their derivatives, element by element; of categories, row by row.

Formulas of Keras 3. `p`: the prediction, `t`: the truth.
"""

import functools

import numpy as np
from numba import types

from streamrnn.simd import jit
from streamrnn.simd.arguments import Kernel
from streamrnn.simd.functions import exp, exp_negative, log, log1p_of_fraction, relu, sigmoid
from streamrnn.simd.jit import Inlined, inline
from streamrnn.simd.vector import absolute, load, make_copy, splat, store, where_less

EPSILON = 1e-7
"""Probabilities are limited to EPSILON … 1 - EPSILON, as in Keras."""


@inline
def _limited(p):
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
    near = _limited(p)
    value = -(t * log(near) + (1.0 - t) * log(1.0 - near))
    slope = (1.0 - t) / (1.0 - near) - t / near
    inside = where_less(p, EPSILON, 0.0, where_less(1.0 - EPSILON, p, 0.0, slope))
    return value, inside


@inline
def _binary_of_logits(p, t, q):
    value = relu(p) - p * t + log1p_of_fraction(exp_negative(absolute(p)))
    return value, sigmoid(p) - t


@inline
def _pinball(p, t, q):
    e = t - p
    return where_less(e, 0.0, (q - 1.0) * e, q * e), where_less(e, 0.0, 1.0 - q, -q)


_ELEMENTWISE: dict[str, Inlined] = {
    "squared": _squared,
    "absolute": _absolute,
    "binary": _binary,
    "binary_of_logits": _binary_of_logits,
    "pinball": _pinball,
}


@functools.cache
def elementwise_entry(name: str, *parameters: float) -> Kernel:
    """Return the kernel of a loss: (p, t, q, value, slope), the derivative by p into `slope`.

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


@functools.cache
def categorical_entry(kind: str) -> Kernel:
    """Return the kernel of cross-entropy over rows of `units` categories.

    (p, t, units, value, slope): one value a row. `kind` of p: "logits", or "probabilities", which
    are divided by their sum.
    """
    n = jit.width()

    def build() -> Kernel:
        copy, row = make_copy(n), (_of_logits if kind == "logits" else _of_probabilities)(n)

        @jit.kernel
        def run(p, t, units, value, slope):
            width = -(-units // n) * n
            s = np.zeros(3 * width + n, np.float32)
            for r in range(value.size):
                copy(p, r * units, s, 0, units)
                copy(t, r * units, s, width, units)
                value[r] = row(s, units, width)
                copy(s, 2 * width, slope, r * units, units)

        return run

    f1 = types.Array(types.float32, 1, "C")
    signature = types.void(f1, f1, types.intp, f1, f1)
    return jit.compiled(f"loss_of_{kind}-{n}", build, signature)


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
            store(s, out + u, log(_limited(load(s, u, n))))
        for u in range(units):
            value -= s[width + u] * s[out + u]
            inside = EPSILON <= s[u] <= 1 - EPSILON
            s[out + u] = -s[width + u] / s[u] if inside else np.float32(0)
            dot += s[out + u] * s[u]
        for u in range(units):
            s[out + u] = (s[out + u] - dot) / total
        return value

    return row
