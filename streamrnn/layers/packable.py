"""Layers whose kernel takes integers as weights (`kernels.integers`)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from streamrnn.kernels.integers import Integers, rounded
from streamrnn.layers.layer import Layer


class Packable(Layer):
    """A layer or cell that packs its weights on first use, as float32 or as integers."""

    rounded_weights: ClassVar[Mapping[str, bool]] = MappingProxyType({"kernel": True})
    """The weights that can be integers: name -> whether their inputs have units of their own, each
    a factor (`kernels.integers`)."""
    integers: Mapping[str, Integers] = MappingProxyType({})
    """Those that are, all or none."""
    _packed: Any = None

    def packable(self) -> bool:
        """Return whether its weights can be integers."""
        return self.built

    def pays(self) -> bool:
        """Return whether integers are faster. Depends on its sizes only, as the bits do."""
        return True

    def weights_changed(self) -> None:
        self._packed = None
        for integers in self.integers.values():
            self.round_weights(integers.precision)
            return

    def round_weights(self, precision: str) -> None:
        """Round the weights to integers."""
        self.set_integers(
            {
                name: rounded(self._weights[name], precision, factors=factors)
                for name, factors in self.rounded_weights.items()
            }
        )

    def set_integers(self, integers: Mapping[str, Integers]) -> None:
        """Compute with these weights; their floats become the values of the weights."""
        for name, values in integers.items():
            self._weights[name].write(values.floats())
        self.integers = integers
        self._packed = None
