"""Cast callers' values to the arrays that layers compute with."""

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import DataError, DTypeError


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
        if array.size and not (np.isfinite(array).all() and (array == np.floor(array)).all()):
            raise DTypeError(f"{owner}: token ids must be whole numbers, received {array.dtype}")
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
