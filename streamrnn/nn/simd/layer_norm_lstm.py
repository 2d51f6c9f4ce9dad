"""LSTM whose gates and cell state are normalized over all units (Ba et al. 2016).

A step first multiplies, with separate sums for inputs and states; then it normalizes each row as
a whole. A row's sum consists of 16 partial sums, each of every sixteenth unit, on every machine, so
its bits do not depend on the width of vectors.

In training, the backward pass reads from a tape what each step needs of its forward pass, so it
computes no activation. Rows of the tape are time-major: row t*B + b is step t of lane b.
Norms are in float64 there, as in `normalization`.
"""

import numpy as np
from numba import types

from streamrnn.nn.simd import jit, recurrent
from streamrnn.nn.simd.activations import function_of
from streamrnn.nn.simd.arguments import Kernel, NormTape
from streamrnn.nn.simd.jit import F1, F2, F3, MASK, Inlined, inline
from streamrnn.nn.simd.names import Spec
from streamrnn.nn.simd.normalization import mean_and_scale
from streamrnn.nn.simd.sweep import TileShape
from streamrnn.nn.simd.vector import fma, load, store

_SUMS = 16
_KEPT = 8
"""Sums kept per unit: for inputs and for states, of four gates each."""

LANE_VECTORS = 3 + _KEPT
X_GAIN, X_SHIFT, H_GAIN, H_SHIFT, BIAS, C_GAIN, C_SHIFT = 0, 4, 8, 12, 16, 20, 21
"""Offset of each of a unit's own weights, in vectors of units."""


def entry(n: int, epsilon: float, activations: tuple[Spec, ...]) -> Kernel:
    """Return the kernel for vectors of `n` floats.

    `activations`: of the gates i, f, o, and of the candidate and c.
    """

    def make() -> Kernel:
        @inline
        def keep(s, z, old, new, own, unit, padded):
            for k in range(_KEPT):
                store(s, own + (1 + k) * padded, load(s, z + k * n, n))

        shape = TileShape(n, vectors=1, sums=8, x_into=(0, 1, 2, 3), h_into=(4, 5, 6, 7))
        row = _row(n, epsilon, *activations)
        return recurrent.window((recurrent.Phase(shape, keep),), states=2, kept=_KEPT, row=row)

    return recurrent.entry(f"layer_norm_lstm-{n}-{epsilon!r}", activations, 2, make)


def _row(n: int, epsilon: float, recurrent_activation: Spec, activation: Spec) -> Inlined:
    f, g = function_of(recurrent_activation), function_of(activation)
    normalize = _normalizer(n, epsilon)

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

    It normalizes `count` vectors of units of a row, taken together, to mean 0 and variance 1, in
    place; their padding becomes 0.
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


@inline
def _norm_back(x, gamma, epsilon, dy, dx, r):
    """Write the gradient of row r of `x` to dx; dy: the gradient of gamma * normalized + beta."""
    size = x.shape[1]
    mean, scale = mean_and_scale(x, r, epsilon)
    total = along = 0.0
    for k in range(size):
        dz = np.float64(dy[r, k]) * gamma[k]
        total += dz
        along += dz * (x[r, k] - mean) * scale
    for k in range(size):
        dz = np.float64(dy[r, k]) * gamma[k]
        dx[k] = scale * (dz - (total + (x[r, k] - mean) * scale * along) / size)


_TAPE = types.NamedTuple((*[F2] * 7, F1, F1, F2, F2), NormTape)
_LANES = types.boolean, types.intp, types.intp


@jit.on_demand(
    "layer_norm_lstm_back", types.void(_TAPE, F2, types.float64, F3, MASK, F2, F2, F2, *_LANES)
)
def back_kernel(tape, w_GU, epsilon, dy, mask, factors, dh, dc, zero_masked, first, last):
    """Go back through the steps of the lanes first..last.

    `w_GU`: the recurrent weights, transposed. `dh` and `dc` (B, U), the gradients of the final
    states, become the gradients of the initial ones. `dy` (B, T, U), `mask` (B, T) and `factors` of
    h (B, U) may be empty. Where a step is present, `dz_RG` (of the gates' sums) and `dc_RU` (of the
    normalized c) are written to the tape.
    """
    gates, slopes, dz, units = tape.gates_RG, tape.slopes_RG, tape.dz_RG, w_GU.shape[1]
    lanes, steps = dh.shape[0], gates.shape[0] // max(1, dh.shape[0])
    of_c, of_h = np.empty(units, np.float32), np.empty(4 * units, np.float32)
    for b in range(first, last):
        for t in range(steps - 1, -1, -1):
            present, r = not mask.size or mask[b, t], t * lanes + b
            if dy.size and (present or not zero_masked):
                for u in range(units):
                    dh[b, u] += dy[b, t, u]
            if not present:
                continue
            for u in range(units):
                o = gates[r, 3 * units + u]
                dz[r, 3 * units + u] = dh[b, u] * tape.y_RU[r, u] * slopes[r, 3 * units + u]
                tape.dc_RU[r, u] = dc[b, u] + dh[b, u] * o * tape.slope_RU[r, u]
            _norm_back(tape.raw_RU, tape.gamma_U, epsilon, tape.dc_RU, of_c, r)
            for u in range(units):
                i, f, g = gates[r, u], gates[r, units + u], gates[r, 2 * units + u]
                dz[r, u] = of_c[u] * g * slopes[r, u]
                dz[r, units + u] = of_c[u] * tape.before_RU[r, u] * slopes[r, units + u]
                dz[r, 2 * units + u] = of_c[u] * i * slopes[r, 2 * units + u]
                dc[b, u] = of_c[u] * f
            _norm_back(tape.h_RG, tape.gamma_G, epsilon, dz, of_h, r)
            for u in range(units):
                dh[b, u] = 0
            for k in range(4 * units):
                for u in range(units):
                    dh[b, u] += of_h[k] * w_GU[k, u]
            for u in range(units if factors.size else 0):
                dh[b, u] *= factors[b, u]
