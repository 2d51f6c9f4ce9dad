"""Support for classes written for Keras: their `call`, and attributes that only Keras has."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ConfigError, DTypeError, ShapeError
from streamrnn.nn.layers.context import CallContext, training_inside
from streamrnn.nn.layers.masks import carried, carry
from streamrnn.nn.layers.structure import Shape, map_lists, map_structure


def run_call(layer: object, call: Callable[..., Any], inputs: Any, context: CallContext) -> Any:
    """Return the outputs of `call` as float32, each with the mask that it carries.

    `call` gets copies of the inputs, which it may change, and each output is a copy, as `call` may
    overwrite its own array later. Raises DTypeError for outputs that are not numbers.
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
    size of the input, and is None. Raises ShapeError if the number of axes differs.
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


def row_by_row(cell: object, call: Callable[..., Any], training: bool) -> Callable[..., None]:
    """Return step(x_F, states, weights, y_U), which runs `call` on one row.

    `step` overwrites `states` with the new states, and y_U with the output.

    In a batch, NumPy's matrix product may give a row other bits than alone, and a mean over the
    batch gives another value. One row at a time rules out both.
    """
    parameters = inspect.signature(call).parameters.values()
    takes = any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in parameters)
    options = {"training": training} if takes else {}

    def step(x: Floats, states: tuple[Floats, ...], weights: tuple[Floats, ...], y: Floats) -> None:
        # Copies: `call` may return the very arrays that were passed, for instance in another order.
        rows = [state[None].copy() for state in states]
        with training_inside(training):
            output, new = _pair(cell, call(x[None].copy(), rows, **options))
        if len(new) != len(states):
            raise ShapeError(
                f"{cell}: the number of states that call returns must be "
                f"{len(states)}, received {len(new)}"
            )
        for i, (place, value) in enumerate(zip((y, *states), (output, *new), strict=True)):
            if np.shape(value) != (1, *place.shape):
                raise ShapeError(
                    f"{cell}: call returned its {f'state {i - 1}' if i else 'output'} in shape "
                    f"{np.shape(value)}, expected {(1, *place.shape)}, one row like its inputs"
                )
            place[...] = value[0]

    return step


def _pair(cell: object, returned: object) -> tuple[Array, list[Array]]:
    """Return the output and the new states that `call` returned; a single state needs no list."""
    if not isinstance(returned, tuple | list):
        received = _shown(returned)
    elif len(returned) != 2:
        received = f"{len(returned)} values"
    else:
        output, states = returned
        if isinstance(states, np.ndarray):
            return output, [states]
        if isinstance(states, tuple | list):
            return output, list(states)
        received = f"an output and {_shown(states)}"
    raise ShapeError(
        f"{cell}: call returned {received}, expected a pair: (output, new states), the states in "
        "a list as they are passed"
    )


def _shown(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"one array of shape {value.shape}"
    return "None" if value is None else f"a value of type {type(value).__name__}"


WHY_MISSING = {
    "add_loss": "a loss depends on outputs alone; add what it needs to the model's outputs",
    "call": "call the object itself, as in layer(inputs)",
    "export": "save(path) writes a .safetensors file",
    "get_initial_state": "a cell has it, as in layer.cell.get_initial_state(batch_size)",
    "states": "get_state() returns the states of stateful layers",
    "train_step": "the training step is compiled; see fit(), train_on_batch() and gradients()",
    "to_json": "get_config() returns the config",
}

_INTERNAL = """
adopt begin build_on call_options cell_class check_arrays check_initial check_input children connect
ensure_built expect_features forward graph holders input_dtype input_specs is_built_in
known_features layer_shapes make_mask makes_mask memory nodes ragged regularization runner
sequence_input stateful_layers stepwise stream_classes stream_initial stream_states takes_state
weights_changed why_not_stepwise
"""
INTERNAL = frozenset(_INTERNAL.split())
"""Attributes for this package and for custom layers' classes; `dir(layer)` omits them."""


@dataclass(eq=False)
class _Missing:
    """An attribute that does not exist, with the reason.

    A `__getattr__` of Layer could give the reason, too, but calls of layers were 15 % slower with
    it: CPython does not specialize attribute access then.
    """

    name: str
    why: str

    def __get__(self, instance: object, owner: type) -> object:
        raise AttributeError(
            f"{owner.__name__!r} object has no attribute {self.name!r}: {self.why}",
            name=self.name,
            obj=instance,
        )


class _Unset:
    """An attribute that the constructor of a base class sets."""

    def __get__(self, instance: object, owner: type) -> object:
        if instance is None:
            return self
        raise ConfigError(
            f"{owner.__name__}: its __init__ must call super().__init__() before it uses self"
        )


def require_constructor(owner: type, *names: str) -> None:
    """Make objects without these attributes report that super().__init__() was not called."""
    for name in names:
        setattr(owner, name, _Unset())


def explain_missing(owner: type) -> None:
    """Make Keras's attributes that a class lacks raise AttributeError with a reason."""
    for name, why in WHY_MISSING.items():
        setattr(owner, name, _Missing(name, why))
