"""The gradient of a user's loss, compared with central differences of its values in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ArgumentError
from streamrnn.nn.training.step_check import central_differences, worst_entry

_ROWS = 8
"""Number of rows of the first batch for the comparison."""


def check_gradient(
    owner: str, call: Callable[..., Any], gradient: Callable[..., Any], t: Array, p: Array
) -> None:
    """Compare `gradient` with `call` on the first rows of a batch.

    Raises ArgumentError if they differ.
    """
    truth, point = (array[:_ROWS].astype(np.float64) for array in (t, p))

    def value() -> float:
        return float(np.sum(call(truth.copy(), point.copy()), dtype=np.float64))

    with np.errstate(all="ignore"):
        received = np.asarray(gradient(truth.copy(), point.copy()))
        slopes = list(central_differences(value, point, np.random.default_rng(17)))
    if slopes and (where := worst_entry(["y_pred"], [received], [slopes])):
        raise ArgumentError(
            f"{owner}: its gradient is not the derivative of the sum of its values; for the "
            f"gradient of {where} (the entry that differs most; the expected value is a central "
            "difference of the values in float64)"
        )
