"""A cell's `call(inputs, states)` as the step of one stream."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ShapeError
from streamrnn.nn.layers.context import training_inside

RowStep = Callable[[Floats, tuple[Floats, ...], tuple[Floats, ...], Floats], None]


def row_by_row(cell: object, call: Callable[..., Any], training: bool) -> RowStep:
    """Return step(x_F, states, weights, y_U), which runs `call` on one row.

    It overwrites `states` with the new states, and y_U with the output.

    In a batch, NumPy's matrix product may give a row other bits than it gives the row alone, and a
    mean over the batch gives another value. One row at a time rules out both.
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
                f"{cell}: number of states that call returned: {len(new)}, expected {len(states)}"
            )
        _require_row(cell, "output", output, y)
        y[:] = output[0]
        for i, (state, value) in enumerate(zip(states, new, strict=True)):
            _require_row(cell, f"state {i}", value, state)
            state[...] = value[0]

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


def _require_row(cell: object, what: str, value: Array, place: Floats) -> None:
    if np.shape(value) != (1, *place.shape):
        raise ShapeError(
            f"{cell}: call returned its {what} in shape {np.shape(value)}, expected "
            f"{(1, *place.shape)}, one row like its inputs"
        )
