"""Dense over rows: y = g(x K + b); products of matrices; and Embedding, which copies rows.

Vectors hold units of one row. With few units, as in most last layers, they would be nearly empty:
then vectors hold features of one row, and their elements are summed at the end. (Dense(1), 64
features: 29 -> 6 ns a row; fewer than 16 features cost as much as 16.)
"""

from functools import partial

import numpy as np

from streamrnn.base.arrays import Floats, Ints
from streamrnn.nn import simd
from streamrnn.nn.kernels import activation as activations
from streamrnn.nn.kernels import packing, threads
from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.kernels.integers import Integers
from streamrnn.nn.kernels.packing import Packed, WeightsLike
from streamrnn.nn.simd.arguments import Weights

FEW = 4
"""Largest number of units for which vectors hold features."""

PRODUCTS_A_FLOAT = 8
"""Number of products that take as long as copying one float: 4096 rows of 128 take 41 µs."""


def pack(kernel_FU: WeightsLike, bias_U: Floats | None = None) -> Packed:
    """Pack weights (F, U), which may be integers, and a bias (U,) or None, for `run`."""
    n, (features, units) = simd.jit.width(), kernel_FU.shape
    if bias_U is None:
        bias_U = np.zeros(units, np.float32)
    again, word = partial(pack, kernel_FU, bias_U), packing.word_of(kernel_FU)
    if units <= FEW and not isinstance(kernel_FU, Integers):
        sums, vectors = simd.dense.SUMS, 0
        filled = np.zeros((units, -(-features // sums) * sums), np.float32)
        filled[:, :features] = kernel_FU.T
        weights = Weights(filled.reshape(-1), np.ascontiguousarray(bias_U, np.float32))
    else:
        vectors = packing.vectors_a_group(units, n, 1)
        flat, rest = packing.flattened(kernel_FU), packing.rest_of(kernel_FU)
        weights = packing.packed([([flat], [])], [[bias_U]], n, vectors, rest=rest)
    return Packed(weights, 1, lambda names: simd.dense.entry(n, vectors, word, *names), again)


def run(packed: Packed, x_NF: Floats, y_NU: Floats, *, activation: Spec = "linear") -> None:
    """Write g(x K + b) to `y_NU`, where `x_NF` is x and `packed` has K and b."""
    if not y_NU.size:
        return
    if activation in activations.ROW_WISE:
        run(packed, x_NF, y_NU)
        activations.run(activation, y_NU, y_NU)
        return
    kernel = packed.kernel((activation,))
    rows, (weights, bias) = x_NF.shape[0], packed.weights
    if rows == 1 or not threads.pays(rows * weights.size):
        kernel(x_NF, y_NU, weights, bias, 0, rows)
        return
    threads.by_lanes(lambda i, j: kernel(x_NF, y_NU, weights, bias, i, j), rows)


def products(x_BMK: Floats, y_BKN: Floats) -> Floats:
    """Return the product of each of B matrices with its partner: (B, M, N)."""
    x_BMK, y_BKN = np.ascontiguousarray(x_BMK), np.ascontiguousarray(y_BKN)
    z_BMN = np.zeros((*x_BMK.shape[:2], y_BKN.shape[2]), np.float32)
    multiply = partial(simd.dense.products_kernel(), x_BMK, y_BKN, z_BMN)
    threads.over_lanes(multiply, len(x_BMK), z_BMN.size * x_BMK.shape[2])
    return z_BMN


def embed(table_VE: Floats, ids_N: Ints, y_NE: Floats) -> None:
    """Set `y_NE`[n] = `table_VE`[`ids_N`[n]]. Layers check that the ids are rows of the table."""
    if not threads.pays(PRODUCTS_A_FLOAT * y_NE.size):
        # mode="clip" merely lets NumPy write directly into y_NE; "raise" goes through a copy.
        np.take(table_VE, ids_N, axis=0, out=y_NE, mode="clip")
        return
    take = simd.dense.embedding_kernel()
    table, ids = np.ascontiguousarray(table_VE), np.ascontiguousarray(ids_N)
    threads.by_lanes(lambda first, last: take(table, ids, y_NE, first, last), len(ids))
