"""Losses and their derivatives over whole arrays; the order of sums is fixed."""

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn import simd

_NONE = np.empty(0, np.float32)


def elementwise(
    name: str, p: Floats, t: Floats, *parameters: float, quantiles: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return the loss of each element and its derivative by `p`, in arrays of one shape.

    name: squared, absolute, percentage, squared_logarithm, log_cosh, huber (parameter: delta),
    poisson, hinge, squared_hinge, binary, binary_of_logits, gaussian (p: a deviation, t: an error),
    or pinball with the `quantiles` of each element.
    """
    value, slope = np.empty_like(p), np.empty_like(p)
    if p.size:
        q = _NONE if quantiles is None else quantiles.reshape(-1)
        kernel = simd.losses.elementwise_kernel(name, *parameters)
        kernel(p.reshape(-1), t.reshape(-1), q, value.reshape(-1), slope.reshape(-1))
    return value, slope


def of_rows(name: str, p: Floats, t: Floats) -> tuple[Floats, Floats]:
    """Return the loss of each row (over the last axis), and its derivative by `p`.

    name: logits or probabilities (cross-entropy), divergence, cosine, or hinge.
    """
    value, slope = np.empty(p.shape[:-1], np.float32), np.empty_like(p)
    if p.size:
        kernel = simd.losses.of_rows_kernel(name)
        kernel(p.reshape(-1), t.reshape(-1), p.shape[-1], value.reshape(-1), slope.reshape(-1))
    return value, slope


@functools.cache
def over_rows(
    function: Callable[..., Any], *, gradient: bool = False
) -> Callable[[Array, Array], Array]:
    """Return a function of arrays (y_true, y_pred) that calls a function of rows (K,) and (U,).

    `function` returns a number, or with `gradient` an array (U,), and is compiled on first use. The
    function of arrays raises ArgumentError if Numba cannot compile `function`, or if `function`
    uses an index beyond a row; ShapeError if the arrays differ in more than the last axis.
    """
    loop = simd.cell.rows_around(function)
    plain = getattr(function, "py_func", function)

    def run(t: Array, p: Array) -> Array:
        if t.shape[:-1] != p.shape[:-1] or not p.ndim:
            raise ShapeError(
                f"{plain.__qualname__}: expected a row of y for each row of y_pred, whose shape is "
                f"{p.shape}, received {t.shape}"
            )
        rows = [np.ascontiguousarray(array).reshape(-1, array.shape[-1]) for array in (t, p)]
        if not p.size:
            return np.zeros(p.shape if gradient else p.shape[:-1], p.dtype)
        beyond = f"{plain.__qualname__}: it uses an index beyond a row of y or y_pred"
        first = rows[1][0] if gradient else np.zeros(())
        try:  # where Python, or its math, raises these errors, compiled code gives NaN
            with np.errstate(all="ignore"), suppress(ArithmeticError, ValueError):
                first = np.asarray(plain(*(array[0].copy() for array in rows)))
        except IndexError:
            raise ArgumentError(beyond) from None
        out = np.empty((len(rows[1]), *first.shape), p.dtype)
        try:
            loop(*(array[:0] for array in (*rows, out)))  # no rows: only compiles
        except Exception as error:
            raise ArgumentError(
                f"{plain.__qualname__}: Numba cannot compile it. Correct it, or write `call` and "
                f"`gradient` of whole arrays, which NumPy computes. Numba's error: {error}"
            ) from error
        try:
            loop(*rows, out)
        except IndexError:
            raise ArgumentError(beyond) from None
        return out.reshape(*p.shape[:-1], *first.shape)

    return run


def means_of_rows(a: Floats) -> Floats:
    """Return the mean over the last axis."""
    out = np.empty(a.shape[:-1], np.float32)
    if out.size:
        flat = np.ascontiguousarray(a).reshape(-1)
        simd.losses.means_of_rows_kernel()(flat, a.shape[-1], out.reshape(-1))
    return out


def add_at(out: Array, places: Array, values: Array) -> None:
    """Add `values` to out[places], one after the other, in place; both are float64 (N,)."""
    simd.losses.add_at_kernel()(
        out, np.ascontiguousarray(places, np.int64), np.ascontiguousarray(values, np.float64)
    )


def total(a: Floats) -> float:
    """Return the sum of all elements, added in order, in float64."""
    return dot(a, np.ones(a.shape, np.float32))


def dot(a: Floats, b: Floats) -> float:
    """Return the sum of the products of all elements, added in order, in float64."""
    out = np.zeros(1)
    simd.losses.products_kernel()(
        np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1), out
    )
    return float(out[0])
