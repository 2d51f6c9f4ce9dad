"""The oracle of gradients: central differences of the plain-Python oracle, in float64.

It imports nothing of streamrnn and no numpy, as `naive.py`. With a step of 1e-5 the error of a
central difference is some 1e-9 of the loss: far below what float32 can show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

STEP = 1e-5


def central(loss: Callable[[], float], holder: Any, key: int) -> Any:
    """The derivative of loss() by holder[key], a number or nested lists of them, in its structure.

    `loss` reads `holder`; it holds the same values afterwards.
    """
    value = holder[key]
    if isinstance(value, list):
        return [central(loss, value, i) for i in range(len(value))]
    holder[key] = value + STEP
    above = loss()
    holder[key] = value - STEP
    below = loss()
    holder[key] = value
    return (above - below) / (2 * STEP)


def flat(values: Any) -> list[float]:
    """All numbers of nested lists."""
    return (
        [number for item in values for number in flat(item)]
        if isinstance(values, list)
        else [values]
    )


def mean_squared_error(truth: Any, predicted: Any, mask_BT: Any = None) -> float:
    """The mean of squares over all elements, or over those of the steps that are not masked."""
    if mask_BT is not None:
        truth, predicted = (
            [step for row, mask in zip(rows, mask_BT, strict=True)
             for step, valid in zip(row, mask, strict=True) if valid]
            for rows in (truth, predicted)
        )  # fmt: skip
    errors = [p - t for p, t in zip(flat(predicted), flat(truth), strict=True)]
    return math.fsum(error * error for error in errors) / len(errors)
