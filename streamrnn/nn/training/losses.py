"""Losses, with the names, arguments and formulas of Keras 3, and the quantile loss.

A loss is called as loss(y_true, y_pred, sample_weight=None) and returns a number. Shapes must fit:
nothing is broadcast, but y_true may lack a last axis of size 1. Sums are in one order.
"""

from typing import Any

from streamrnn.base.display import closest
from streamrnn.errors import ArgumentError
from streamrnn.nn.training.classifications import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    Hinge,
    KLDivergence,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)
from streamrnn.nn.training.loss import FunctionLoss, Loss
from streamrnn.nn.training.regressions import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    Quantile,
)

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "Quantile",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "loss_of",
]

_LOSSES: list[type[Loss]] = [globals()[name] for name in __all__ if name not in ("Loss", "loss_of")]
_SHORT: dict[str, type[Loss]] = {
    "bce": BinaryCrossentropy,
    "huber": Huber,
    "kld": KLDivergence,
    "logcosh": LogCosh,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "mse": MeanSquaredError,
    "msle": MeanSquaredLogarithmicError,
}
_NAMES = _SHORT | {cls.own_name: cls for cls in _LOSSES}
_ALSO = {cls.__name__: cls for cls in _LOSSES} | {
    name.upper(): cls for name, cls in _SHORT.items() if len(name) <= 4
}
"""Other names that Keras knows."""


def names_of_losses() -> frozenset[str]:
    """Return all names that `loss_of` knows."""
    return frozenset({*_NAMES, *_ALSO})


def loss_of(identifier: Any) -> Loss:
    """Return the loss of a name, class or function, or itself. Raises ArgumentError."""
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if callable(identifier):
        return FunctionLoss(identifier)
    if isinstance(identifier, str) and identifier in names_of_losses():
        return (_NAMES.get(identifier) or _ALSO[identifier])()
    near = closest(identifier, _NAMES) if isinstance(identifier, str) else None
    raise ArgumentError(
        f"loss {identifier!r} is not supported{f'; did you mean {near!r}' if near else ''}"
        f"{'? Supported' if near else '; supported'}: {', '.join(sorted(_NAMES))}"
    )
