"""Recurrent operators step by step in NumPy, for softmax and its kind inside a cell.

They need all units of a gate at once, which the vector kernels do not have. Slow, and rare;
products use the Dense kernel, so here too no bit depends on the cut.
"""

from collections.abc import Callable, Sequence

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn.kernels import dense, normalization
from streamrnn.nn.kernels.activation import ROW_WISE, Spec, applied
from streamrnn.nn.kernels.normalization import Norm
from streamrnn.nn.kernels.packing import WeightsLike, dequantized
from streamrnn.nn.simd.arguments import Kernel

_Step = Callable[..., tuple[Floats, ...]]
"""(x_NF, h_NU, …) -> the new states, of all N live lanes."""


def unless_row_wise(
    compiled: Callable[[tuple[Spec, ...]], Kernel], plain: Callable[..., _Step]
) -> Callable[[tuple[Spec, ...]], Kernel]:
    """Return a function from activations to their kernel: stepwise if one is in ROW_WISE.

    `plain(*activations)` makes the step.
    """

    def entry(activations: tuple[Spec, ...]) -> Kernel:
        return (
            compiled(activations)
            if ROW_WISE.isdisjoint(activations)
            else plain_window(plain(*activations))
        )

    return entry


def plain_window(step: _Step) -> Kernel:
    """Make a function with the arguments of the compiled window kernels."""

    def run(x_BTF, absent, states_BU, y_BTU, weights, zero_masked, first, last, share):
        lengths_B, mask_BT = absent
        lanes = np.arange(first, last)
        for t in range(x_BTF.shape[1]):
            if lengths_B.size:
                lanes = lanes[lengths_B[lanes] > t]
            live = lanes[mask_BT[lanes, t]] if mask_BT.size else lanes
            if live.size:
                new = step(x_BTF[live, t], *(state[live] for state in states_BU))
                for state, rows in zip(states_BU, new, strict=True):
                    state[live] = rows
            if y_BTU.size:
                y_BTU[lanes, t] = states_BU[0][lanes]
                if zero_masked:
                    y_BTU[np.setdiff1d(lanes, live), t] = 0

    return run


def lstm(
    kernel_FG: WeightsLike, recurrent_UG: WeightsLike, bias_G: Floats, f: Spec, g: Spec
) -> _Step:
    """Make the step of an LSTM."""
    gates = _linear(np.concatenate([dequantized(kernel_FG), dequantized(recurrent_UG)]), bias_G)

    def step(x, h, c):
        i, forget, new, o = np.split(gates(np.concatenate([x, h], axis=1)), 4, axis=1)
        c = applied(f, forget) * c + applied(f, i) * applied(g, new)
        return applied(f, o) * applied(g, c), c

    return step


def peephole_lstm(
    kernel_FG: Floats,
    recurrent_UG: Floats,
    bias_G: Floats,
    own: Floats | Sequence[Floats],
    coupled: bool,
    f: Spec,
    g: Spec,
    h: Spec,
) -> _Step:
    """Make the step of an LSTM with peepholes `own` (3, U)."""
    gates = _linear(np.concatenate([kernel_FG, recurrent_UG]), bias_G)

    def step(x, state, c):
        i, forget, new, o = np.split(gates(np.concatenate([x, state], axis=1)), 4, axis=1)
        i = applied(f, i + own[0] * c)
        forget = 1 - i if coupled else applied(f, forget + own[1] * c)
        c = forget * c + i * applied(g, new)
        return applied(f, o + own[2] * c) * applied(h, c), c

    return step


def layer_norm_lstm(
    kernel_FG: Floats,
    recurrent_UG: Floats,
    bias_G: Floats,
    norms: tuple[Norm, Norm, Norm],
    epsilon: float,
    f: Spec,
    g: Spec,
) -> _Step:
    """Make the step of an LSTM with layer normalisation."""
    of_x, of_h, of_c = norms
    zeros = np.zeros_like(bias_G)
    x_part, h_part = _linear(kernel_FG, zeros), _linear(recurrent_UG, zeros)

    def normalized(x_NU: Floats, norm: Norm) -> Floats:
        y_NU = np.empty_like(x_NU)
        normalization.layer_norm(x_NU, norm.gamma, norm.beta, epsilon, y_NU)
        return y_NU

    def step(x, h, c):
        z = normalized(x_part(x), of_x) + normalized(h_part(h), of_h) + bias_G
        i, forget, new, o = np.split(z, 4, axis=1)
        c = normalized(applied(f, forget) * c + applied(f, i) * applied(g, new), of_c)
        return applied(f, o) * applied(g, c), c

    return step


def gru(
    kernel: WeightsLike,
    recurrent: WeightsLike,
    bias_2G: Floats,
    reset_after: bool,
    f: Spec,
    g: Spec,
) -> _Step:
    """Make the step of a GRU in either form."""
    kernel_FG, recurrent_UG = dequantized(kernel), dequantized(recurrent)
    cut = 2 * recurrent_UG.shape[0]
    weights = np.concatenate([kernel_FG, recurrent_UG])
    total = bias_2G[0] + bias_2G[1]
    gates = _linear(weights[:, :cut], total[:cut])
    x_part = _linear(kernel_FG[:, cut:], bias_2G[0, cut:])
    h_part = _linear(recurrent_UG[:, cut:], bias_2G[1, cut:])
    last = _linear(weights[:, cut:], total[cut:])

    def step(x, h):
        both = np.split(gates(np.concatenate([x, h], axis=1)), 2, axis=1)
        update, reset = (applied(f, gate) for gate in both)
        if reset_after:
            candidate = x_part(x) + reset * h_part(h)
        else:
            candidate = last(np.concatenate([x, reset * h], axis=1))
        return (update * h + (1 - update) * applied(g, candidate),)

    return step


def simple_rnn(kernel_FU: WeightsLike, recurrent_UU: WeightsLike, bias_U: Floats, g: Spec) -> _Step:
    """Make the step of a SimpleRNN."""
    both = _linear(np.concatenate([dequantized(kernel_FU), dequantized(recurrent_UU)]), bias_U)
    return lambda x, h: (applied(g, both(np.concatenate([x, h], axis=1))),)


def _linear(kernel_FU: Floats, bias_U: Floats) -> Callable[[Floats], Floats]:
    packed = dense.pack(kernel_FU, bias_U)

    def product(x_NF: Floats) -> Floats:
        y_NU = np.empty((len(x_NF), kernel_FU.shape[1]), np.float32)
        dense.run(packed, np.ascontiguousarray(x_NF), y_NU)
        return y_NU

    return product
