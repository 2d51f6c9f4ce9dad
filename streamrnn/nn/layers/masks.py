"""The masks of a call: from its `mask` and `lengths`, and from the arrays themselves."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Bools
from streamrnn.errors import DTypeError, ShapeError
from streamrnn.nn.layers.masked_array import MaskedArray
from streamrnn.nn.layers.structure import leaves, map_structure

Masks = Bools | list[Bools | None] | None
"""The mask of one array, or of each of several; None where no step is left out."""


def carried(inputs: object) -> Masks:
    """Return the mask that an array carries, of a list one per input; None without any."""
    if isinstance(inputs, MaskedArray):
        return inputs._keras_mask
    if isinstance(inputs, list | tuple):
        found = [x._keras_mask if isinstance(x, MaskedArray) else None for x in inputs]
        return None if all(mask is None for mask in found) else found
    return None


def carry(outputs: Any, masks: Any) -> Any:
    """Return the outputs of a call, each carrying its mask if that leaves out a step.

    masks: None, one for all outputs, or a flat list with one (or None) per output.
    """
    if masks is None:
        return outputs
    one_each: Iterator[Array | None]
    one_each = leaves(masks) if isinstance(masks, list | dict) else repeat(masks)
    return map_structure(lambda array: _carrying(array, next(one_each)), outputs)


def _carrying(array: Array, mask: Array | None) -> Array:
    return array if mask is None or mask.all() else MaskedArray.of(array, mask)


def joined_masks(
    owner: str, shapes: Sequence[Sequence[int]], mask: object, lengths: object
) -> list[Array | None]:
    """Return the masks of several inputs; those without a time axis have none.

    mask: one for all of them, or a list with one (or None) per input. See joined_mask.
    """
    masks = [mask] * len(shapes)
    if (
        isinstance(mask, list | tuple)
        and all(m is None or np.asarray(m).ndim == 2 for m in mask)
        and (len(shapes) > 1 or len(mask) == 1)
    ):
        masks = list(mask)
    if len(masks) != len(shapes):
        raise ShapeError(f"{owner}: expected {len(shapes)} masks, received {len(masks)}")
    return [
        joined_mask(owner, shape, one, lengths) if len(shape) > 1 else None
        for shape, one in zip(shapes, masks, strict=True)
    ]


def joined_mask(owner: str, shape: Sequence[int], mask: object, lengths: object) -> Array | None:
    """Return mask AND (step < length), bool (B, T).

    Raises ShapeError or DTypeError that names `owner`.
    """
    if len(shape) < 2:
        raise ShapeError(f"{owner}: a mask needs a time axis, the input has shape {tuple(shape)}")
    expected = tuple(shape[:2])
    found: Array | None = None
    if mask is not None:
        found = np.asarray(mask)
        if found.dtype != np.bool_:
            raise DTypeError(f"{owner}: mask must be bool, received {found.dtype}")
        if found.shape != expected:
            raise ShapeError(f"{owner}: mask must have shape {expected}, received {found.shape}")
    if lengths is not None:
        steps = np.asarray(lengths)
        if steps.dtype.kind not in "iu":
            raise DTypeError(f"{owner}: lengths must be whole numbers, received {steps.dtype}")
        if steps.shape != expected[:1]:
            raise ShapeError(
                f"{owner}: expected one length per row, {expected[0]} in all, received shape "
                f"{steps.shape}"
            )
        if steps.size and (steps.min() < 0 or steps.max() > expected[1]):
            raise ShapeError(
                f"{owner}: lengths must lie in 0…{expected[1]}, received "
                f"{int(steps.min())}…{int(steps.max())}"
            )
        within = np.arange(expected[1]) < steps[:, None]
        found = within if found is None else found & within
    return None if found is None else np.ascontiguousarray(found)
