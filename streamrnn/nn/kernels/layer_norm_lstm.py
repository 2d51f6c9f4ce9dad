"""LSTM with layer normalization over a window of lanes. Gates in the order i, f, c, o (Keras).

In training, the forward pass calls the kernel for scoring, one step at a time. The backward
pass computes the gates again, from the states before each step.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.nn import simd
from streamrnn.nn.kernels import packing, recurrent, threads
from streamrnn.nn.kernels.activation import Spec, applied
from streamrnn.nn.kernels.gradients import (
    Projection,
    StridedRows,
    dense_gradients,
    flat_indices,
    flattened,
    times_derivative,
)
from streamrnn.nn.kernels.normalization import Norm, layer_norm, layer_norm_back
from streamrnn.nn.kernels.packing import Packed
from streamrnn.nn.kernels.recurrent import NO_MASK, NO_OUTPUT
from streamrnn.nn.simd.arguments import Factors, NormTape


def _step(
    kernel_FG: Floats,
    recurrent_UG: Floats,
    bias_G: Floats,
    norms: tuple[Norm, Norm, Norm],
    epsilon: float,
    f: Spec,
    g: Spec,
) -> recurrent.CellStep:
    of_x, of_h, of_c = norms
    x_part, h_part = (recurrent.dense_product(weights) for weights in (kernel_FG, recurrent_UG))

    def step(x, h, c):
        of_both = layer_norm(x_part(x), *of_x, epsilon) + layer_norm(h_part(h), *of_h, epsilon)
        i, forget, new, o = np.split(of_both + bias_G, 4, axis=1)
        new_c = applied(f, forget) * c + applied(f, i) * applied(g, new)
        c = layer_norm(new_c, *of_c, epsilon)
        return applied(f, o) * applied(g, c), c

    return step


def pack(
    kernel_FG: Floats,
    recurrent_UG: Floats,
    bias_G: Floats | None,
    norms: tuple[Norm, Norm, Norm],
    epsilon: float,
) -> Packed:
    """Pack weights in Keras's layout for `recurrent.run`; `bias_G` may be None.

    `norms`: of the input's sums, of the state's sums, and of c. The first activation is for the
    gates i, f and o, the second for the candidate and c. The states are [h_BU, c_BU].
    """
    n, units = simd.jit.width(), recurrent_UG.shape[0]
    if bias_G is None:
        bias_G = np.zeros(4 * units, np.float32)
    x, h = (np.split(a, 4, axis=-1) for a in (kernel_FG, recurrent_UG))
    of_x, of_h, of_c = norms
    gates = (of_x.gamma, of_x.beta, of_h.gamma, of_h.beta, bias_G)
    own = [*np.concatenate(gates).reshape(20, units), of_c.gamma, of_c.beta]
    nothing = np.zeros((8, units), np.float32)
    return Packed(
        packing.packed([(x, h)], [list(nothing)], n, 1, own),
        packing.groups_of(units, n, 1),
        recurrent.unless_row_wise(
            partial(simd.layer_norm_lstm.entry, n, epsilon),
            partial(_step, kernel_FG, recurrent_UG, bias_G, norms, epsilon),
        ),
        partial(pack, kernel_FG, recurrent_UG, bias_G, norms, epsilon),
        lane_vectors=simd.layer_norm_lstm.LANE_VECTORS,
    )


class NormWeights(NamedTuple):
    """The weights of a cell: (F, 4U), (U, 4U), (4U,) or None; gamma and beta of its three norms."""

    kernel: Floats
    recurrent: Floats
    bias: Floats | None
    norms: Sequence[Floats]
    epsilon: float


class StepStates(NamedTuple):
    """The inputs (T*B, F) of a window after dropout, 0 where absent, and its states (T+1, B, U)."""

    x_RF: Floats
    h_TBU: Floats
    c_TBU: Floats


def run_forward(
    packed: Packed,
    activations: tuple[Spec, Spec],
    x_BTF: Floats,
    factors: Factors,
    mask_BT: Bools | None,
    states: Sequence[Floats],
    y_BTU: Floats | None,
    *,
    zero_masked: bool,
) -> StepStates:
    """Advance `states`, write each h to `y_BTU`, and return what the backward pass needs."""
    lanes, steps, features = x_BTF.shape
    x_TBF = np.ascontiguousarray(x_BTF.swapaxes(0, 1))
    if factors.x_BF.size:
        x_TBF = x_TBF * factors.x_BF
    if mask_BT is not None:
        x_TBF = np.where(mask_BT.T[..., None], x_TBF, np.float32(0))
    h, c = states
    kept = [np.empty((steps + 1, *state.shape), np.float32) for state in states]
    kept[0][0], kept[1][0] = h, c
    for t in range(steps):
        mask = None if mask_BT is None else np.ascontiguousarray(mask_BT[:, t : t + 1])
        before = h.copy()
        if factors.h_BU.size:
            h *= factors.h_BU
        recurrent.run(packed, activations, x_TBF[t][:, None], None, mask, states, None)
        if mask is not None:
            h[:] = np.where(mask, h, before)
        kept[0][t + 1], kept[1][t + 1] = h, c
        if y_BTU is not None:
            y_BTU[:, t] = h if mask is None or not zero_masked else np.where(mask, h, np.float32(0))
    return StepStates(x_TBF.reshape(lanes * steps, features), *kept)


def run_back(
    weights: NormWeights,
    activations: tuple[Spec, Spec],
    kept: StepStates,
    factors: Factors,
    mask_BT: Bools | None,
    dy_BTU: Floats | None,
    ends: Sequence[Floats | None],
    *,
    zero_masked: bool,
    inputs: bool,
) -> tuple[list[Floats], Floats | None, list[Floats]]:
    """Return gradients of the weights, of the inputs (None if not wanted), and of the states.

    Weights are in the order kernel, recurrent kernel, bias, norms. Their gradients sum the rows
    that are not masked, in the order of the steps.
    """
    lanes, units = kept.h_TBU.shape[1:]
    h_RU = kept.h_TBU[:-1]
    if factors.h_BU.size:
        h_RU = h_RU * factors.h_BU
    h_RU = np.ascontiguousarray(h_RU).reshape(-1, units)
    x_RG = recurrent.dense_product(weights.kernel)(kept.x_RF)
    h_RG = recurrent.dense_product(weights.recurrent)(h_RU)
    tape = _tape(weights, activations, kept, x_RG, h_RG)
    dh, dc = (np.zeros((lanes, units), np.float32) if end is None else end.copy() for end in ends)
    kernel = simd.layer_norm_lstm.back_kernel()
    transposed = np.ascontiguousarray(weights.recurrent.T)
    dy = NO_OUTPUT if dy_BTU is None else dy_BTU
    mask = NO_MASK if mask_BT is None else mask_BT
    fixed = tape, transposed, weights.epsilon, dy, mask, factors.h_BU, dh, dc, zero_masked
    threads.over_lanes(partial(kernel, *fixed), lanes, len(h_RU) * transposed.size)
    # An absent row has no part in a sum: with an epsilon of zero its norm would be infinite.
    rows = slice(None) if mask_BT is None else np.flatnonzero(mask_BT.T.reshape(-1))
    dz, epsilon = tape.dz_RG[rows], weights.epsilon
    dx_RG, *of_x = layer_norm_back(x_RG[rows], weights.norms[0], epsilon, dz)
    dh_RG, *of_h = layer_norm_back(h_RG[rows], weights.norms[2], epsilon, dz)
    _, *of_c = layer_norm_back(tape.raw_RU[rows], weights.norms[4], epsilon, tape.dc_RU[rows])
    of_kernel, _ = dense_gradients(kept.x_RF[rows], dx_RG)
    of_recurrent, _ = dense_gradients(h_RU[rows], dh_RG)
    of_weights = [of_kernel, of_recurrent, of_x[1], *of_x, *of_h, *of_c]
    if not inputs:
        return of_weights, None, [dh, dc]
    all_rows = np.zeros_like(x_RG)
    all_rows[rows] = dx_RG
    dx = np.empty((lanes, len(kept.h_TBU) - 1, len(weights.kernel)), np.float32)
    order = np.ascontiguousarray(flat_indices(weights.kernel.shape)[0].T)
    to_inputs = StridedRows(all_rows.reshape(-1), 0, all_rows.shape[1])
    Projection(order).run(to_inputs, flattened(weights.kernel), dx)
    if factors.x_BF.size:
        dx *= factors.x_BF[:, None]
    return of_weights, dx, [dh, dc]


def _tape(
    weights: NormWeights,
    activations: tuple[Spec, Spec],
    kept: StepStates,
    x_RG: Floats,
    h_RG: Floats,
) -> NormTape:
    """Compute the gates of all rows again."""
    units = kept.h_TBU.shape[2]
    of_x, of_h, of_c = zip(weights.norms[::2], weights.norms[1::2], strict=True)
    z = layer_norm(x_RG, *of_x, weights.epsilon) + layer_norm(h_RG, *of_h, weights.epsilon)
    if weights.bias is not None:
        z = z + weights.bias
    f, g = activations
    names = f, f, g, f
    parts = [applied(name, part) for name, part in zip(names, np.split(z, 4, axis=1), strict=True)]
    slopes = [
        times_derivative(name, part, np.ones_like(part))
        for name, part in zip(names, parts, strict=True)
    ]
    before = np.ascontiguousarray(kept.c_TBU[:-1]).reshape(-1, units)
    y = applied(g, kept.c_TBU[1:].reshape(-1, units))
    i, forget, candidate, _ = parts
    return NormTape(
        np.concatenate(parts, axis=1),
        np.concatenate(slopes, axis=1),
        y,
        times_derivative(g, y, np.ones_like(y)),
        before,
        forget * before + i * candidate,
        h_RG,
        of_h[0],
        of_c[0],
        np.zeros_like(h_RG),
        np.zeros_like(y),
    )
