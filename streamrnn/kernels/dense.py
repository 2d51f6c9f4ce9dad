"""Dense over rows: y = g(x K + b).

Vectors hold units of one row. Where units are few, as in most last layers, they would be nearly
empty: then vectors hold features of one row, and their places are added up at its end. (Dense(1),
64 features: 29 -> 6 ns a row; less than 16 features cost as much as 16.)
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from streamrnn.kernels import activation as activations
from streamrnn.kernels import packing, threads
from streamrnn.kernels.activation import Spec, label

ROWS = 96
"""Rows that are taken through all units before the next: their inputs stay in the first cache."""

FEW = 4
"""Units that are few."""

SUMS = 16
"""Sums of a row and unit, of every sixteenth feature, where units are few: as many as the widest
vector has places, on every machine, so that all get the same bits."""


class Packed:
    """A Dense layer's weights as its kernel reads them, and the kernels compiled for it.

    `vectors` of `n` units make a group; 0 where units are few.
    """

    __slots__ = ("again", "bias", "entries", "n", "vectors", "weights")

    def __init__(
        self, weights: Any, bias: Any, n: int, vectors: int, again: Callable[[], Any]
    ) -> None:
        self.weights, self.bias, self.n, self.vectors = weights, bias, n, vectors
        self.again = again
        self.entries: dict[Spec, Callable[..., None]] = {}

    def __reduce__(self) -> Any:
        return self.again, ()

    def entry(self, activation: Spec) -> Callable[..., None]:
        """The kernel for this activation, compiled on first use."""
        if activation not in self.entries:
            from streamrnn.kernels import jit

            n, vectors = self.n, self.vectors
            self.entries[activation] = jit.compiled(
                f"dense-{n}x{vectors}-{label(activation)}",
                lambda: _kernel(n, vectors, activation) if vectors else _few(n, activation),
                _signature(),
            )
        return self.entries[activation]


def pack(kernel_FU: Any, bias_U: Any = None) -> Packed:
    """Weights (F, U) and (U,) or None -> what `run` takes."""
    from streamrnn.kernels.jit import simd

    n, units = simd(), kernel_FU.shape[1]
    if bias_U is None:
        bias_U = np.zeros(units, np.float32)
    again = partial(pack, kernel_FU, bias_U)
    if units <= FEW:
        features = len(kernel_FU)
        weights = np.zeros((units, -(-features // SUMS) * SUMS), np.float32)
        weights[:, :features] = kernel_FU.T
        return Packed(weights.reshape(-1), np.ascontiguousarray(bias_U, np.float32), n, 0, again)
    v = packing.vectors_of(units, n, 1)
    weights = packing.weights([([kernel_FU], [])], n, v)
    return Packed(weights, packing.starts([[bias_U]], n, v), n, v, again)


def run(packed: Packed, x_NF: Any, y_NU: Any, *, activation: Spec = "linear") -> None:
    """`y_NU` = the activation of each row of `x_NF` times the weights plus the bias."""
    if not y_NU.size:
        return
    if activation == "softmax":
        run(packed, x_NF, y_NU)
        activations.run("softmax", y_NU, y_NU)
        return
    entry = packed.entries.get(activation) or packed.entry(activation)
    rows, weights, bias = x_NF.shape[0], packed.weights, packed.bias
    if rows == 1 or not threads.pays(rows * weights.size):
        entry(x_NF, y_NU, weights, bias, 0, rows)
        return
    threads.by_lanes(lambda i, j: entry(x_NF, y_NU, weights, bias, i, j), rows)


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
    def dense(x_NF, y_NU, w, bias, first, last):
        features, units = x_NF.shape[1], y_NU.shape[1]
        x, y = x_NF.reshape(-1), y_NU.reshape(-1)
        groups = (units + n * vectors - 1) // (n * vectors)
        padded = groups * n * vectors
        cap = min(ROWS, last - first)
        z = padded
        out = z + 6 * n * vectors
        s = np.zeros(out + cap * padded, np.float32)
        at = np.zeros(5 * cap, np.int64)
        copy(bias, 0, s, 0, padded)
        for begin in range(first, last, cap):
            rows = min(cap, last - begin)
            for row in range(rows):
                at[X * cap + row] = (begin + row) * features
                at[NEW * cap + row] = out + row * padded
            multiply(rows, 0, groups, s, z, at, cap, 0, x, features, features, 0, w, 0)
            for row in range(rows):
                copy(s, out + row * padded, y, (begin + row) * units, units)

    return dense


def _few(n: int, activation: Spec) -> Any:
    from streamrnn.kernels.functions import activation as function
    from streamrnn.kernels.jit import inline, kernel
    from streamrnn.kernels.vector import copier, fma, load, splat, store, transposer

    g, copy, transpose, vectors = function(activation), copier(n), transposer(n), SUMS // n

    @inline
    def add_up(s, i):
        """Vectors i, i + n, … of `SUMS`, two that are half of all apart at a time, into i."""
        half = SUMS // 2
        while half:
            for k in range(i, i + half * n, n):
                store(s, k, load(s, k, n) + load(s, k + half * n, n))
            half //= 2

    @kernel
    def dense(x_NF, y_NU, w, bias, first, last):
        features, units = x_NF.shape[1], y_NU.shape[1]
        x, y = x_NF.reshape(-1), y_NU.reshape(-1)
        whole = features // SUMS * SUMS
        padded = (features + SUMS - 1) // SUMS * SUMS
        turned = 4 * SUMS  # before: what four rows have beyond `whole`, filled up with zeros
        sums = turned + SUMS * n
        s = np.zeros(sums + units * SUMS * n, np.float32)
        for begin in range(first, last, n):
            rows = min(n, last - begin)
            for r in range(0, rows, 4):  # four in turn, as each addition takes a while
                i = (begin + r) * features
                j = min(begin + r + 1, last - 1) * features
                k = min(begin + r + 2, last - 1) * features
                m = min(begin + r + 3, last - 1) * features
                copy(x, i + whole, s, 0, features - whole)
                copy(x, j + whole, s, SUMS, features - whole)
                copy(x, k + whole, s, 2 * SUMS, features - whole)
                copy(x, m + whole, s, 3 * SUMS, features - whole)
                for vector in range(units * vectors):
                    own = vector // vectors * padded
                    begin_f = vector % vectors * n
                    a = b = c = d = splat(np.float32(0), n)
                    for f in range(begin_f, whole, SUMS):
                        weight = load(w, own + f, n)
                        a = fma(load(x, i + f, n), weight, a)
                        b = fma(load(x, j + f, n), weight, b)
                        c = fma(load(x, k + f, n), weight, c)
                        d = fma(load(x, m + f, n), weight, d)
                    if whole < features:
                        weight = load(w, own + whole + begin_f, n)
                        a = fma(load(s, begin_f, n), weight, a)
                        b = fma(load(s, begin_f + SUMS, n), weight, b)
                        c = fma(load(s, begin_f + 2 * SUMS, n), weight, c)
                        d = fma(load(s, begin_f + 3 * SUMS, n), weight, d)
                    out = sums + (vector * n + r) * n
                    store(s, out, a)
                    store(s, out + n, b)
                    store(s, out + 2 * n, c)
                    store(s, out + 3 * n, d)
            for u in range(units):
                for v in range(vectors):
                    transpose(s, sums + (u * vectors + v) * n * n, n, s, turned + v * n * n)
                add_up(s, turned)
                store(s, turned, g(load(s, turned, n) + splat(bias[u], n)))
                for r in range(rows):
                    y[(begin + r) * units + u] = s[turned + r]

    return dense


def _signature() -> Any:
    from numba import types

    f1, f2 = types.Array(types.float32, 1, "C"), types.Array(types.float32, 2, "C")
    return types.void(f2, f2, f1, f1, types.intp, types.intp)
