"""Gradients of weights and of inputs, and updates of weights by the formulas of optimizers."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints
from streamrnn.nn import simd
from streamrnn.nn.kernels import packing, threads
from streamrnn.nn.kernels.activation import Spec, derivative_source

PAD = 16
"""Rows of gradients are padded to a multiple of this many floats, whatever the vectors' width."""

Apply: TypeAlias = Callable[..., None]
"""Called with a weight, its gradient and the arrays kept for it: contiguous, of one shape."""

_ONES, _ZERO = np.ones(PAD, np.float32), np.zeros(1, np.float32)


class StridedRows(NamedTuple):
    """Rows of floats in a flat array: the offset of the first, and the step from row to row."""

    flat: Floats
    start: int
    step: int


class Outer(NamedTuple):
    """out (inputs, columns) = the sum over rows of inputs times gradients.

    The number of columns is a multiple of PAD.
    """

    inputs: StridedRows
    gradients: StridedRows
    out: Floats


def outer(products: Sequence[Outer], chunks: Sequence[tuple[int, int]], *, again: bool) -> None:
    """Compute sums over the same rows, one chunk (row, end) after the other.

    again: add to the sums of earlier calls. Columns are divided among threads, 16 at a time.
    """
    kernel = simd.gradients.outer_kernel()
    vectors = PAD // simd.jit.width()
    edges = [0, *accumulate(product.out.shape[1] // PAD for product in products)]

    def work(first: int, last: int) -> None:
        for (a, d, out), begin, end in zip(products, edges, edges[1:], strict=False):
            low, high = max(first, begin), min(last, end)
            if low < high:
                columns = (low - begin) * vectors, (high - begin) * vectors
                if not again:
                    out[:, (low - begin) * PAD : (high - begin) * PAD] = 0
                flat, step = out.reshape(-1), out.shape[1]
                for chunk in chunks:
                    kernel(*a, len(out), *d, flat, step, *chunk, *columns)

    rows = sum(end - row for row, end in chunks)
    threads.over_lanes(work, edges[-1], rows * products_a_row(products))


def elementwise_products(a: StridedRows, d: StridedRows, rows: int, columns: int) -> Floats:
    """Return the sum over rows of inputs times gradients, element by element: (columns,)."""
    out = np.empty(columns, np.float32)
    simd.gradients.products_of_rows_kernel()(*a, *d, rows, out)
    return out


def products_a_row(products: Sequence[Outer]) -> int:
    """Return the number of multiply-adds that a row takes."""
    return sum(product.out.size for product in products)


class Projection:
    """The gradient of inputs: rows of gradients times the weights, transposed.

    `order` (count, F): which element of the flat weights multiplies gradient k for input f.
    """

    def __init__(self, order: Array) -> None:
        self.count, features = order.shape
        n = simd.jit.width()
        self._vectors = packing.vectors_a_group(features, n, 1)
        self._order = WeightOrder(packing.by_group([order], n, self._vectors).reshape(-1))

    def run(self, rows: StridedRows, weights: Floats, dx_BTF: Floats) -> None:
        """Write the gradient of the inputs of row t*B + b to `dx_BTF`[b, t]."""
        kernel = simd.gradients.project_kernel(self._vectors)
        packed = self._order.take(weights)
        d, start, step = rows
        if total := dx_BTF.shape[0] * dx_BTF.shape[1]:
            work = partial(kernel, d, start, step, self.count, packed, dx_BTF)
            threads.over_lanes(work, total, total * packed.size)


def project_few(d_NU: Floats, weights_UF: Floats, dx_NF: Floats) -> None:
    """Write the gradient of inputs for few units: rows of gradients times weights (U, F)."""
    kernel, rows = simd.gradients.project_few_kernel(), len(d_NU)
    work = partial(kernel, d_NU, weights_UF.reshape(-1), dx_NF)
    threads.over_lanes(work, rows, rows * weights_UF.size)


class WeightOrder:
    """Picks the elements `order` of flat weights, whose element 0 is a zero.

    `take` reuses its array.
    """

    def __init__(self, order: Array) -> None:
        self.order, self.packed = order, packing.aligned(order.size)

    def take(self, weights: Floats) -> Floats:
        """Return the elements in this order, in an aligned array."""
        # mode="clip" merely lets NumPy write directly into the array; "raise" goes through a copy.
        weights.take(self.order, out=self.packed, mode="clip")
        return self.packed


def flattened(*weights: Floats) -> Floats:
    """Return a zero and then all weights in one array."""
    return np.concatenate([_ZERO, *(weight.reshape(-1) for weight in weights)])


def flat_indices(*shapes: tuple[int, ...]) -> list[Array]:
    """Return, for weights of these shapes, the index of each element in `flattened`."""
    indices: list[Array] = []
    begin = 1
    for shape in shapes:
        size = math.prod(shape)
        indices.append(np.arange(begin, begin + size).reshape(shape))
        begin += size
    return indices


def dense_gradients(x_NF: Floats, dz_NU: Floats) -> tuple[Floats, Floats]:
    """Return the gradients of Dense's weights (F, U) and bias (U,), from its inputs and `dz_NU`.

    `dz_NU`: the gradients of the sums. Vectors hold either features or units; where neither fills
    whole vectors, the gradients are padded.
    """
    (rows, features), units = x_NF.shape, dz_NU.shape[1]
    x, one = StridedRows(x_NF.reshape(-1), 0, features), StridedRows(_ONES, 0, 0)
    dz = StridedRows(dz_NU.reshape(-1), 0, units)
    if features % PAD == 0 and units % PAD:
        turned, sums = np.empty((units, features), np.float32), np.empty((units, PAD), np.float32)
        outer([Outer(dz, x, turned), Outer(dz, one, sums)], [(0, rows)], again=False)
        return np.ascontiguousarray(turned.T), np.ascontiguousarray(sums[:, 0])
    padded = padded_columns(dz_NU)
    width = padded.shape[1]
    dz = StridedRows(padded.reshape(-1), 0, width)
    kernel, bias = np.empty((features, width), np.float32), np.empty((1, width), np.float32)
    outer([Outer(x, dz, kernel), Outer(one, dz, bias)], [(0, rows)], again=False)
    return np.ascontiguousarray(kernel[:, :units]), bias[0, :units]


def padded_columns(d_NU: Floats) -> Floats:
    """Return gradients whose rows are padded with zeros, as `Outer` needs them."""
    rows, units = d_NU.shape
    width = -(-units // PAD) * PAD
    if width == units:
        return np.ascontiguousarray(d_NU)
    padded = np.zeros((rows, width), np.float32)
    padded[:, :units] = d_NU
    return padded


def summed_over(d: Floats, shape: tuple[int, ...]) -> Floats:
    """Sum a gradient over the axes that have size 1 in `shape`, which has as many axes.

    This is the gradient of an array of `shape` that was broadcast. The order of sums is fixed.
    """
    if d.shape == shape:
        return d
    axes = [axis for axis, size in enumerate(shape) if size == 1 and d.shape[axis] != 1]
    rows = np.moveaxis(d, axes, range(len(axes)))
    rows = padded_columns(rows.reshape(math.prod(rows.shape[: len(axes)]), math.prod(shape)))
    total = np.empty((1, rows.shape[1]), np.float32)
    one = StridedRows(_ONES, 0, 0)
    product = Outer(one, StridedRows(rows.reshape(-1), 0, rows.shape[1]), total)
    outer([product], [(0, len(rows))], again=False)
    return total[0, : math.prod(shape)].reshape(shape)


def times_derivative(spec: Spec, value: Floats, dy: Floats) -> Floats:
    """Return dy times the derivative of an activation at each element.

    `value`: the activation's value, or its input if `derivative_source` says so. A derivative whose
    source is a row is taken over the last axis.
    """
    if spec == "linear":
        return dy
    out = np.empty_like(dy)
    if not dy.size:
        return out
    arrays = value.reshape(-1), np.ascontiguousarray(dy).reshape(-1), out.reshape(-1)
    if derivative_source(spec) == "row":
        simd.activation.OVER_ROWS_BACK[str(spec)]()(*arrays, dy.shape[-1])
    else:
        simd.activation.derivative_kernel(spec)(*arrays)
    return out


def add_rows(gradient_VE: Floats, ids_N: Ints, dy_NE: Floats) -> None:
    """Add each row of `dy_NE` to the row of its id, in the order of the rows."""
    simd.gradients.add_rows_kernel()(gradient_VE, ids_N, dy_NE)


def update(kernel: str, *numbers: float, **form: bool) -> Apply:
    """Return the update by a kernel of `simd.updates`, which documents its arrays and numbers.

    Weights may be read-only arrays. kernel: its name, such as "adam". form: arguments that select
    the form to compile, such as `nesterov`.
    """
    run = getattr(simd.updates, kernel)(**form)
    constants = [np.float32(number) for number in numbers]

    def apply(*arrays: Floats) -> None:
        run(*[array.reshape(-1) for array in arrays], *constants)

    return apply


def power(base: float, exponent: int) -> float:
    """Return base**exponent in float64 by squaring: the same bits on any CPU."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
