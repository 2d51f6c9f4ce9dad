"""LSTM whose gates and cell state are normalised over all units (Ba et al. 2016).

A step first multiplies, with separate sums of inputs and of states; then it normalises each row as
a whole. A row's sum consists of 16 partial sums, each of every sixteenth unit, on every machine, so
its bits do not depend on the width of vectors.
"""

import numpy as np

from streamrnn.nn.simd import recurrent
from streamrnn.nn.simd.activations import function_of
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.jit import Inlined, inline
from streamrnn.nn.simd.names import Spec
from streamrnn.nn.simd.sweep import TileShape
from streamrnn.nn.simd.vector import fma, load, store

_SUMS = 16
_KEPT = 8
"""Sums kept per unit: of inputs and of states, four gates each."""

LANE_VECTORS = 3 + _KEPT
X_GAIN, X_SHIFT, H_GAIN, H_SHIFT, BIAS, C_GAIN, C_SHIFT = 0, 4, 8, 12, 16, 20, 21
"""Offset of each of a unit's own weights, in vectors of units."""


def entry(n: int, epsilon: float, activations: tuple[Spec, ...]) -> Kernel:
    """Return the kernel for vectors of `n` floats; `activations`: of the gates, and of c."""
    name = f"layer_norm_lstm-{n}-{epsilon!r}"
    return recurrent.entry(name, activations, 2, lambda: _window(n, epsilon, *activations))


def _window(n: int, epsilon: float, recurrent_activation: Spec, activation: Spec) -> Kernel:
    @inline
    def keep(s, z, old, new, own, unit, padded):
        for k in range(_KEPT):
            store(s, own + (1 + k) * padded, load(s, z + k * n, n))

    shape = TileShape(n, vectors=1, sums=8, x_into=(0, 1, 2, 3), h_into=(4, 5, 6, 7))
    row = _row(n, epsilon, recurrent_activation, activation)
    phases = recurrent.Phase(shape, keep), recurrent.RowPhase(row)
    return recurrent.window(phases, states=2, kept=_KEPT)


def _row(n: int, epsilon: float, recurrent_activation: Spec, activation: Spec) -> Inlined:
    f, g, normalize = (
        function_of(recurrent_activation),
        function_of(activation),
        _normalizer(n, epsilon),
    )

    @inline
    def gate(s, k, x, h, own, padded):
        """Return gate k of a vector of units, before its activation."""
        shift = load(s, own + (X_SHIFT + k) * padded, n)
        summed = fma(load(s, x + k * padded, n), load(s, own + (X_GAIN + k) * padded, n), shift)
        shift = load(s, own + (H_SHIFT + k) * padded, n)
        other = fma(load(s, h + k * padded, n), load(s, own + (H_GAIN + k) * padded, n), shift)
        return (summed + other) + load(s, own + (BIAS + k) * padded, n)

    @inline
    def row(s, z, old, new, own, unit, units, padded):
        x, h = own + padded, own + 5 * padded
        normalize(s, z, x, 4, units, padded)
        normalize(s, z, h, 4, units, padded)
        for u in range(0, padded, n):
            forget = f(gate(s, 1, x + u, h + u, unit + u, padded)) * load(s, own + u, n)
            i = f(gate(s, 0, x + u, h + u, unit + u, padded))
            c = fma(i, g(gate(s, 2, x + u, h + u, unit + u, padded)), forget)
            o = f(gate(s, 3, x + u, h + u, unit + u, padded))
            store(s, own + u, c)
            store(s, x + u, o)
        normalize(s, z, own, 1, units, padded)
        for u in range(0, padded, n):
            gain, shift = unit + C_GAIN * padded + u, unit + C_SHIFT * padded + u
            c = fma(load(s, own + u, n), load(s, gain, n), load(s, shift, n))
            store(s, own + u, c)
            store(s, new + u, load(s, x + u, n) * g(c))

    return row


def _normalizer(n: int, epsilon: float) -> Inlined:
    """Make `normalize(s, z, begin, count, units, padded)`.

    It brings `count` vectors of units of a row, taken together, to mean 0 and variance 1, in place;
    their padding becomes 0.
    """
    one, least = np.float32(1), np.float32(epsilon)

    @inline
    def clear(s, begin, count, units, padded):
        for k in range(count):
            for u in range(units, padded):
                s[begin + k * padded + u] = 0

    @inline
    def total(s, z):
        half = _SUMS // 2
        while half:
            for k in range(half):
                s[z + k] += s[z + k + half]
            half //= 2
        return s[z]

    @inline
    def normalize(s, z, begin, count, units, padded):
        size = np.float32(count * units)
        clear(s, begin, count, units, padded)
        s[z : z + _SUMS] = 0
        for k in range(begin, begin + count * padded, padded):
            for u in range(0, padded, n):
                place = z + u % _SUMS
                store(s, place, load(s, place, n) + load(s, k + u, n))
        mean = total(s, z) / size
        for u in range(begin, begin + count * padded, n):
            store(s, u, load(s, u, n) - mean)
        clear(s, begin, count, units, padded)
        s[z : z + _SUMS] = 0
        for k in range(begin, begin + count * padded, padded):
            for u in range(0, padded, n):
                place, x = z + u % _SUMS, load(s, k + u, n)
                store(s, place, fma(x, x, load(s, place, n)))
        scale = one / np.sqrt(total(s, z) / size + least)
        for u in range(begin, begin + count * padded, n):
            store(s, u, load(s, u, n) * scale)

    return normalize
