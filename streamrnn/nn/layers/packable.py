"""Layers whose kernel takes integers as weights (`kernels.integers`)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from streamrnn.nn.kernels.integers import Integers, rounded
from streamrnn.nn.layers.built_in import BuiltIn


class Packable(BuiltIn):
    """A layer or cell that packs its weights on first use, as float32 or as integers."""

    inputs_last: ClassVar[bool] = False
    """Whether the inputs are the last axis of these weights."""
    integers: Mapping[str, Integers] = MappingProxyType({})
    """The weights that are stored as integers: all that can be, or none."""
    _packed: Any = None

    def packable(self) -> dict[str, bool]:
        """Return the weights that can be integers, and whether each of their inputs has a factor.

        See `kernels.integers`. Empty if none can be.
        """
        raise NotImplementedError

    def pays(self) -> bool:
        """Return whether integers are faster. The sizes alone decide this, and so the bits."""
        return True

    def packed_parts(self) -> list[str]:
        """Return the names of the parts of this layer that are packed, if it has parts."""
        return []

    def weights_changed(self) -> None:
        """Round only weights that have changed: rounding twice would change the others, too."""
        self.unpack()
        if self.integers:
            self.set_integers(
                {
                    name: integers
                    if np.array_equal(integers.floats(), self._weights[name])
                    else self._rounded(name, integers.precision)
                    for name, integers in self.integers.items()
                }
            )

    def unpack(self) -> None:
        """Forget the packed weights."""
        self._packed = None

    def round_weights(self, precision: str) -> None:
        """Round the weights to integers."""
        self.set_integers({name: self._rounded(name, precision) for name in self.packable()})

    def _rounded(self, name: str, precision: str) -> Integers:
        factors = self.packable()[name]
        return rounded(
            self._weights[name], precision, factors=factors, inputs_last=self.inputs_last
        )

    def takes(self, integers: Mapping[str, Integers]) -> bool:
        """Return whether the kernel can read these: one precision, and the factors it expects."""
        factors = self.packable()
        one_precision = len({each.precision for each in integers.values()}) == 1
        return one_precision and all(
            each.inputs_last == self.inputs_last and (factors[name] or not each.exponents.any())
            for name, each in integers.items()
        )

    def set_integers(self, integers: Mapping[str, Integers]) -> None:
        """Compute with these integers; set the weights to the floats that they stand for."""
        for name, values in integers.items():
            self._weights[name].write(values.floats())
        self.integers = integers
        self.unpack()
