"""Regularizers: penalties of weights in the loss, with Keras's names, arguments and formulas.

They affect only training. A layer takes one as `kernel_regularizer` and the like.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.base.display import closest
from streamrnn.errors import ArgumentError, UnsupportedError
from streamrnn.nn.kernels import losses as sums
from streamrnn.nn.layers.registry import ConfigDict

__all__ = ["L1", "L1L2", "L2", "Regularizer", "get", "l1", "l1_l2", "l2", "serialize"]


class Regularizer:
    """The base of regularizers: l1 * sum |w| + l2 * sum w**2, added in order in float64."""

    fields: ClassVar[tuple[str, ...]] = ()
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        for name in self.fields:
            value = getattr(self, name)
            number = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise ArgumentError(
                    f"{type(self).__name__}: {name} must be a finite number, 0 or more, "
                    f"received {value!r}"
                )
            setattr(self, name, float(value))

    def __call__(self, weight: Floats) -> float:
        """Return the penalty of a weight."""
        penalty = 0.0
        if self.l1:
            penalty += self.l1 * sums.total(np.abs(weight))
        if self.l2:
            penalty += self.l2 * sums.dot(weight, weight)
        return penalty

    def slope(self, weight: Floats) -> Floats:
        """Return the derivative of the penalty, l1 * sign(w) + 2 * l2 * w; the sign of 0 is 0."""
        slope = np.float32(2 * self.l2) * weight
        if self.l1:
            slope = slope + np.float32(self.l1) * np.sign(weight)
        return slope

    def get_config(self) -> ConfigDict:
        """Return the arguments it was made with."""
        return {field: getattr(self, field) for field in self.fields}


@dataclass(eq=False, repr=False)
class L1(Regularizer):
    """l1 * sum |w|."""

    fields = ("l1",)
    l1: float = 0.01


@dataclass(eq=False, repr=False)
class L2(Regularizer):
    """l2 * sum w**2."""

    fields = ("l2",)
    l2: float = 0.01


@dataclass(eq=False, repr=False)
class L1L2(Regularizer):
    """l1 * sum |w| + l2 * sum w**2."""

    fields = ("l1", "l2")
    l1: float = 0.0
    l2: float = 0.0


l1, l2, l1_l2 = L1, L2, L1L2
_NAMES: Mapping[str, type[Regularizer]] = {
    name: cls for cls in (L1, L2, L1L2) for name in (cls.__name__, cls.__name__.lower())
} | {"l1_l2": L1L2}


def get(identifier: Any) -> Regularizer | None:
    """Return the regularizer for a name, a class or a config that Keras writes; None stays None.

    A regularizer is returned as it is. Raises UnsupportedError for anything else.
    """
    if identifier is None or isinstance(identifier, Regularizer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Regularizer):
        return identifier()
    if isinstance(identifier, str) and identifier in _NAMES:
        return _NAMES[identifier]()
    if isinstance(identifier, Mapping):
        name, config = identifier.get("class_name"), identifier.get("config", {})
        cls = _NAMES.get(name) if isinstance(name, str) else None
        if cls is not None and isinstance(config, Mapping) and set(config) <= {*cls.fields}:
            return cls(**config)
    near = closest(identifier, _NAMES) if isinstance(identifier, str) else None
    raise UnsupportedError(
        f"regularizer {identifier!r} is not supported"
        f"{f'; did you mean {near!r}? Supported' if near else '; supported'}: l1, l2, l1_l2, or "
        '{"class_name": "L2", "config": {"l2": 0.01}}'
    )


def serialize(regularizer: Regularizer) -> ConfigDict:
    """Return the config of a regularizer, as Keras writes it."""
    return {"class_name": type(regularizer).__name__, "config": regularizer.get_config()}
