"""The weights of a layer and of the layers inside it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import DTypeError, ShapeError
from streamrnn.nn.layers import initializers
from streamrnn.nn.layers.arguments import check_dtype
from streamrnn.nn.layers.naming import snake_case
from streamrnn.nn.layers.variable import Variable


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

    def children(self) -> Mapping[str, "WeightSet"]:
        """Return the inner layers, by the prefix of their weights' names."""
        return {}

    @property
    def trainable(self) -> bool:
        """Whether training changes its weights. Setting it also sets it in all inner layers."""
        return self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        self._trainable = trainable
        for child in self.children().values():
            child.trainable = trainable

    @property
    def path(self) -> str:
        """Its name in the paths of weights; within another layer, preceded by that layer's name."""
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
        name=…). Without a shape it is a scalar, without a name "variable". dtype: "float32" or
        None. regularizer, constraint: accepted, as they only affect training.
        """
        check_dtype(self, dtype)
        named = ["name", "shape", "initializer"]
        if positional and not isinstance(positional[0], str):
            named.remove("name")
        by_name = dict(zip(named, positional, strict=False))
        name = self._free_name(by_name.get("name", name))
        shape = by_name.get("shape", shape)
        initializer = by_name.get("initializer", initializer)
        shape = (shape,) if isinstance(shape, int) else tuple(shape or ())
        if initializer is None:
            initializer = "glorot_uniform" if len(shape) else "zeros"
        values = np.array(initializers.get(initializer)(shape), np.float32, order="C")
        weight = Variable.of(values, self, name)
        self._weights[name] = weight
        if not trainable:
            self._not_trainable.add(name)
        return weight

    def _free_name(self, name: str | None) -> str:
        """Return a name; for None, the first of variable, variable_1, … that is not taken."""
        if name is not None:
            return name
        taken = sum(key.partition("_")[0] == "variable" for key in self._weights)
        free = f"variable_{taken}" if taken else "variable"
        while free in self._weights:
            taken += 1
            free = f"variable_{taken}"
        return free

    def weights_changed(self) -> None:
        """Drop whatever was made from the old weights; called after weights were set."""

    def named_weights(self) -> dict[str, Floats]:
        """Return all weights by name, as plain arrays; an inner layer's are named "cell/kernel"."""
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
            own += [
                (holder, name, trains and self.trainable)
                for holder, name, trains in child.holders()
            ]
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
        """Replace the values of all weights, in place (a cell may keep `self.kernel`).

        Casts to float32. Raises ShapeError where number or shapes differ, DTypeError for anything
        but a list of numeric arrays.
        """
        if isinstance(weights, str | bytes) or not isinstance(weights, Iterable):
            raise DTypeError(
                f"{self}: expected a list of arrays, one per weight, received {weights!r:.80}"
            )
        arrays: list[Array] = [np.asarray(weight) for weight in weights]
        holders = self.holders()
        self._check_values(arrays)
        # All are copied before the first is written: they may be views of these very weights.
        values = [np.array(array, dtype=np.float32) for array in arrays]
        for (holder, key, _), value in zip(holders, values, strict=True):
            holder._weights[key].write(value)
        for holder in {id(holder): holder for holder, _, _ in holders}.values():
            holder.weights_changed()

    def _check_values(self, arrays: Sequence[Array]) -> None:
        weights = self.named_weights()
        if len(arrays) != len(weights):
            raise ShapeError(
                f"{self}: expected {len(weights)} weights ({', '.join(weights) or 'none'}), "
                f"received {len(arrays)}" + ("" if self.built else "; the layer is not built yet")
            )
        for (name, weight), array in zip(weights.items(), arrays, strict=True):
            if array.shape != weight.shape:
                raise ShapeError(
                    f"{self}: weight {name!r} has shape {weight.shape}, received {array.shape}"
                )
            if array.dtype.kind not in "fiub":
                raise DTypeError(f"{self}: weight {name!r} must be numbers, received {array.dtype}")

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that training changes, in Keras's order."""
        return [holder._weights[key] for holder, key, trains in self.holders() if trains]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that training does not change, in Keras's order."""
        return [holder._weights[key] for holder, key, trains in self.holders() if not trains]

    trainable_variables = trainable_weights
    non_trainable_variables = non_trainable_weights

    def count_params(self) -> int:
        """Return the number of values in all weights."""
        return sum(weight.size for weight in self.weights)

    def trainable_params(self) -> int:
        """Return the number of values in trainable weights."""
        return sum(weight.size for weight in self.trainable_weights)
