"""The weights of a layer: its own, and those of the layers inside it."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from streamrnn.arrays import Array, Floats
from streamrnn.errors import DTypeError, ShapeError
from streamrnn.layers import initializers
from streamrnn.layers.arguments import check_dtype


class WeightSet:
    """Named float32 arrays, in Keras's order: own weights first, then those of `children`."""

    def __init__(self, *, trainable: bool) -> None:
        self.trainable = trainable
        self.built = False
        self._weights: dict[str, Floats] = {}
        self._not_trainable: set[str] = set()

    def children(self) -> Mapping[str, "WeightSet"]:
        """Return what is inside, by the name that its weights have as a prefix."""
        return {}

    def add_weight(
        self,
        name: str,
        shape: Sequence[int],
        initializer: initializers.InitializerLike = "glorot_uniform",
        *,
        trainable: bool = True,
        dtype: object = None,
        regularizer: object = None,
        constraint: object = None,
    ) -> Floats:
        """Make a weight and return it: float32, read-only; `set_weights` changes its values.

        dtype: "float32" or None. regularizer, constraint: accepted, as they only affect training.
        """
        check_dtype(self, dtype)
        weight = np.array(initializers.get(initializer)(tuple(shape)), np.float32, order="C")
        weight.flags.writeable = False
        self._weights[name] = weight
        if not trainable:
            self._not_trainable.add(name)
        return weight

    def weights_changed(self) -> None:
        """Drop what was made from the old weights; called after weights were set."""

    def named_weights(self) -> dict[str, Floats]:
        """Return all weights by name; those of a layer inside as "cell/kernel"."""
        found = dict(self._weights)
        for prefix, child in self.children().items():
            found |= {f"{prefix}/{name}": w for name, w in child.named_weights().items()}
        return found

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
    def weights(self) -> list[Floats]:
        """All weights, read-only, in Keras's order."""
        return list(self.named_weights().values())

    def get_weights(self) -> list[Floats]:
        """Return copies of all weights, in Keras's order."""
        return [weight.copy() for weight in self.weights]

    def set_weights(self, weights: Sequence[npt.ArrayLike]) -> None:
        """Replace the values of all weights, in place (a cell may keep `self.kernel`).

        Casts to float32. Raises ShapeError where number or shapes differ, DTypeError for anything
        but a list of numeric arrays.
        """
        if isinstance(weights, str | bytes) or not isinstance(weights, Iterable):
            raise DTypeError(
                f"{self}: expected a list of arrays, one a weight, received {weights!r:.80}"
            )
        arrays: list[Array] = [np.asarray(weight) for weight in weights]
        holders = self.holders()
        self._check_values(arrays)
        # All are copied before the first is written: they may be views of these very weights.
        values = [np.array(array, dtype=np.float32) for array in arrays]
        for (holder, key, _), value in zip(holders, values, strict=True):
            _write(holder._weights[key], value)
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
    def trainable_weights(self) -> list[Floats]:
        """The weights that training changes, in Keras's order."""
        return [holder._weights[key] for holder, key, trains in self.holders() if trains]

    @property
    def non_trainable_weights(self) -> list[Floats]:
        """The weights that training does not change, in Keras's order."""
        return [holder._weights[key] for holder, key, trains in self.holders() if not trains]

    def count_params(self) -> int:
        """Return the number of values in all weights."""
        return sum(weight.size for weight in self.weights)

    def trainable_params(self) -> int:
        """Return the number of values in trainable weights."""
        return sum(weight.size for weight in self.trainable_weights)


def _write(weight: Floats, value: Floats) -> None:
    weight.flags.writeable = True
    try:
        weight[...] = value
    finally:
        weight.flags.writeable = False
