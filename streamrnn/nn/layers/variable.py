"""Variable, a weight of a layer: a float32 array with the methods of Keras's variables."""

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ConfigError, DTypeError, ShapeError

if TYPE_CHECKING:
    from streamrnn.nn.layers.weights import WeightSet


class Variable(np.ndarray[Any, np.dtype[np.float32]]):
    """A weight: a read-only float32 array, whose values `assign` replaces.

    Its name and path are Keras's ("kernel", "lstm/lstm_cell/kernel"). It is an array to NumPy;
    everything computed from it, slices and copies included, is a plain array.
    """

    _holder: "WeightSet | None"
    _key: str

    @classmethod
    def of(cls, values: Floats, holder: "WeightSet", key: str) -> Self:
        """Return the same memory, read-only, as the weight `key` of `holder`."""
        variable = np.ndarray.view(values, cls)
        variable._holder, variable._key = holder, key
        variable.flags.writeable = False
        return variable

    def __array_finalize__(self, origin: object) -> None:
        self._holder, self._key = None, ""

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        return plain[()] if return_scalar or not plain.ndim else plain

    def __reduce__(self) -> Any:
        if self._holder is None:
            return np.asarray(self).__reduce__()
        # The holder has this array among its weights, so it may be incomplete: pass it as state.
        return _restored, (np.asarray(self),), (self._holder, self._key)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()

    def __setstate__(self, state: Any) -> None:
        self._holder, self._key = state

    def __copy__(self) -> Any:
        return np.asarray(self).copy()

    def __deepcopy__(self, memo: dict[int, Any] | None) -> Any:
        memo = {} if memo is None else memo
        copied = _restored(np.asarray(self).copy())
        memo[id(self)] = copied
        if self._holder is not None:
            copied.__setstate__((deepcopy(self._holder, memo), self._key))
        return copied

    # ---- as Keras's variables

    @property
    def name(self) -> str:
        """The name within its layer, such as "kernel"."""
        return self._key

    @property
    def path(self) -> str:
        """The names of the layers around it and its own, such as "lstm/lstm_cell/kernel"."""
        return f"{self._owner().path}/{self._key}"

    @property
    def trainable(self) -> bool:
        """Whether training changes it."""
        owner = self._owner()
        return owner.trainable and self._key not in owner._not_trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        kept = self._owner()._not_trainable
        (kept.discard if value else kept.add)(self._key)

    @property
    def value(self) -> Floats:
        """The same array as a plain one, read-only."""
        return np.asarray(self)

    def numpy(self) -> Floats:
        """Return a copy of the values."""
        return np.array(self, subok=False)

    def assign(self, value: npt.ArrayLike) -> Self:
        """Replace the values, in place, and return the variable.

        Casts to float32. Raises ShapeError for another shape, DTypeError for anything but numbers.
        """
        owner, array = self._owner(), np.asarray(value)
        if array.shape != self.shape:
            raise ShapeError(
                f"{owner}: The shape of the target variable and the shape of the target value in "
                f"`variable.assign(value)` must match. variable.shape={self.shape}, Received: "
                f"value.shape={array.shape}. Target variable: {self.path}"
            )
        if array.dtype.kind not in "fiub":
            raise DTypeError(f"{owner}: {self.path} must be numbers, received {array.dtype}")
        self.write(np.array(array, np.float32))
        owner.weights_changed()
        return self

    def assign_add(self, value: npt.ArrayLike) -> Self:
        """Add to the values, in place."""
        return self.assign(np.asarray(self) + np.asarray(value, np.float32))

    def assign_sub(self, value: npt.ArrayLike) -> Self:
        """Subtract from the values, in place."""
        return self.assign(np.asarray(self) - np.asarray(value, np.float32))

    def write(self, value: Floats) -> None:
        """Overwrite the memory without telling the layer."""
        self.flags.writeable = True
        try:
            self[...] = value
        finally:
            self.flags.writeable = False

    def _owner(self) -> "WeightSet":
        if self._holder is None:
            raise ConfigError("this array is a part of a weight, not a weight: it has no layer")
        return self._holder

    def __repr__(self) -> str:
        if self._holder is None:
            return repr(np.asarray(self))
        return (
            f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}, "
            f"value={np.asarray(self)}>"
        )


def _restored(array: Array) -> Variable:
    variable = np.ndarray.view(array, Variable)
    variable.flags.writeable = False
    return variable


def _method_of_plain(name: str) -> Callable[..., Any]:
    def method(self: Variable, *args: Any, **kwargs: Any) -> Any:
        return getattr(np.asarray(self), name)(*args, **kwargs)

    method.__name__, method.__doc__ = name, f"ndarray.{name}, of the plain array."
    return method


def attribute_of_plain(name: str) -> property:
    """Return an attribute for an array class that behaves as the plain array's."""
    doc = f"ndarray.{name}, of the plain array."
    return property(lambda self: getattr(np.asarray(self), name), doc=doc)


_METHODS = "__getitem__ astype copy flatten ravel repeat reshape squeeze transpose view"

for _name in _METHODS.split():
    setattr(Variable, _name, _method_of_plain(_name))
for _name in ("T", "mT"):
    setattr(Variable, _name, attribute_of_plain(_name))


class WeightAttribute:
    """`layer.kernel` and the like: the weight of this name, None if the layer has none.

    Setting it replaces the values. In a custom class it is an ordinary attribute. `switch` is the
    argument that leaves the weight out.
    """

    def __init__(self, switch: str = "") -> None:
        self.switch = switch

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        own = vars(instance)
        if self.name in own:
            return own[self.name]
        weight = own.get("_weights", {}).get(self.name)
        if weight is not None:
            return weight
        if self.switch and own.get(self.switch) is False:
            return None
        why = "" if own.get("built", True) else f"; build the layer before accessing `{self.name}`"
        raise AttributeError(
            f"{owner.__name__!r} object has no attribute {self.name!r}{why}",
            name=self.name,
            obj=instance,
        )

    def __set__(self, instance: Any, value: Any) -> None:
        own = vars(instance)
        weight = own.get("_weights", {}).get(self.name)
        if isinstance(weight, Variable) and value is weight:
            return
        if isinstance(weight, Variable) and instance.is_built_in():
            weight.assign(value)
        else:
            own[self.name] = value

    def __delete__(self, instance: Any) -> None:
        if self.name not in vars(instance):
            raise AttributeError(self.name)
        del vars(instance)[self.name]


class NamedWeights:
    """The weights of built-in layers as attributes."""

    alpha = WeightAttribute()
    beta = WeightAttribute("center")
    bias = WeightAttribute("use_bias")
    embeddings = WeightAttribute()
    gamma = WeightAttribute("scale")
    kernel = WeightAttribute()
    moving_mean = WeightAttribute()
    moving_variance = WeightAttribute()
    recurrent_kernel = WeightAttribute()


WEIGHT_NAMES = frozenset(
    name for name, value in vars(NamedWeights).items() if isinstance(value, WeightAttribute)
)
