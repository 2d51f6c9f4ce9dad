"""Weights of samples by the class of their truth."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError, DataError


def class_weights(y: Array, given: Any, rank: int) -> Floats:
    """Return the weight of each sample (B,), or step (B, T): 1 for a class without one.

    y: whole numbers, with a last axis of 1 or without, or one-hot; rank: axes of the output.
    """
    if not isinstance(given, Mapping):
        raise ArgumentError(
            f"class_weight must be a dictionary, class -> weight, received {type(given).__name__}"
        )
    if y.dtype.kind not in "fiub":
        raise DataError(f"class_weight: expected numbers as y, received {y.dtype}")
    classes = y
    if y.ndim == rank and y.shape[-1] == 1:
        classes = y[..., 0]
    elif y.ndim == rank:
        classes = y.argmax(axis=-1)
    weights = np.ones(classes.shape, np.float32)
    for number, weight in given.items():
        weights[classes == _class(number)] = _weight(number, weight)
    if classes.dtype.kind == "f" and not (classes == np.rint(classes)).all():
        raise DataError("class_weight: y must be classes, whole numbers or one-hot")
    return weights


def _class(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
        raise ArgumentError(
            f"class_weight: expected the numbers of classes, as in {{0: 1, 1: 20}}, received "
            f"{number!r}"
        )
    return int(number)


def _weight(number: Any, weight: Any) -> float:
    known = isinstance(weight, int | float | np.number) and not isinstance(weight, bool)
    if not known or not 0 <= weight < math.inf:
        raise ArgumentError(
            f"class_weight: the weight of class {number} must be a number, 0 or more, received "
            f"{weight!r}"
        )
    return float(weight)
