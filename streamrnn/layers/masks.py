"""The mask that a call's `mask` and `lengths` make together."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamrnn.errors import DTypeError, ShapeError
from streamrnn.layers.run import Array


def joined_mask(who: str, shape: Sequence[int], mask: Any, lengths: Any) -> Array | None:
    """mask AND (step < length), bool (B, T); raises ShapeError or DTypeError naming `who`."""
    if len(shape) < 2:
        raise ShapeError(f"{who}: a mask needs a time axis, the input has shape {tuple(shape)}")
    expected = tuple(shape[:2])
    found: Array | None = None
    if mask is not None:
        found = np.asarray(mask)
        if found.dtype != np.bool_:
            raise DTypeError(f"{who}: mask must be bool, received {found.dtype}")
        if found.shape != expected:
            raise ShapeError(f"{who}: mask must have shape {expected}, received {found.shape}")
    if lengths is not None:
        steps = np.asarray(lengths)
        if steps.dtype.kind not in "iu":
            raise DTypeError(f"{who}: lengths must be whole numbers, received {steps.dtype}")
        if steps.shape != expected[:1]:
            raise ShapeError(
                f"{who}: expected one length a row, {expected[0]} in all, received shape "
                f"{steps.shape}"
            )
        if steps.size and (steps.min() < 0 or steps.max() > expected[1]):
            raise ShapeError(
                f"{who}: lengths must lie in 0…{expected[1]}, received "
                f"{int(steps.min())}…{int(steps.max())}"
            )
        within = np.arange(expected[1]) < steps[:, None]
        found = within if found is None else found & within
    return None if found is None else np.ascontiguousarray(found)
