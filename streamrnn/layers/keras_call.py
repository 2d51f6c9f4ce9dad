"""Custom layers that have Keras's `call(self, inputs)` in place of `apply(inputs, context)`."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from streamrnn.errors import ShapeError
from streamrnn.layers.context import CallContext, training_inside
from streamrnn.layers.definition import LayerDefinition
from streamrnn.layers.symbol import Shape, map_lists, map_structure


def own_call(layer: LayerDefinition) -> Callable[..., Any] | None:
    """Return the method `call` of a layer's class, None without one or if it is a cell's."""
    found: Callable[..., Any] | None = getattr(layer, "call", None)
    return None if hasattr(layer, "state_size") else found


def apply_by_call(layer: LayerDefinition, inputs: Any, context: CallContext) -> Any:
    """Compute outputs, with mask and training if `call` has these arguments."""
    call = own_call(layer)
    if call is None:
        raise NotImplementedError(
            f"{layer} must implement `apply(inputs, context)`, or Keras's `call(inputs)`"
        )
    given = {"mask": context.mask, "training": context.training}
    known = inspect.signature(call).parameters
    with training_inside(context.training):
        made = call(inputs, **{name: value for name, value in given.items() if name in known})
    return map_structure(lambda x: np.asarray(x, np.float32), made)


def shape_by_call(layer: LayerDefinition, input_shape: Any) -> Any:
    """Return the shape of what `call` makes of zeros: sizes that vary with unknown ones are None.

    Raises ShapeError if the number of axes does.
    """

    def made(size: int) -> Any:
        def zeros(shape: Shape) -> Any:
            known = tuple(size if n is None else n for n in shape)
            return np.zeros(known, "int64" if layer.input_dtype == "int64" else "float32")

        outputs = layer.apply(map_lists(zeros, input_shape), CallContext())
        return map_structure(np.shape, outputs)

    small, large = made(2), made(3)
    if isinstance(small, list):
        return [_common(layer, a, b) for a, b in zip(small, large, strict=True)]
    return _common(layer, small, large)


def _common(layer: LayerDefinition, small: Shape, large: Shape) -> Shape:
    if len(small) != len(large):
        raise ShapeError(
            f"{layer}: the axes of its output depend on the sizes of its input: {small}, {large}; "
            "implement compute_output_shape"
        )
    return tuple(a if a == b else None for a, b in zip(small, large, strict=True))
