"""Calls of a recurrent kernel: empty arrays for omitted arguments, lanes split among threads.

Softmax and its kind inside a cell need all units of a gate at once, which vector kernels do not
have. Such a cell is computed step by step in NumPy (`unless_row_wise`). This is slow and rare; its
products use the Dense kernel, so here, too, no bit depends on the cut.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.nn import simd
from streamrnn.nn.kernels import dense, team, threads
from streamrnn.nn.kernels.activation import ROW_WISE, Spec
from streamrnn.nn.kernels.packing import Packed
from streamrnn.nn.simd.arguments import Absent, Kernel, Share, Weights

CellStep: TypeAlias = Callable[..., tuple[Floats, ...]]
"""(x_NF, h_NU, …) -> the new states, of all N live lanes."""

_Arguments: TypeAlias = tuple[Floats, Absent, tuple[Floats, ...], Floats, Weights, bool]
"""Arguments of a kernel before its lanes: x_BTF, absent, states, y_BTU, weights, zero_masked."""

NO_LENGTHS = np.empty(0, np.int64)
NO_MASK = np.empty((0, 0), np.bool_)
NO_OUTPUT = np.empty((0, 0, 0), np.float32)
_ALL_PRESENT = Absent(NO_LENGTHS, NO_MASK)
_ALONE = Share(0, 1, np.empty(0, np.float32), NO_LENGTHS)


def run(
    packed: Packed,
    activations: tuple[Spec, ...],
    x_BTF: Floats,
    lengths_B: Ints | None,
    mask_BT: Bools | None,
    states: Sequence[Floats],
    y_BTU: Floats | None,
    *,
    zero_masked: bool = False,
) -> None:
    """Advance `states` (each (B, U), h first) by up to T steps; write each h to `y_BTU`.

    `activations` are in the order that the operator's `pack` documents. Where a step is masked the
    output is the h before it, or 0 with `zero_masked`; past a length nothing is written. Raises
    ValueError if an array is not C-contiguous, or if a mask is not (B, T) or lengths are not (B,),
    as a kernel would then read or write outside of the array.
    """
    lanes, steps, _ = x_BTF.shape
    if not lanes or not steps:
        return
    kernel = packed.kernel(activations)
    absent = _ALL_PRESENT
    if lengths_B is not None or mask_BT is not None:
        absent = _absent(lengths_B, mask_BT, lanes, steps)
    if y_BTU is None:
        y_BTU = NO_OUTPUT
    _check_contiguous(x_BTF, y_BTU, *states)
    window: _Arguments = (x_BTF, absent, tuple(states), y_BTU, packed.weights, zero_masked)
    weights = packed.weights.flat.size
    if not threads.pays(lanes * steps * weights, lanes):
        kernel(*window, 0, lanes, _ALONE)
        return
    shares = threads.partners(lanes, weights, packed.groups)
    if (
        shares == 1
        or steps == 1
        or not ROW_WISE.isdisjoint(activations)
        or not _together(kernel, window, packed, shares)
    ):
        threads.by_lanes(lambda first, last: kernel(*window, first, last, _ALONE), lanes, lengths_B)


def bind(
    packed: Callable[[], Packed],
    activations: tuple[Spec, ...],
    x_BTF: Floats,
    states: Sequence[Floats],
    y_BTU: Floats,
) -> Callable[[], None]:
    """Return a call of `run`, on one thread, for windows of full lanes in these arrays."""
    _check_contiguous(x_BTF, y_BTU, *states)
    lanes, all_states = len(x_BTF), tuple(states)

    def call() -> None:
        now = packed()
        kernel = now.kernel(activations)
        kernel(x_BTF, _ALL_PRESENT, all_states, y_BTU, now.weights, False, 0, lanes, _ALONE)

    return call


def _absent(lengths_B: Ints | None, mask_BT: Bools | None, lanes: int, steps: int) -> Absent:
    if lengths_B is None:
        lengths_B = NO_LENGTHS
    elif lengths_B.shape != (lanes,):
        raise ValueError(f"expected {lanes} lengths, received shape {lengths_B.shape}")
    if mask_BT is None:
        mask_BT = NO_MASK
    elif mask_BT.shape != (lanes, steps):
        raise ValueError(f"expected a mask of shape {(lanes, steps)}, received {mask_BT.shape}")
    _check_contiguous(lengths_B, mask_BT)
    return Absent(lengths_B, mask_BT)


def _check_contiguous(*arrays: Array) -> None:
    for array in arrays:
        if not array.flags.c_contiguous:
            raise ValueError(
                f"expected a C-contiguous array, received shape {array.shape} with strides "
                f"{array.strides}"
            )


def _together(kernel: Kernel, window: _Arguments, packed: Packed, shares: int) -> bool:
    """Run all lanes in `shares` threads, each on some of the units.

    Return False, with nothing done, if too few threads are idle.
    """
    recurrent = simd.recurrent
    lanes, _, features = window[0].shape
    floats = recurrent.scratch(
        packed.weights.unit.size, lanes, features, shares, packed.lane_vectors, packed.word
    )
    scratch, barrier = np.zeros(floats, np.float32), np.zeros(recurrent.ALONE + 1, np.int64)
    done = team.together(
        lambda number: kernel(*window, 0, lanes, Share(number, shares, scratch, barrier)),
        shares,
        release=lambda: barrier.__setitem__(0, recurrent.RELEASE_ALL),
    )
    if done:
        team.report_latency(slow=bool(barrier[recurrent.ALONE]))
    return done


def unless_row_wise(
    compiled: Callable[[tuple[Spec, ...]], Kernel], plain: Callable[..., CellStep]
) -> Callable[[tuple[Spec, ...]], Kernel]:
    """Return a function from activations to their kernel.

    The kernel is in NumPy if an activation is in ROW_WISE; `plain(*activations)` makes its step.
    """

    def entry(activations: tuple[Spec, ...]) -> Kernel:
        if ROW_WISE.isdisjoint(activations):
            return compiled(activations)
        step = plain(*activations)

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

    return entry


def dense_product(kernel_FU: Floats, bias_U: Floats | None = None) -> Callable[[Floats], Floats]:
    """Return the function x_NF -> x_NF K + b (N, U), by the Dense kernel."""
    packed = dense.pack(kernel_FU, bias_U)

    def product(x_NF: Floats) -> Floats:
        y_NU = np.empty((len(x_NF), kernel_FU.shape[1]), np.float32)
        dense.run(packed, np.ascontiguousarray(x_NF), y_NU)
        return y_NU

    return product
