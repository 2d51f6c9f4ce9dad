"""Errors of a regression on the scale of the target, beside those of persistence."""

from __future__ import annotations

import math

import numpy as np

from streamrnn.arrays import Floats
from streamrnn.kernels import losses as sums


class ErrorSums:
    """Sums of absolute and squared errors, added in order in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._absolute = self._squared = 0.0

    def add(self, label: Floats, output: Floats) -> None:
        """Add N errors; all of them are finite."""
        error = np.ascontiguousarray(output - label, np.float32)
        self.count += error.size
        self._squared += sums.dot(error, error)
        self._absolute += sums.dot(np.abs(error), np.ones_like(error))

    @property
    def mae(self) -> float:
        """The mean absolute error."""
        return self._absolute / self.count if self.count else math.nan

    @property
    def rmse(self) -> float:
        """The root of the mean squared error."""
        return math.sqrt(self.mse)

    @property
    def mse(self) -> float:
        """The mean squared error."""
        return self._squared / self.count if self.count else math.nan


class TargetErrors:
    """The mean squared error of each target."""

    def __init__(self) -> None:
        self._sums: list[ErrorSums] = []

    def add(self, label: Floats, output: Floats) -> None:
        """Add N steps with K targets."""
        self._sums = self._sums or [ErrorSums() for _ in range(label.shape[1])]
        for k, sums_of in enumerate(self._sums):
            sums_of.add(label[:, k], output[:, k])

    @property
    def mse(self) -> list[float]:
        """The mean squared errors (K,); empty before the first step."""
        return [sums_of.mse for sums_of in self._sums]


class AgainstPersistence:
    """Errors of the model, and of the forecast that nothing changes, over the same steps."""

    def __init__(self) -> None:
        self.model, self.persistence = ErrorSums(), ErrorSums()

    def add(self, label: Floats, output: Floats, now: Floats) -> None:
        """Add N steps with K targets; those whose value `now` is null are left out."""
        known = np.isfinite(now).all(axis=-1)
        self.model.add(label[known], output[known])
        self.persistence.add(label[known], now[known])

    def as_row(self) -> dict[str, float]:
        """Return the errors by name; none if no step counts."""
        if not self.model.count:
            return {}
        return {
            "val_rmse": self.model.rmse,
            "val_mae": self.model.mae,
            "persistence_rmse": self.persistence.rmse,
            "persistence_mae": self.persistence.mae,
        }
