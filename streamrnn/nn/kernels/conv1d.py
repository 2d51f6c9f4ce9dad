"""Causal 1-D convolution over a window of lanes; the state is the last inputs of each lane."""

from functools import partial

import numpy as np

from streamrnn.base.arrays import Bools, Floats, Ints
from streamrnn.nn import simd
from streamrnn.nn.kernels import activation as activations
from streamrnn.nn.kernels import packing, threads
from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.kernels.gradients import (
    Outer,
    Projection,
    StridedRows,
    flat_indices,
    flattened,
    outer,
    padded_columns,
)
from streamrnn.nn.kernels.packing import Packed, WeightsLike
from streamrnn.nn.kernels.recurrent import NO_LENGTHS, NO_MASK
from streamrnn.nn.simd.arguments import Absent, Kernel


def pack(kernel_KFU: WeightsLike, bias_U: Floats | None = None, *, dilation: int = 1) -> Packed:
    """Pack weights (K, F, U), which may be integers, and a bias (U,) or None, for `run`."""
    n, (taps, _, units) = simd.jit.width(), kernel_KFU.shape
    if bias_U is None:
        bias_U = np.zeros(units, np.float32)
    v, word = packing.vectors_a_group(units, n, 1), packing.word_of(kernel_KFU)
    flat = packing.flattened(kernel_KFU)

    def kernel(activations: tuple[Spec, ...]) -> Kernel:
        entry = simd.conv1d.entry(n, v, word, *activations)
        return lambda *window, lanes: entry(*window, taps, dilation, *lanes)

    return Packed(
        packing.packed([([flat], [])], [[bias_U]], n, v, rest=packing.rest_of(kernel_KFU)),
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
    """Convolve the inputs of a window, and the C = (K-1)*dilation inputs before it, into `y_BTU`.

    `state_BCF` has the inputs before the window; it is advanced in place by each lane's present
    steps. Steps past a length, or masked, are absent: later steps do not see them, and nothing is
    written for them, except that an activation in `ROW_WISE` is applied to all of `y_BTU`.
    """
    if not x_BTF.size:
        return
    if activation in activations.ROW_WISE:
        run(packed, x_BTF, lengths_B, mask_BT, state_BCF, y_BTU)
        activations.run(activation, y_BTU, y_BTU)
        return
    kernel, weights = packed.kernel((activation,)), packed.weights
    lengths_B = NO_LENGTHS if lengths_B is None else lengths_B
    absent = Absent(lengths_B, NO_MASK if mask_BT is None else mask_BT)
    lanes, steps, _ = x_BTF.shape
    threads.over_lanes(
        lambda *span: kernel(x_BTF, absent, state_BCF, y_BTU, weights, lanes=span),
        lanes,
        lanes * steps * weights.flat.size,
        lengths_B,
    )


def weight_gradients(
    past_BCF: Floats, x_BTF: Floats, dz_BTU: Floats, taps: int, dilation: int
) -> tuple[Floats, Floats]:
    """Return the gradients of the kernel (K, F, U) and of the bias (U,).

    `past_BCF`: the inputs before the window. Where a step is absent, `x_BTF` and `dz_BTU`, the
    gradient of the sums, are zero. Rows are added step by step, and within a step lane by lane.
    """
    (lanes, steps, features), units = x_BTF.shape, dz_BTU.shape[2]
    series = np.concatenate([past_BCF, x_BTF], axis=1).swapaxes(0, 1).reshape(-1)
    dz = padded_columns(dz_BTU.swapaxes(0, 1).reshape(-1, units))
    rows = StridedRows(dz.reshape(-1), 0, dz.shape[1])
    of_taps = np.empty((taps, features, dz.shape[1]), np.float32)
    of_bias = np.empty((1, dz.shape[1]), np.float32)
    later = dilation * lanes * features
    products = [
        Outer(StridedRows(series, tap * later, features), rows, of_tap)
        for tap, of_tap in enumerate(of_taps)
    ]
    products.append(Outer(StridedRows(np.ones(1, np.float32), 0, 0), rows, of_bias))
    outer(products, [(0, lanes * steps)], again=False)
    return np.ascontiguousarray(of_taps[..., :units]), of_bias[0, :units]


def input_gradients(kernel_KFU: Floats, dz_BTU: Floats, dx_BTF: Floats, dilation: int) -> None:
    """Write the gradient of the window's inputs to `dx_BTF`; inputs before the window get none."""
    (taps, _, units), (lanes, steps, _) = kernel_KFU.shape, dz_BTU.shape
    later = np.zeros((steps + (taps - 1) * dilation, lanes, units), np.float32)
    later[:steps] = dz_BTU.swapaxes(0, 1)
    ahead = [(taps - 1 - tap) * dilation for tap in range(taps)]
    gathered = np.stack([later[begin : begin + steps] for begin in ahead], axis=2)
    (index,) = flat_indices(kernel_KFU.shape)
    order = index.swapaxes(1, 2).reshape(taps * units, -1)
    rows = StridedRows(gathered.reshape(-1), 0, taps * units)
    Projection(np.ascontiguousarray(order)).run(rows, flattened(kernel_KFU), dx_BTF)
