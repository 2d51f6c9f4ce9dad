"""Causal 1-D convolution over a window of lanes; the state is the last inputs of each lane."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from streamrnn.kernels import activation as activations
from streamrnn.kernels import packing, threads
from streamrnn.kernels.activation import Spec, label
from streamrnn.kernels.call import NO_LENGTHS, NO_MASK

ROWS = 48
"""Steps of a lane that are taken through all units before the next."""


class Packed:
    """A convolution's weights as its kernel reads them, and the kernels compiled for it."""

    __slots__ = ("again", "bias", "dilation", "entries", "n", "taps", "vectors", "weights")

    def __init__(
        self,
        weights: Any,
        bias: Any,
        n: int,
        vectors: int,
        taps: int,
        dilation: int,
        again: Callable[[], Any],
    ) -> None:
        self.weights, self.bias, self.n, self.vectors = weights, bias, n, vectors
        self.taps, self.dilation, self.again = taps, dilation, again
        self.entries: dict[Spec, Callable[..., None]] = {}

    def __reduce__(self) -> Any:
        return self.again, ()

    def entry(self, activation: Spec) -> Callable[..., None]:
        """The kernel for this activation, compiled on first use."""
        if activation not in self.entries:
            from streamrnn.kernels import jit

            n, vectors = self.n, self.vectors
            self.entries[activation] = jit.compiled(
                f"conv1d-{n}x{vectors}-{label(activation)}",
                lambda: _kernel(n, vectors, activation),
                _signature(),
            )
        return self.entries[activation]


def pack(kernel_KFU: Any, bias_U: Any = None, *, dilation: int = 1) -> Packed:
    """Weights (K, F, U) and (U,) or None -> what `run` takes."""
    from streamrnn.kernels.jit import simd

    n, (taps, features, units) = simd(), kernel_KFU.shape
    if bias_U is None:
        bias_U = np.zeros(units, np.float32)
    v = packing.vectors_of(units, n, 1)
    flat_FU = np.reshape(kernel_KFU, (taps * features, units))
    weights = packing.weights([([flat_FU], [])], n, v)
    starts = packing.starts([[bias_U]], n, v)
    again = partial(pack, kernel_KFU, bias_U, dilation=dilation)
    return Packed(weights, starts, n, v, taps, dilation, again)


def run(
    packed: Packed,
    x_BTF: Any,
    lengths_B: Any,
    mask_BT: Any,
    state_BCF: Any,
    y_BTU: Any,
    *,
    activation: Spec = "linear",
) -> None:
    """Convolve the C = (K-1)*dilation inputs before the window and the window's into `y_BTU`.

    `state_BCF` moves on in place by each lane's own steps. Steps past a length, or masked, are
    absent: they are not in the past of later ones, and nothing is written for them.
    """
    if not x_BTF.size:
        return
    if activation == "softmax":
        run(packed, x_BTF, lengths_B, mask_BT, state_BCF, y_BTU)
        activations.run("softmax", y_BTU, y_BTU)
        return
    entry = packed.entries.get(activation) or packed.entry(activation)
    lengths_B = NO_LENGTHS if lengths_B is None else lengths_B
    mask_BT = NO_MASK if mask_BT is None else mask_BT

    def part(first: int, last: int) -> None:
        entry(
            x_BTF, lengths_B, mask_BT, state_BCF, y_BTU, packed.weights, packed.bias,
            packed.taps, packed.dilation, first, last,
        )  # fmt: skip

    lanes, steps, _ = x_BTF.shape
    if lanes > 1 and threads.pays(lanes * steps * packed.weights.size):
        threads.by_lanes(part, lanes, lengths_B)
    else:
        part(0, lanes)


def _kernel(n: int, vectors: int, activation: Spec) -> Any:
    from streamrnn.kernels.functions import activation as function
    from streamrnn.kernels.jit import inline, kernel
    from streamrnn.kernels.sweep import NEW, Shape, X, sweep
    from streamrnn.kernels.vector import copier, load, store

    g, copy = function(activation), copier(n)

    @inline
    def cell(s, z, old, new, own):
        store(s, new, g(load(s, z, n)))

    multiply = sweep(Shape(n, vectors, sums=1, x_into=(0,), h_into=()), cell)

    @kernel
    def conv1d(x_BTF, lengths_B, mask_BT, state_BCF, y_BTU, w, bias, taps, dilation, first, last):
        steps, features = x_BTF.shape[1], x_BTF.shape[2]
        units = y_BTU.shape[2]
        x, y, state = x_BTF.reshape(-1), y_BTU.reshape(-1), state_BCF.reshape(-1)
        past = (taps - 1) * dilation * features
        width = taps * features
        groups = (units + n * vectors - 1) // (n * vectors)
        padded = groups * n * vectors
        z = padded
        series = z + 6 * n * vectors  # a lane's past, then its live inputs
        rows_in = series + past + steps * features
        out = rows_in + ROWS * width
        s = np.zeros(out + ROWS * padded, np.float32)
        at = np.zeros(5 * ROWS, np.int64)
        where = np.zeros(steps, np.int64)
        for row in range(ROWS):
            at[X * ROWS + row] = rows_in + row * width
            at[NEW * ROWS + row] = out + row * padded
        copy(bias, 0, s, 0, padded)
        for lane in range(first, last):
            copy(state, lane * past, s, series, past)
            live = 0
            for t in range(min(lengths_B[lane], steps) if lengths_B.size else steps):
                if mask_BT.size == 0 or mask_BT[lane, t]:
                    where[live] = lane * steps + t
                    copy(x, where[live] * features, s, series + past + live * features, features)
                    live += 1
            for begin in range(0, live, ROWS):
                rows = min(ROWS, live - begin)
                for row in range(rows):
                    for tap in range(taps):
                        source = series + (begin + row + tap * dilation) * features
                        copy(s, source, s, rows_in + row * width + tap * features, features)
                multiply(rows, 0, groups, s, z, at, ROWS, 0, s, width, width, 0, w, 0)
                for row in range(rows):
                    copy(s, out + row * padded, y, where[begin + row] * units, units)
            copy(s, series + live * features, state, lane * past, past)

    return conv1d


def _signature() -> Any:
    from numba import types

    f1, f3 = types.Array(types.float32, 1, "C"), types.Array(types.float32, 3, "C")
    lengths, mask = types.Array(types.int64, 1, "C"), types.Array(types.boolean, 2, "C")
    intp = types.intp
    return types.void(f3, lengths, mask, f3, f3, f1, f1, intp, intp, intp, intp)
