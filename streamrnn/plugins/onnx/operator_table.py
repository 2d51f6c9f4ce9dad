"""The table of operators other than recurrent ones, and what their functions share.

Attributes are either honoured or refused. A check sees the node and the graph's constants before
there is data.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from streamrnn.base.arrays import Array
from streamrnn.errors import ShapeError, UnsupportedError
from streamrnn.plugins.onnx.graph import NodeDef

NodeInputs = list[Any]
"""Arrays; None for an omitted input."""
Pairwise = Callable[[Array, Array], Array]
Operator = Callable[[NodeDef, NodeInputs, int], Array | list[Array]]

OPERATORS: dict[str, Operator] = {}
ALLOWED: dict[str, frozenset[str]] = {}
"""The attributes that an operator's function supports."""

OperatorCheck = Callable[[NodeDef, Mapping[str, Array]], None]
CHECKS: dict[str, OperatorCheck] = {}
"""Operator -> a check of node and constants, which raises UnsupportedError to refuse them."""

MAX_VALUES = 1 << 25
"""Number of values that an array may always have, whatever the size of its inputs: 128 MB."""
_MAX_GROWTH = 64


def operator(name: str, *attributes: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function that computes an operator from its inputs, None for omitted ones.

    The function takes, by name, `node`, `opset` and the `attributes` that change its result. A
    value that is an attribute up to some opset, and an input later, is one argument.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        named = inspect.signature(function).parameters.keys() & {*attributes, "node", "opset"}

        def run(node: NodeDef, inputs: NodeInputs, opset: int) -> Array | list[Array]:
            options = {**node.attributes, "node": node, "opset": opset}
            outputs: Array | list[Array] = function(
                *inputs, **{key: value for key, value in options.items() if key in named}
            )
            return outputs

        OPERATORS[name], ALLOWED[name] = run, frozenset(attributes)
        return function

    return register


def check_of(name: str) -> Callable[[OperatorCheck], OperatorCheck]:
    """Register the check of an operator."""

    def register(check: OperatorCheck) -> OperatorCheck:
        CHECKS[name] = check
        return check

    return register


def refuse_other_outputs(node: NodeDef, constants: Mapping[str, Array]) -> None:
    """Raise UnsupportedError if an output after the first is used."""
    if wanted := [name for name in node.outputs[1:] if name]:
        raise UnsupportedError(f"{node}: only its first output is supported, not {wanted[0]!r}")


def require_room(node: NodeDef, shape: Iterable[int], *inputs: Array) -> None:
    """Raise ShapeError if an array to be made is far larger than `inputs`."""
    sizes = tuple(int(n) for n in shape)
    limit = MAX_VALUES + _MAX_GROWTH * sum(x.size for x in inputs)
    if math.prod(sizes) > limit or any(n < 0 for n in sizes):
        raise ShapeError(
            f"{node} would make an array of shape {sizes}; the limit is {limit:,} values"
        )


def ints_of(value: ArrayLike | None) -> list[int]:
    """Return the integers of an attribute or an array; [] for None."""
    return [] if value is None else [int(n) for n in np.asarray(value).reshape(-1)]


def tree(x: Array, function: Pairwise, of_none: float) -> Array:
    """Combine the entries of the first axis, in an order that depends on its size only."""
    while len(x) > 1:
        half = len(x) // 2
        rest = x[2 * half :]
        x = np.concatenate([function(x[:half], x[half : 2 * half]), rest])
    return x[0] if len(x) else np.full(x.shape[1:], of_none, x.dtype)


def tree_sum(x: Array) -> Array:
    """Return the sum over the first axis, in an order that depends on its size only."""
    return tree(x, lambda a, b: a + b, 0)
