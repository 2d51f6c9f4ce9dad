"""The `call` of a class written for Keras, which computes a layer in place of `apply`."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from streamrnn.errors import DTypeError, ShapeError
from streamrnn.nn.layers.context import CallContext, training_inside
from streamrnn.nn.layers.masks import carried, carry
from streamrnn.nn.layers.structure import Shape, map_lists, map_structure


def run_call(layer: object, call: Callable[..., Any], inputs: Any, context: CallContext) -> Any:
    """Return the outputs of `call` as float32, each with the mask that it carries.

    `call` gets copies of the inputs, which it may change, and each output is a copy, as `call` may
    overwrite it later. Raises DTypeError for other outputs than numbers.
    """

    def copied(output: object) -> Any:
        array = np.asarray(output)
        if array.dtype.kind not in "fiub":
            received = "None" if output is None else f"values of type {array.dtype}"
            raise DTypeError(
                f"{layer}: expected numbers from its call, in an array or a list of arrays, "
                f"received {received}"
            )
        return carry(np.array(array, np.float32), carried(output))

    options = {"mask": context.mask, "training": context.training}
    parameters = inspect.signature(call).parameters
    with training_inside(context.training):
        outputs = call(
            carry(map_structure(np.copy, inputs), context.mask),
            **{name: value for name, value in options.items() if name in parameters},
        )
    return map_structure(copied, outputs)


def shape_of_call(layer: Any, input_shape: Any) -> Any:
    """Return the shapes of the outputs that a layer computes from zeros.

    Zeros of two sizes are tried: an output size that differs between them depends on an unknown
    size of the input, and is unknown itself. Raises ShapeError if the number of axes differs.
    """

    def shape_for(size: int) -> Any:
        def zeros(shape: Shape) -> Any:
            filled = tuple(size if n is None else n for n in shape)
            return np.zeros(filled, "int64" if layer.input_dtype == "int64" else "float32")

        with np.errstate(all="ignore"):  # the call may divide by these zeros
            outputs = layer.apply(map_lists(zeros, input_shape), CallContext())
        return map_structure(np.shape, outputs)

    return _common(layer, shape_for(2), shape_for(3))


def _common(layer: object, small: Any, large: Any) -> Any:
    """Return a shape, or a list or dictionary of them, with None for sizes that differ."""
    if isinstance(small, dict):
        return {key: _common(layer, shape, large[key]) for key, shape in small.items()}
    if isinstance(small, list):
        return [_common(layer, a, b) for a, b in zip(small, large, strict=True)]
    if len(small) != len(large):
        raise ShapeError(
            f"{layer}: the number of axes of its output depends on the sizes of its input: {small} "
            f"or {large}; implement compute_output_shape"
        )
    return tuple(a if a == b else None for a, b in zip(small, large, strict=True))
