"""The masks of a call: what its `mask` and `lengths` make together, and what arrays carry."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from streamrnn.arrays import Array, Bools
from streamrnn.errors import DTypeError, ShapeError
from streamrnn.layers.masked_array import MaskedArray
from streamrnn.layers.symbol import leaves, map_structure

Masks = Bools | list[Bools | None] | None
"""The mask of one array, or of each of several; None where no step is left out."""


def carried(inputs: object) -> Masks:
    """The mask that an array carries, for a list of them one an input; None if there is none."""
    if isinstance(inputs, MaskedArray):
        return inputs._keras_mask
    if isinstance(inputs, list | tuple):
        found = [x._keras_mask if isinstance(x, MaskedArray) else None for x in inputs]
        return None if all(mask is None for mask in found) else found
    return None


def carry(outputs: Any, masks: Any) -> Any:
    """The outputs of a call, each carrying its mask if that leaves out a step.

    masks: None, one for all outputs, or a list with one (or None) an output, flat.
    """
    if masks is None:
        return outputs
    one_each: Iterator[Array | None]
    one_each = leaves(masks) if isinstance(masks, list | dict) else repeat(masks)
    return map_structure(lambda array: _carrying(array, next(one_each)), outputs)


def _carrying(array: Array, mask: Array | None) -> Array:
    return array if mask is None or mask.all() else MaskedArray.of(array, mask)


def joined_masks(
    who: str, shapes: Sequence[Sequence[int]], mask: object, lengths: object
) -> list[Array | None]:
    """The masks of several inputs; those without a time axis have none.

    mask: one for all of them, or a list with one (or None) an input. See joined_mask.
    """
    masks = [mask] * len(shapes)
    if (
        isinstance(mask, list | tuple)
        and all(m is None or np.asarray(m).ndim == 2 for m in mask)
        and (len(shapes) > 1 or len(mask) == 1)
    ):
        masks = list(mask)
    if len(masks) != len(shapes):
        raise ShapeError(f"{who}: expected {len(shapes)} masks, received {len(masks)}")
    return [
        joined_mask(who, shape, one, lengths) if len(shape) > 1 else None
        for shape, one in zip(shapes, masks, strict=True)
    ]


def joined_mask(who: str, shape: Sequence[int], mask: object, lengths: object) -> Array | None:
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
