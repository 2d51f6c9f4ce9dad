"""Dense over rows: y = g(x K + b).

Vectors hold units of one row. Where units are few, as in most last layers, they would be nearly
empty: then vectors hold rows, of one unit. (Dense(1), 64 features: 29 -> 10 ns a row; Dense(8) or
4096 features gain nothing.) A row's additions have the same order in both.
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

MOST_FEATURES = 1024
"""Of four vectors of rows, which then stay in the second cache."""


class Packed:
    """A Dense layer's weights as its kernel reads them, and the kernels compiled for it.

    `vectors` of `n` units make a group; 0 where vectors hold rows.
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
                lambda: _kernel(n, vectors, activation) if vectors else _by_rows(n, activation),
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
    if 4 * units <= n and len(kernel_FU) <= MOST_FEATURES:
        weights = np.ascontiguousarray(kernel_FU, np.float32).reshape(-1)
        return Packed(weights, np.ascontiguousarray(bias_U, np.float32), n, 0, again)
    v = packing.vectors_of(units, n, 1)
    weights = packing.weights([([kernel_FU], [])], n, v)
    return Packed(weights, packing.starts([[bias_U]], n, v), n, v, again)


def run(packed: Packed, x_NF: Any, y_NU: Any, *, activation: Spec = "linear") -> None:
    """`y_NU` = the activation of each row of `x_NF` times the weights plus the bias."""
    if not x_NF.size:
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


def _by_rows(n: int, activation: Spec) -> Any:
    from streamrnn.kernels.functions import activation as function
    from streamrnn.kernels.jit import kernel, merge
    from streamrnn.kernels.vector import fma, load, splat, store, transposer

    g, transpose = function(activation), transposer(n)

    @merge
    def turn(x, begin, rows, features, s, j):
        """Inputs k of n rows to s[j + k*n:]; `rows` of them are there."""
        whole = features // n * n if rows == n else 0
        for k in range(0, whole, n):
            transpose(x, begin * features + k, features, s, j + k * n)
        for r in range(rows):
            for k in range(whole, features):
                s[j + k * n + r] = x[(begin + r) * features + k]

    @kernel
    def dense(x_NF, y_NU, w, bias, first, last):
        features, units = x_NF.shape[1], y_NU.shape[1]
        x, y = x_NF.reshape(-1), y_NU.reshape(-1)
        block = features * n
        most = 4 * n if last - first > n else n
        s = np.empty(most * (features + 1), np.float32)
        out = most * features
        for begin in range(first, last, most):
            rows = min(most, last - begin)
            for part in range(0, rows, n):
                turn(x, begin + part, min(n, rows - part), features, s, part * features)
            for u in range(units):
                a = b = c = d = splat(bias[u], n)
                if rows <= n:
                    for k in range(features):
                        a = fma(load(s, k * n, n), splat(w[k * units + u], n), a)
                    store(s, out, g(a))
                else:  # four sums in turn, as each addition takes a while
                    for k in range(features):
                        weight = splat(w[k * units + u], n)
                        a = fma(load(s, k * n, n), weight, a)
                        b = fma(load(s, k * n + block, n), weight, b)
                        c = fma(load(s, k * n + 2 * block, n), weight, c)
                        d = fma(load(s, k * n + 3 * block, n), weight, d)
                    store(s, out, g(a))
                    store(s, out + n, g(b))
                    store(s, out + 2 * n, g(c))
                    store(s, out + 3 * n, g(d))
                for r in range(rows):
                    y[(begin + r) * units + u] = s[out + r]

    return dense


def _signature() -> Any:
    from numba import types

    f1, f2 = types.Array(types.float32, 1, "C"), types.Array(types.float32, 2, "C")
    return types.void(f2, f2, f1, f1, types.intp, types.intp)
