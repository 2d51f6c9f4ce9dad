"""Losses of whole rows and their derivatives. Formulas of Keras 3."""

import functools
import math
from collections.abc import Callable

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.functions import exp, log
from streamrnn.nn.simd.jit import Inlined, inline
from streamrnn.nn.simd.losses import EPSILON, to_probability
from streamrnn.nn.simd.vector import load, make_copy, splat, store, where_less


@functools.cache
def rows_entry(kind: str) -> Kernel:
    """Return the kernel of a loss of whole rows of `units` elements.

    Called as (p, t, units, value, slope), with one value per row. `kind`: "logits" or
    "probabilities" for the cross-entropy of these (probabilities are first divided by their sum);
    "divergence", the Kullback-Leibler divergence; "cosine", the negative cosine of the angle;
    "hinge", the hinge loss of categories.
    """
    n = jit.width()

    def build() -> Kernel:
        copy, row = make_copy(n), _ROWS[kind](n)

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
            store(s, out + u, log(to_probability(load(s, u, n))))
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
