"""Calling a recurrent kernel: stand-ins for what is left out, and lanes split between threads."""

from typing import Any

import numpy as np

from streamrnn import simd
from streamrnn.kernels import threads
from streamrnn.kernels.activation import Spec
from streamrnn.kernels.packed import Kernel, Packed
from streamrnn.simd.arguments import Absent, Share

NO_LENGTHS = np.empty(0, np.int64)
NO_MASK = np.empty((0, 0), np.bool_)
_NO_OUTPUT = np.empty((0, 0, 0), np.float32)
_ALL_PRESENT = Absent(NO_LENGTHS, NO_MASK)
_ALONE = Share(0, 1, np.empty(0, np.float32), NO_LENGTHS)


def run(
    packed: Packed,
    activations: tuple[Spec, ...],
    x_BTF: Any,
    lengths_B: Any,
    mask_BT: Any,
    states: list[Any],
    y_BTU: Any,
    *,
    zero_masked: bool = False,
) -> None:
    """Advance `states` (each (B, U), h first) by up to T steps; write each h into `y_BTU`.

    `activations` as the operator's `pack` says. Lengths, mask and `y_BTU` may be None. Where a step
    is masked the output is the h before it, or 0 with `zero_masked`.

    Raises:
        ValueError: an array is not C-contiguous, or the mask or lengths do not fit: a kernel would
            read or write beside it.
    """
    lanes, steps, _ = x_BTF.shape
    if not lanes or not steps:
        return
    kernel = packed.kernel(activations)
    absent = _ALL_PRESENT
    if lengths_B is not None or mask_BT is not None:
        absent = _absent(lengths_B, mask_BT, lanes, steps)
    if y_BTU is None:
        y_BTU = _NO_OUTPUT
    for array in (x_BTF, y_BTU, *states):
        _check_contiguous(array)
    window = (x_BTF, absent, tuple(states), y_BTU, packed.weights, zero_masked)
    weights = packed.weights.flat.size
    if not threads.pays(lanes * steps * weights):
        kernel(*window, 0, lanes, _ALONE)
        return
    parts = threads.partners(lanes, weights, packed.groups)
    if (
        parts == 1
        or steps == 1
        or "softmax" in activations
        or not _together(kernel, window, packed, parts)
    ):
        threads.by_lanes(lambda first, last: kernel(*window, first, last, _ALONE), lanes, lengths_B)


def _absent(lengths_B: Any, mask_BT: Any, lanes: int, steps: int) -> Absent:
    if lengths_B is None:
        lengths_B = NO_LENGTHS
    elif lengths_B.shape != (lanes,):
        raise ValueError(f"expected {lanes} lengths, received shape {lengths_B.shape}")
    if mask_BT is None:
        mask_BT = NO_MASK
    elif mask_BT.shape != (lanes, steps):
        raise ValueError(f"expected a mask {(lanes, steps)}, received shape {mask_BT.shape}")
    _check_contiguous(lengths_B)
    _check_contiguous(mask_BT)
    return Absent(lengths_B, mask_BT)


def _check_contiguous(array: Any) -> None:
    if not array.flags.c_contiguous:
        raise ValueError(f"kernels take C-contiguous arrays, received strides {array.strides}")


def _together(kernel: Kernel, window: tuple[Any, ...], packed: Packed, parts: int) -> bool:
    """Several threads take all lanes, each some of their units; false if there are too few now."""
    recurrent = simd.recurrent
    lanes, _, features = window[0].shape
    floats = recurrent.scratch(
        packed.weights.unit.size, lanes, features, parts, packed.lane_vectors
    )
    scratch, barrier = np.zeros(floats, np.float32), np.zeros(recurrent.ALONE + 1, np.int64)
    done = threads.together(
        lambda part: kernel(*window, 0, lanes, Share(part, parts, scratch, barrier)),
        parts,
        release=lambda: barrier.__setitem__(0, recurrent.RELEASE_ALL),
    )
    if done:
        threads.report_latency(slow=bool(barrier[recurrent.ALONE]))
    return done
