"""Recurrent operators step by step in numpy, for softmax inside a cell.

Softmax needs all units of a gate before any is known, which the vector kernels do not have. Slow,
and rare; products go through the Dense kernel, so results are as cut-free as everywhere.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from streamrnn.kernels import activation, dense, normalization
from streamrnn.kernels.activation import Spec, split_spec
from streamrnn.kernels.packed import Kernel

Step = Callable[..., tuple[Any, ...]]
"""(x_NF, h_NU, …) -> the new states, of all N lanes that are live."""


def unless_softmax(
    compiled: Callable[[tuple[Spec, ...]], Kernel], plain: Callable[..., Step]
) -> Callable[[tuple[Spec, ...]], Kernel]:
    """What gives the kernel for some activations: compiled, or where one is softmax step by step.

    `plain(*activations)` is the step then.
    """

    def entry(activations: tuple[Spec, ...]) -> Kernel:
        return (
            plain_window(plain(*activations)) if "softmax" in activations else compiled(activations)
        )

    return entry


def plain_window(step: Step) -> Kernel:
    """A function that is called as the compiled window kernels are."""

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


def lstm(kernel_FG: Any, recurrent_UG: Any, bias_G: Any, f: Spec, g: Spec) -> Step:
    gates = _linear(np.concatenate([kernel_FG, recurrent_UG]), bias_G)

    def step(x, h, c):
        i, forget, new, o = np.split(gates(np.concatenate([x, h], axis=1)), 4, axis=1)
        c = _apply(f, forget) * c + _apply(f, i) * _apply(g, new)
        return _apply(f, o) * _apply(g, c), c

    return step


def peephole_lstm(
    kernel_FG: Any,
    recurrent_UG: Any,
    bias_G: Any,
    own: Any,
    coupled: bool,
    f: Spec,
    g: Spec,
    h: Spec,
) -> Step:
    gates = _linear(np.concatenate([kernel_FG, recurrent_UG]), bias_G)

    def step(x, state, c):
        i, forget, new, o = np.split(gates(np.concatenate([x, state], axis=1)), 4, axis=1)
        i = _apply(f, i + own[0] * c)
        forget = 1 - i if coupled else _apply(f, forget + own[1] * c)
        c = forget * c + i * _apply(g, new)
        return _apply(f, o + own[2] * c) * _apply(h, c), c

    return step


def layer_norm_lstm(
    kernel_FG: Any, recurrent_UG: Any, bias_G: Any, norms: Any, epsilon: float, f: Spec, g: Spec
) -> Step:
    of_x, of_h, of_c = norms
    zeros = np.zeros_like(bias_G)
    x_part, h_part = _linear(kernel_FG, zeros), _linear(recurrent_UG, zeros)

    def normalized(x_NU: Any, norm: Any) -> Any:
        y_NU = np.empty_like(x_NU)
        normalization.layer_norm(x_NU, norm.gamma, norm.beta, epsilon, y_NU)
        return y_NU

    def step(x, h, c):
        z = normalized(x_part(x), of_x) + normalized(h_part(h), of_h) + bias_G
        i, forget, new, o = np.split(z, 4, axis=1)
        c = normalized(_apply(f, forget) * c + _apply(f, i) * _apply(g, new), of_c)
        return _apply(f, o) * _apply(g, c), c

    return step


def gru(
    kernel_FG: Any, recurrent_UG: Any, bias_2G: Any, reset_after: bool, f: Spec, g: Spec
) -> Step:
    cut = 2 * recurrent_UG.shape[0]
    weights = np.concatenate([kernel_FG, recurrent_UG])
    total = bias_2G[0] + bias_2G[1]
    gates = _linear(weights[:, :cut], total[:cut])
    x_part = _linear(kernel_FG[:, cut:], bias_2G[0, cut:])
    h_part = _linear(recurrent_UG[:, cut:], bias_2G[1, cut:])
    last = _linear(weights[:, cut:], total[cut:])

    def step(x, h):
        both = np.split(gates(np.concatenate([x, h], axis=1)), 2, axis=1)
        update, reset = (_apply(f, gate) for gate in both)
        if reset_after:
            candidate = x_part(x) + reset * h_part(h)
        else:
            candidate = last(np.concatenate([x, reset * h], axis=1))
        return (update * h + (1 - update) * _apply(g, candidate),)

    return step


def simple_rnn(kernel_FU: Any, recurrent_UU: Any, bias_U: Any, g: Spec) -> Step:
    both = _linear(np.concatenate([kernel_FU, recurrent_UU]), bias_U)
    return lambda x, h: (_apply(g, both(np.concatenate([x, h], axis=1))),)


def _linear(kernel_FU: Any, bias_U: Any) -> Callable[[Any], Any]:
    packed = dense.pack(kernel_FU, bias_U)

    def product(x_NF: Any) -> Any:
        y_NU = np.empty((len(x_NF), kernel_FU.shape[1]), np.float32)
        dense.run(packed, np.ascontiguousarray(x_NF), y_NU)
        return y_NU

    return product


def _apply(spec: Spec, x: Any) -> Any:
    name, numbers = split_spec(spec)
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    activation.run(name, x, out, **dict(zip(activation.DEFAULTS[name], numbers, strict=True)))
    return out
