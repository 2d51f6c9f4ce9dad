"""Batch: rows of a model's inputs with truths and weights; class weights, and rows to reset."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.errors import ArgumentError, DataError, ShapeError
from streamrnn.nn.layers import RNN, Layer
from streamrnn.nn.layers.memory import Memory
from streamrnn.nn.models import Model


class Batch(NamedTuple):
    """Rows of a model's inputs and their masks; truths and weights of samples for each output.

    reset: rows whose states are initial before the batch. labelled: 1 where a step has a label, 0
    where it has none and no metric counts it.
    """

    inputs: list[Array]
    masks: list[Array | None]
    y: list[Any]
    weights: list[Array | None]
    reset: Bools | None = None
    labelled: Floats | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.inputs[0])

    def take(self, rows: Any) -> "Batch":
        """Return some of the rows, selected by a slice or by numbers."""
        return Batch(
            [array[rows] for array in self.inputs],
            [None if mask is None else np.ascontiguousarray(mask[rows]) for mask in self.masks],
            [None if y is None else y[rows] for y in self.y],
            [None if weight is None else weight[rows] for weight in self.weights],
        )


def class_weights(y: Array, by_class: Any, rank: int) -> Floats:
    """Return the weight of each sample (B,), or step (B, T): 1 for a class without one.

    y: whole numbers, with or without a last axis of 1, or one-hot; rank: the output's number of
    axes.
    """
    if not isinstance(by_class, Mapping):
        raise ArgumentError(
            "class_weight must be a dictionary, class -> weight, received "
            f"{type(by_class).__name__}"
        )
    if y.dtype.kind not in "fiub":
        raise DataError(f"class_weight: expected numbers as y, received {y.dtype}")
    classes = y
    if y.ndim == rank and y.shape[-1] == 1:
        classes = y[..., 0]
    elif y.ndim == rank:
        classes = y.argmax(axis=-1)
    weights = np.ones(classes.shape, np.float32)
    for number, weight in by_class.items():
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
    is_number = isinstance(weight, int | float | np.number) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight < math.inf:
        raise ArgumentError(
            f"class_weight: the weight of class {number} must be a number, 0 or more, received "
            f"{weight!r}"
        )
    return float(weight)


def memories(layer: Layer) -> list[Memory]:
    """Return the memories of a model or layer, and of all layers inside it."""
    if isinstance(layer, RNN):
        return [layer.memory] if layer.stateful else []
    return [memory for child in layer.children().values() for memory in memories(child)]


def checked_reset(model: Model, reset: Any, rows: int) -> Bools:
    """Return the rows to reset as (B,) bool. Raises ShapeError, ArgumentError."""
    reset_B: Bools = np.asarray(reset)
    if reset_B.dtype != np.bool_ or reset_B.shape != (rows,):
        raise ShapeError(
            f"{model}: reset must be an array of bool with the shape ({rows},), a value for each "
            f"row, received {reset_B.dtype} {reset_B.shape}"
        )
    if not memories(model):
        raise ArgumentError(
            f"{model}: reset= needs a layer that carries state, made with stateful=True"
        )
    return reset_B
