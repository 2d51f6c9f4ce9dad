"""Recurrent operators step by step in NumPy, for softmax and its kind inside a cell.

Such activations need all units of a gate at once, which vector kernels do not have. This is slow
and rare; products use the Dense kernel, so here, too, no bit depends on the cut.
"""

from collections.abc import Callable

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn.kernels import dense
from streamrnn.nn.kernels.activation import ROW_WISE, Spec
from streamrnn.nn.simd.arguments import Kernel

CellStep = Callable[..., tuple[Floats, ...]]
"""(x_NF, h_NU, …) -> the new states, of all N live lanes."""


def unless_row_wise(
    compiled: Callable[[tuple[Spec, ...]], Kernel], plain: Callable[..., CellStep]
) -> Callable[[tuple[Spec, ...]], Kernel]:
    """Return a function from activations to their kernel, which is stepwise if one is in ROW_WISE.

    `plain(*activations)` makes the step.
    """

    def entry(activations: tuple[Spec, ...]) -> Kernel:
        if ROW_WISE.isdisjoint(activations):
            return compiled(activations)
        return plain_window(plain(*activations))

    return entry


def plain_window(step: CellStep) -> Kernel:
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


def dense_product(kernel_FU: Floats, bias_U: Floats | None = None) -> Callable[[Floats], Floats]:
    """Return the function x_NF -> x_NF K + b (N, U), by the Dense kernel."""
    packed = dense.pack(kernel_FU, bias_U)

    def product(x_NF: Floats) -> Floats:
        y_NU = np.empty((len(x_NF), kernel_FU.shape[1]), np.float32)
        dense.run(packed, np.ascontiguousarray(x_NF), y_NU)
        return y_NU

    return product
