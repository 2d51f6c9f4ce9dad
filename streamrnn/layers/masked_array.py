"""An array that carries a mask from one layer's call to the next."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from streamrnn.arrays import Array


class MaskedArray(np.ndarray[Any, np.dtype[Any]]):
    """What a layer returns where steps are masked: an array that carries the mask.

    The next layer that is called on it leaves those steps out, unless it is given another `mask`.
    `_keras_mask` (so named in Keras): bool (B, T), read-only, False where a step is left out.

    Only this array carries it, and a copy by `copy`, `copy.copy`, `copy.deepcopy` or `pickle`. All
    that is computed from it is a plain array without a mask, since only who computes knows which
    steps are left: slices, arithmetic (in place, too), what NumPy's functions return, and
    `np.asarray(y)`, which shares its memory. Values written into it do not change the mask.
    """

    _mask: Array | None

    @classmethod
    def of(cls, array: Array, mask: Array) -> Self:
        """The same values, memory shared, with a mask; a mask that others may change is copied."""
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
        # Views come by here, whatever they are of: none has a mask until `of` gives it one.
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
        """A copy that carries the same mask."""
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
    """Arguments with plain arrays in place of those that carry a mask."""
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


def _attribute_of_plain(name: str) -> property:
    doc = f"ndarray.{name}, of the plain array."
    return property(lambda self: getattr(np.asarray(self), name), doc=doc)


_METHODS = """
__getitem__ argmax argmin argpartition argsort astype byteswap choose compress conj conjugate
diagonal dot flatten getfield ravel repeat reshape squeeze swapaxes take transpose view
"""
"""NumPy gives what these return the class of the array. (The others call what is plain already.)"""

for _name in _METHODS.split():
    setattr(MaskedArray, _name, _method_of_plain(_name))
for _name in ("T", "imag", "mT", "real"):
    setattr(MaskedArray, _name, _attribute_of_plain(_name))
