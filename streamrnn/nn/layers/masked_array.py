"""An array that carries a mask from one layer's call to the next."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.nn.layers.variable import attribute_of_plain


class MaskedArray(np.ndarray[Any, np.dtype[Any]]):
    """The output of a layer where steps are masked: an array that carries the mask.

    The next layer that is called on it leaves those steps out, unless another `mask` is passed.
    `_keras_mask` (Keras's name): bool (B, T), read-only, False where a step is left out.

    Copies by `copy`, `copy.copy`, `copy.deepcopy` or `pickle` carry it too. Everything computed
    from it is a plain array without a mask, since the steps may differ: slices, arithmetic (also in
    place), results of NumPy's functions, and `np.asarray(y)`, which shares its memory. Values
    written into it do not change the mask.
    """

    _mask: Array | None

    @classmethod
    def of(cls, array: Array, mask: Array) -> Self:
        """Return the same values, memory shared, with a mask; a writeable mask is copied."""
        if mask.flags.writeable:
            mask = mask.copy()
            mask.flags.writeable = False
        made = np.ndarray.view(np.asarray(array), cls)
        made._mask = mask
        return made

    @property
    def _keras_mask(self) -> Array | None:
        return self._mask

    def __array_finalize__(self, origin: object) -> None:
        # Called for every view: none has a mask until `of` sets it.
        self._mask = None

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any
    ) -> Any:
        if out is not None:
            options["out"] = _plain(out)
        return getattr(ufunc, method)(*_plain(inputs), **_plain(options))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return function(*_plain(args), **_plain(kwargs))

    def copy(self, order: Any = "C") -> Any:
        """Return a copy that carries the same mask."""
        made = np.asarray(self).copy(order)
        return made if self._mask is None else MaskedArray.of(made, self._mask)

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce__(self) -> Any:
        if self._mask is None:
            return np.asarray(self).__reduce__()
        return _restored, (np.asarray(self), np.asarray(self._mask))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()


def _restored(array: Array, mask: Array) -> MaskedArray:
    return MaskedArray.of(array, mask)


def _plain(tree: Any) -> Any:
    """Replace arrays that carry a mask by plain ones in arguments."""
    if isinstance(tree, MaskedArray):
        return np.asarray(tree)
    if type(tree) in (list, tuple):
        return type(tree)(map(_plain, tree))
    return {key: _plain(item) for key, item in tree.items()} if type(tree) is dict else tree


def _method_of_plain(name: str) -> Callable[..., Any]:
    def method(self: MaskedArray, *args: Any, **kwargs: Any) -> Any:
        return getattr(np.asarray(self), name)(*_plain(args), **_plain(kwargs))

    method.__name__, method.__doc__ = name, f"ndarray.{name}, of the plain array."
    return method


_METHODS = """
__getitem__ argmax argmin argpartition argsort astype byteswap choose compress conj conjugate
diagonal dot flatten getfield ravel repeat reshape squeeze swapaxes take transpose view
"""
"""Methods whose result NumPy gives the class of the array. (The others return plain arrays.)"""

for _name in _METHODS.split():
    setattr(MaskedArray, _name, _method_of_plain(_name))
for _name in ("T", "imag", "mT", "real"):
    setattr(MaskedArray, _name, attribute_of_plain(_name))
