"""The weights of a layer and of the layers inside it.

Each weight is a Variable: a float32 array with the methods of Keras's variables.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError, ConfigError, DTypeError, ShapeError
from streamrnn.nn.layers import initializers
from streamrnn.nn.layers.arguments import check_dtype
from streamrnn.nn.layers.registry import snake_case


class Variable(np.ndarray[Any, np.dtype[np.float32]]):
    """A weight: a read-only float32 array, whose values `assign` replaces.

    Its name and path are Keras's ("kernel", "lstm/lstm_cell/kernel"). It is an array to NumPy;
    slices, results of NumPy's functions and the copies of `copy` are plain arrays.
    """

    _holder: "WeightSet | None"
    _key: str

    @classmethod
    def of(cls, values: Floats, holder: "WeightSet | None" = None, key: str = "") -> Self:
        """Return `values` as the weight `key` of `holder`: a read-only view of their memory."""
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
        # The holder has this array among its weights, so the holder may not be complete when the
        # array is restored: pass the holder as state.
        return Variable.of, (np.asarray(self),), (self._holder, self._key)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()

    def __setstate__(self, state: Any) -> None:
        self._holder, self._key = state

    def __copy__(self) -> Any:
        return np.asarray(self).copy()

    def __deepcopy__(self, memo: dict[int, Any] | None) -> Any:
        memo = {} if memo is None else memo
        copied = Variable.of(np.asarray(self).copy())
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
        """Whether optimizers change it: False for moving averages, although training moves them."""
        owner = self._owner()
        return owner.trainable and self._key not in owner._not_trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        kept = self._owner()._not_trainable
        (kept.discard if value else kept.add)(self._key)

    @property
    def value(self) -> Floats:
        """The values as a plain array: read-only, in the same memory."""
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
        """Overwrite the values without a call of the layer's `weights_changed`."""
        self.flags.writeable = True
        try:
            self[...] = value
        finally:
            self.flags.writeable = False

    def _owner(self) -> "WeightSet":
        if self._holder is None:
            raise ConfigError("this array is a part or copy of a weight, and belongs to no layer")
        return self._holder

    def __repr__(self) -> str:
        if self._holder is None:
            return repr(np.asarray(self))
        return (
            f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}, "
            f"value={np.asarray(self)}>"
        )


def method_of_plain(
    name: str, plain: Callable[[Any], Any] = lambda arguments: arguments
) -> Callable[..., Any]:
    """Return a method that calls the plain array's method `name` with plain(arguments)."""

    def method(self: Array, *args: Any, **kwargs: Any) -> Any:
        return getattr(np.asarray(self), name)(*plain(args), **plain(kwargs))

    method.__name__, method.__doc__ = name, f"ndarray.{name} of the plain array."
    return method


def attribute_of_plain(name: str) -> property:
    """Return a property that reads the attribute `name` of the plain array."""
    doc = f"ndarray.{name} of the plain array."
    return property(lambda self: getattr(np.asarray(self), name), doc=doc)


_METHODS = "__getitem__ astype copy flatten ravel repeat reshape squeeze transpose view"

for _name in _METHODS.split():
    setattr(Variable, _name, method_of_plain(_name))
for _name in ("T", "mT"):
    setattr(Variable, _name, attribute_of_plain(_name))


