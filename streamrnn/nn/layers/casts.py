"""Cast callers' values to the arrays that layers compute with."""

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints
from streamrnn.errors import DataError, DTypeError, ShapeError
from streamrnn.nn.layers.structure import Shape


def cast_floats(owner: str, x: object) -> Floats:
    """Return x as C-contiguous float32.

    Raises DTypeError if it is not numeric, DataError if a number is too large for float32.
    """
    if type(x) is np.ndarray and x.dtype == np.float32:
        return x if x.flags.c_contiguous else np.ascontiguousarray(x)
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise DTypeError(
            f"{owner}: expected numbers (float32; other floats, integers and booleans are cast), "
            f"received {array.dtype}"
        )
    try:
        with np.errstate(over="raise"):
            return np.ascontiguousarray(array, dtype=np.float32)
    except FloatingPointError:
        largest = np.abs(array[np.isfinite(array)]).max()
        raise DataError(
            f"{owner}: received numbers of up to {largest:.3g}, too large for float32 (3.4e38)"
        ) from None


def cast_ids(owner: str, x: object) -> Array:
    """Return x as C-contiguous int64.

    Raises DTypeError unless all are whole numbers, DataError if one is too large for int64.
    """
    array = np.asarray(x)
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and (array == np.floor(array)).all()):
            raise DTypeError(
                f"{owner}: token ids must be whole numbers, but some have a fraction or are not "
                f"finite; received {array.dtype}"
            )
    elif array.dtype.kind not in "iub":
        raise DTypeError(f"{owner}: token ids must be integers, received {array.dtype}")
    if array.dtype.kind == "f" or array.dtype == np.uint64:
        outside = array >= 2**63 if array.dtype.kind == "u" else np.abs(array) >= 2.0**63
        if outside.any():
            first = tuple(int(i) for i in np.argwhere(outside)[0])
            raise DataError(
                f"{owner}: token id {array[first]} at {first} is outside the range of int64"
            )
    return np.ascontiguousarray(array, dtype=np.int64)


def first_outside(ids: Array, size: int, lengths: Ints | None) -> tuple[int, ...] | None:
    """Return the place of the first id outside 0…size - 1, None if there is none.

    lengths: steps of each row, or None; ids past the end of a row do not count. Ids (B,) have no
    steps.
    """
    outside = (ids < 0) | (ids >= size)
    if lengths is not None and ids.ndim > 1:
        within = np.arange(ids.shape[1]) < lengths[:, None]
        outside &= within.reshape(within.shape + (1,) * (ids.ndim - 2))
    places = np.argwhere(outside)
    return tuple(places[0].tolist()) if len(places) else None


def cast_strings(owner: str, x: object) -> Array:
    """Return x as an array. Raises DTypeError unless it has strings."""
    array = np.asarray(x)
    if array.dtype.kind not in "USOT":
        raise DTypeError(f"{owner}: expected strings, received {array.dtype}")
    return array


CASTS = {"float32": cast_floats, "int64": cast_ids, "string": cast_strings}
"""How callers' values are cast for a layer, or for an input of a model, by its dtype."""


def cast_input(owner: str, shape: Shape, dtype: str, x: object) -> Array:
    """Return an input of a model, cast and checked against its shape without the batch.

    Raises ShapeError, or an error of the cast.
    """
    array: Array = CASTS[dtype](owner, x)
    received = array.shape[1:]
    fits = len(received) == len(shape) and all(
        n is None or n == m for n, m in zip(shape, received, strict=True)
    )
    if not fits:
        axes = ", ".join(["batch", *map(str, shape)])
        raise ShapeError(f"{owner}: expected shape ({axes}), received {array.shape}")
    return array
