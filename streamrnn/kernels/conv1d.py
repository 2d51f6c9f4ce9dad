"""Causal 1-D convolution over a window of lanes; the state is the last inputs of each lane."""

from functools import partial

import numpy as np

from streamrnn import simd
from streamrnn.arrays import Bools, Floats, Ints
from streamrnn.kernels import activation as activations
from streamrnn.kernels import packing, threads
from streamrnn.kernels.activation import Spec
from streamrnn.kernels.packed import Packed
from streamrnn.kernels.recurrent import NO_LENGTHS, NO_MASK
from streamrnn.simd.arguments import Absent, Kernel


def pack(kernel_KFU: Floats, bias_U: Floats | None = None, *, dilation: int = 1) -> Packed:
    """Pack weights (K, F, U) and (U,) or None for `run`."""
    n, (taps, features, units) = simd.jit.width(), kernel_KFU.shape
    if bias_U is None:
        bias_U = np.zeros(units, np.float32)
    v = packing.vectors_a_group(units, n, 1)
    flat_FU = np.reshape(kernel_KFU, (taps * features, units))

    def kernel(activations: tuple[Spec, ...]) -> Kernel:
        entry = simd.conv1d.entry(n, v, *activations)
        return lambda *window, lanes: entry(*window, taps, dilation, *lanes)

    return Packed(
        packing.packed([([flat_FU], [])], [[bias_U]], n, v),
        1,
        kernel,
        partial(pack, kernel_KFU, bias_U, dilation=dilation),
    )


def run(
    packed: Packed,
    x_BTF: Floats,
    lengths_B: Ints | None,
    mask_BT: Bools | None,
    state_BCF: Floats,
    y_BTU: Floats,
    *,
    activation: Spec = "linear",
) -> None:
    """Convolve the C = (K-1)*dilation inputs before the window and the window's into `y_BTU`.

    `state_BCF` is advanced in place by each lane's present steps. Steps past a length, or masked,
    are absent: later steps do not see them, and nothing is written for them.
    """
    if not x_BTF.size:
        return
    if activation == "softmax":
        run(packed, x_BTF, lengths_B, mask_BT, state_BCF, y_BTU)
        activations.run("softmax", y_BTU, y_BTU)
        return
    kernel, weights = packed.kernel((activation,)), packed.weights
    lengths_B = NO_LENGTHS if lengths_B is None else lengths_B
    absent = Absent(lengths_B, NO_MASK if mask_BT is None else mask_BT)

    def run_lanes(first: int, last: int) -> None:
        kernel(x_BTF, absent, state_BCF, y_BTU, weights, lanes=(first, last))

    lanes, steps, _ = x_BTF.shape
    if lanes > 1 and threads.pays(lanes * steps * weights.flat.size):
        threads.by_lanes(run_lanes, lanes, lengths_B)
    else:
        run_lanes(0, lanes)