class WeightAttribute:
    """`layer.kernel` and the like: the weight of this name, None if the layer was made without it.

    `switch` is the argument that leaves the weight out if False. Setting the attribute replaces the
    values of a built-in layer's weight; a custom class may set it to any object.
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


class WeightSet:
    """Named float32 arrays, in Keras's order: own weights first, then the weights of `children`."""

    moves_in_training: bool = False
    """Whether a call with training=True changes its weights (if it is not frozen)."""

    def __init__(self, *, trainable: bool) -> None:
        self._trainable = trainable
        self.built = False
        self._path = ""
        self._weights: dict[str, Variable] = {}
        self._not_trainable: set[str] = set()
        self.of_weights: dict[str, object] = {}
        """What `add_weight` received for training, under names such as "kernel_regularizer"."""

    def children(self) -> Mapping[str, "WeightSet"]:
        """Return the inner layers, by the prefix of their weights' names."""
        return {}

    @property
    def trainable(self) -> bool:
        """Whether training changes its weights. Setting this also sets it in all inner layers."""
        return self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        self._trainable = trainable
        for child in self.children().values():
            child.trainable = trainable

    @property
    def path(self) -> str:
        """Its name in the paths of weights; within another layer, preceded by that layer's path."""
        return self._path or str(getattr(self, "name", ""))

    def adopt(self, child: "WeightSet") -> None:
        """Make the paths of the weights in `child` begin with the name of this layer."""
        name = getattr(child, "name", "")
        if name == getattr(self, "name", None):  # a cell that has the same name as its layer
            name = snake_case(type(child).__name__)
        child._path = f"{self.path}/{name}"
        for inner in child.children().values():
            child.adopt(inner)

    def add_weight(
        self,
        *positional: Any,
        name: str | None = None,
        shape: Any = None,
        initializer: initializers.InitializerLike = None,
        trainable: bool = True,
        dtype: object = None,
        regularizer: object = None,
        constraint: object = None,
    ) -> Variable:
        """Make a weight and return it: float32, read-only; `assign` changes its values.

        add_weight(name, shape, initializer), or as in Keras 3 add_weight(shape, initializer,
        name=…). A weight without a shape is a scalar; without a name, it is called
        "variable", "variable_1", …. dtype: "float32" or None. regularizer: added to the loss in
        training. constraint: refused in training.
        """
        check_dtype(self, dtype)
        named = ["name", "shape", "initializer"]
        if positional and not isinstance(positional[0], str):
            named.remove("name")
        by_name = dict(zip(named, positional, strict=False))
        name = by_name.get("name", name)
        if name is None:  # the first of variable, variable_1, … that is not taken
            taken = sum(key.partition("_")[0] == "variable" for key in self._weights)
            name = f"variable_{taken}" if taken else "variable"
            while name in self._weights:
                taken += 1
                name = f"variable_{taken}"
        shape = by_name.get("shape", shape)
        initializer = by_name.get("initializer", initializer)
        shape = (shape,) if isinstance(shape, int) else tuple(shape or ())
        if initializer is None:
            initializer = "glorot_uniform" if len(shape) else "zeros"
        values = np.array(initializers.get(initializer)(shape), np.float32, order="C")
        if values.shape != shape:
            raise ShapeError(
                f"{self}: the initializer of weight {name!r} must return values of shape {shape}, "
                f"received {values.shape}"
            )
        if name in self._weights and not self.built:
            raise ArgumentError(
                f"{self}: two weights have the name {name!r}, and a file stores weights by their "
                "names; give each add_weight a name of its own"
            )
        weight = Variable.of(values, self, name)
        self._weights[name] = weight
        if not trainable:
            self._not_trainable.add(name)
        for argument, value in (("regularizer", regularizer), ("constraint", constraint)):
            if value is not None:
                self.of_weights[f"{name}_{argument}"] = value
        return weight

    def weights_changed(self) -> None:
        """Drop whatever was made from the old weights; called after weights were set."""

    def named_weights(self) -> dict[str, Floats]:
        """Return all weights as plain arrays by name: "kernel", in an inner layer "cell/kernel"."""
        by_name: dict[str, Floats] = {name: w.value for name, w in self._weights.items()}
        for prefix, child in self.children().items():
            by_name |= {f"{prefix}/{name}": w for name, w in child.named_weights().items()}
        return by_name

    def holders(self) -> list[tuple["WeightSet", str, bool]]:
        """Return (holder, weight name, trainable) of all weights, in the order of named_weights."""
        own: list[tuple[WeightSet, str, bool]] = [
            (self, name, self.trainable and name not in self._not_trainable)
            for name in self._weights
        ]
        for child in self.children().values():
            for holder, name, trains in child.holders():
                own.append((holder, name, trains and self.trainable))
        return own

    @property
    def weights(self) -> list[Variable]:
        """All weights, read-only, in Keras's order."""
        return [holder._weights[key] for holder, key, _ in self.holders()]

    variables = weights

    def get_weights(self) -> list[Floats]:
        """Return copies of all weights, in Keras's order."""
        return [weight.numpy() for weight in self.weights]

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Replace the values of all weights, in place (so a cell may keep `self.kernel`).

        Casts to float32. Raises ShapeError if the number or a shape differs, DTypeError for
        anything but a list of numeric arrays.
        """
        if isinstance(weights, str | bytes) or not isinstance(weights, Iterable):
            raise DTypeError(
                f"{self}: expected a list of arrays, one per weight, received {weights!r:.80}"
            )
        arrays: list[Array] = [np.asarray(weight) for weight in weights]
        by_name = self.named_weights()
        if len(arrays) != len(by_name):
            raise ShapeError(
                f"{self}: the number of weights must be {len(by_name)} "
                f"({', '.join(by_name) or 'none'}), received {len(arrays)}"
                + ("" if self.built else "; the layer is not built yet")
            )
        for (name, weight), array in zip(by_name.items(), arrays, strict=True):
            if array.shape != weight.shape:
                raise ShapeError(
                    f"{self}: weight {name!r} has shape {weight.shape}, received {array.shape}"
                )
            if array.dtype.kind not in "fiub":
                raise DTypeError(f"{self}: weight {name!r} must be numbers, received {array.dtype}")
        holders = self.holders()
        # All are copied before the first is written: they may be views of these very weights.
        values = [np.array(array, dtype=np.float32) for array in arrays]
        for (holder, key, _), value in zip(holders, values, strict=True):
            holder._weights[key].write(value)
        for holder in {id(holder): holder for holder, _, _ in holders}.values():
            holder.weights_changed()

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that optimizers change, in Keras's order."""
        return [holder._weights[key] for holder, key, trains in self.holders() if trains]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that optimizers do not change, in Keras's order."""
        return [holder._weights[key] for holder, key, trains in self.holders() if not trains]

    trainable_variables = trainable_weights
    non_trainable_variables = non_trainable_weights

    def count_params(self) -> int:
        """Return the number of values in all weights."""
        return sum(weight.size for weight in self.weights)

    def trainable_params(self) -> int:
        """Return the number of values in trainable weights."""
        return sum(weight.size for weight in self.trainable_weights)


WEIGHT_NAMES = frozenset(
    name for name, value in vars(NamedWeights).items() if isinstance(value, WeightAttribute)
)
