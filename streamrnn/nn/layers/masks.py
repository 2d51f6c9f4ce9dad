"""The masks of a call: from its `mask` and `lengths`, and from arrays that carry a mask."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Self

import numpy as np

from streamrnn.base.arrays import Array, Bools
from streamrnn.errors import DTypeError, ShapeError
from streamrnn.nn.layers.structure import leaves, map_structure
from streamrnn.nn.layers.weights import attribute_of_plain, method_of_plain

Masks = Bools | list[Bools | None] | None
"""The mask of one array, or of each of several; None where no step is left out."""


def carried(inputs: object) -> Masks:
    """Return the mask that an array carries, or a flat list for a structure; None without any."""
    if isinstance(inputs, MaskedArray):
        return inputs._keras_mask
    if isinstance(inputs, list | tuple | dict):
        masks = [x._keras_mask if isinstance(x, MaskedArray) else None for x in leaves(inputs)]
        return None if all(mask is None for mask in masks) else masks
    return None


def carry(outputs: Any, masks: Any) -> Any:
    """Return the outputs of a call, each carrying its mask if the mask leaves out a step.

    masks: None, one mask for all outputs, or a flat list with a mask (or None) per output; outputs
    beyond the end of the list carry no mask, as in Keras.
    """
    if masks is None:
        return outputs
    one_each: Iterator[Array | None]
    one_each = leaves(masks) if isinstance(masks, list | dict) else repeat(masks)

    def carrying(array: Array) -> Array:
        mask = next(one_each, None)
        return array if mask is None or mask.all() else MaskedArray.of(array, mask)

    return map_structure(carrying, outputs)


def joined_masks(
    owner: object, shapes: Sequence[Sequence[int]], mask: object, lengths: object
) -> list[Array | None]:
    """Return the masks of several inputs; None for inputs without a time axis.

    mask: one for all inputs, or a list with a mask (or None) per input. See joined_mask.
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


def joined_mask(owner: object, shape: Sequence[int], mask: object, lengths: object) -> Array | None:
    """Return mask AND (step < length), bool (B, T), or None. Raises ShapeError or DTypeError."""
    if len(shape) < 2:
        raise ShapeError(
            f"{owner}: a mask needs a time axis, but the input has shape {tuple(shape)}"
        )
    expected = tuple(shape[:2])
    joined: Array | None = None
    if mask is not None:
        joined = np.asarray(mask)
        if joined.dtype != np.bool_:
            raise DTypeError(f"{owner}: mask must be bool, received {joined.dtype}")
        if joined.shape != expected:
            raise ShapeError(f"{owner}: mask must have shape {expected}, received {joined.shape}")
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
        joined = within if joined is None else joined & within
    return None if joined is None else np.ascontiguousarray(joined)


class MaskedArray(np.ndarray[Any, np.dtype[Any]]):
    """The output of a layer where steps are masked: an array that carries the mask.

    A layer that is called on the array uses this mask, unless another `mask` is passed.
    `_keras_mask` (Keras's name): bool (B, T), read-only, False where a step is left out.

    Copies by `copy`, `copy.copy`, `copy.deepcopy` or `pickle` carry the mask, too. Everything
    computed from a MaskedArray is a plain array without a mask, since the steps may differ: slices,
    arithmetic (including in place), results of NumPy's functions, and `np.asarray(y)`, which shares
    the memory of y. Values written into a MaskedArray do not change its mask.
    """

    _mask: Array | None

    @classmethod
    def of(cls, array: Array, mask: Array) -> Self:
        """Return a view of an array, with a mask; a writeable mask is copied."""
        if mask.flags.writeable:
            mask = mask.copy()
            mask.flags.writeable = False
        masked = np.ndarray.view(np.asarray(array), cls)
        masked._mask = mask
        return masked

    @property
    def _keras_mask(self) -> Array | None:
        return self._mask

    def __array_finalize__(self, origin: object) -> None:
        # Called for every view: none has a mask until `of` sets it.
        self._mask = None

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*_plain(inputs), **_plain(options))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return function(*_plain(args), **_plain(kwargs))

    def copy(self, order: Any = "C") -> Any:
        """Return a copy that carries the same mask."""
        copied = np.asarray(self).copy(order)
        return copied if self._mask is None else MaskedArray.of(copied, self._mask)

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce__(self) -> Any:
        if self._mask is None:
            return np.asarray(self).__reduce__()
        return MaskedArray.of, (np.asarray(self), np.asarray(self._mask))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()


def _plain(tree: Any) -> Any:
    """Replace arrays that carry a mask by plain arrays, including in lists, tuples and dicts."""
    if isinstance(tree, MaskedArray):
        return np.asarray(tree)
    if type(tree) in (list, tuple):
        return type(tree)(map(_plain, tree))
    return {key: _plain(item) for key, item in tree.items()} if type(tree) is dict else tree


_METHODS = """
__getitem__ argmax argmin argpartition argsort astype byteswap choose compress conj conjugate
diagonal dot flatten getfield ravel repeat reshape squeeze swapaxes take transpose view
"""
"""Methods to whose results NumPy gives the array's class. (Others return plain arrays.)"""

for _name in _METHODS.split():
    setattr(MaskedArray, _name, method_of_plain(_name, _plain))
for _name in ("T", "imag", "mT", "real"):
    setattr(MaskedArray, _name, attribute_of_plain(_name))
