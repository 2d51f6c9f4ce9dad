"""Rows of stateful layers that start again, while others continue."""

from typing import Any

import numpy as np

from streamrnn.base.arrays import Bools
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers import RNN, Layer
from streamrnn.nn.layers.memory import Memory
from streamrnn.nn.models import Model


def memories(layer: Layer) -> list[Memory]:
    """Return what carries state in a model, or in a layer, and in all inside it."""
    if isinstance(layer, RNN):
        return [layer.memory] if layer.stateful else []
    return [found for child in layer.children().values() for found in memories(child)]


def checked_reset(model: Model, reset: Any, rows: int) -> Bools:
    """Return the rows to reset as (B,) bool. Raises ShapeError, ArgumentError."""
    found: Bools = np.asarray(reset)
    if found.dtype != np.bool_ or found.shape != (rows,):
        raise ShapeError(
            f"{model}: reset must be an array of bool with the shape ({rows},), a value for each "
            f"row, received {found.dtype} {found.shape}"
        )
    if not memories(model):
        raise ArgumentError(
            f"{model}: reset= needs a layer that carries state, made with stateful=True"
        )
    return found
