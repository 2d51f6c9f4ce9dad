"""LSTM with layer normalisation in training: back through time.

The tape has what each step needs of its forward pass, so no activation is computed here. Rows are
time-major: row t*B + b is step t of lane b. Norms are in float64, as in `normalization`.
"""

import functools

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel, NormTape
from streamrnn.nn.simd.jit import inline


@functools.cache
def entry() -> Kernel:
    """Return the kernel for the lanes first..last.

    Called as (tape, recurrent_GU, epsilon, dy_BTU, mask_BT, factors_BU, dh_BU, dc_BU, zero_masked,
    first, last); recurrent weights are transposed. `dh_BU` and `dc_BU`, the gradients of the final
    states, become the gradients of the initial ones. `dy_BTU`, `mask_BT` and `factors_BU` (of h)
    may be empty. Where a step is present, the kernel writes the tape's `dz_RG` (of the gates' sums)
    and `dc_RU` (of the normalised c).
    """
    f1, f2, f3 = (types.Array(types.float32, d, "C") for d in (1, 2, 3))
    mask = types.Array(types.boolean, 2, "C")
    tape = types.NamedTuple((f2, f2, f2, f2, f2, f2, f2, f1, f1, f2, f2), NormTape)
    intp = types.intp
    signature = types.void(tape, f2, types.float64, f3, mask, f2, f2, f2, types.boolean, intp, intp)
    return jit.compiled("layer_norm_lstm_back", _kernel, signature)


def _kernel() -> Kernel:
    @inline
    def back(x, gamma, epsilon, dy, dx, r):
        """Write the gradient of row r of `x` to dx; its normalised values have the gradients dy."""
        size = x.shape[1]
        mean = 0.0
        for k in range(size):
            mean += x[r, k]
        mean /= size
        variance = 0.0
        for k in range(size):
            variance += (x[r, k] - mean) ** 2
        scale = 1.0 / np.sqrt(variance / size + epsilon)
        total = along = 0.0
        for k in range(size):
            dz = np.float64(dy[r, k]) * gamma[k]
            total += dz
            along += dz * (x[r, k] - mean) * scale
        for k in range(size):
            dz = np.float64(dy[r, k]) * gamma[k]
            dx[k] = scale * (dz - (total + (x[r, k] - mean) * scale * along) / size)

    @jit.kernel
    def run(tape, w_GU, epsilon, dy, mask, factors, dh, dc, zero_masked, first, last):
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
                back(tape.raw_RU, tape.gamma_U, epsilon, tape.dc_RU, of_c, r)
                for u in range(units):
                    i, f, g = gates[r, u], gates[r, units + u], gates[r, 2 * units + u]
                    dz[r, u] = of_c[u] * g * slopes[r, u]
                    dz[r, units + u] = of_c[u] * tape.before_RU[r, u] * slopes[r, units + u]
                    dz[r, 2 * units + u] = of_c[u] * i * slopes[r, 2 * units + u]
                    dc[b, u] = of_c[u] * f
                back(tape.h_RG, tape.gamma_G, epsilon, dz, of_h, r)
                for u in range(units):
                    dh[b, u] = 0
                for k in range(4 * units):
                    for u in range(units):
                        dh[b, u] += of_h[k] * w_GU[k, u]
                for u in range(units if factors.size else 0):
                    dh[b, u] *= factors[b, u]

    return run
