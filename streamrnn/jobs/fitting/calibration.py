"""Split conformal calibration of quantiles (Romano, Patterson & Candès 2019), one by one."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import ConfigError
from streamrnn.jobs.fitting.staging import mapped


class Calibration:
    """How far validation labels lie above each quantile, stored on disk for `rows` labels."""

    def __init__(self, quantiles: Sequence[float], rows: int, path: Path) -> None:
        """Raise ConfigError if there are too few rows for one of the quantiles."""
        needed = math.ceil(max(1 / min(q, 1 - q) for q in quantiles) - 1e-9) - 1
        if rows < needed:
            raise ConfigError(
                f"[output] calibrate: the quantiles {', '.join(f'{q:g}' for q in quantiles)} need "
                f"{needed} rows with a label in [train] validation, received {rows}. Set an "
                "earlier since, or a larger share of the streams"
            )
        self._quantiles, self._count = quantiles, 0
        self._above: Floats = mapped(path, np.float32, (len(quantiles), rows))

    def begin(self) -> None:
        """Forget the rows of the last validation."""
        self._count = 0

    def add(self, label: Floats, output: Floats) -> None:
        """Add labels (N, 1) and quantiles (N, U)."""
        end = self._count + len(label)
        self._above[:, self._count : end] = (label - output).T
        self._count = end

    def shifts(self) -> list[float]:
        """Return what to add to each quantile, so that its share of the labels is at or below it.

        Of n sorted differences that is number (n + 1) q; between two, the one farther from the
        median.
        """
        shifts = []
        for q, above in zip(self._quantiles, self._above[:, : self._count], strict=True):
            place = round((self._count + 1) * q, 9)
            rank = math.floor(place) if q < 0.5 else math.ceil(place)
            above.partition(rank - 1)
            shifts.append(float(above[rank - 1]))
        return shifts
