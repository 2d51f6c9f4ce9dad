"""A graph as plain values, as read from a file and stored in the native format; its operators.

The table of operators has all operators except the recurrent ones. Attributes are honoured or
refused.
Errors of operators do not name the node: `evaluate` adds its name.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError, ShapeError, UnsupportedError

NamedArrays = dict[str, Array]

DTYPES = ("float32", "int64", "int32", "bool")
INTEGERS = ("int64", "int32", "bool", "int8", "uint8")
"""Types of integer constants.

int8 and uint8 are for zero points, and for weights until the graph is folded.
"""


@dataclass(frozen=True)
class Value:
    """An input or output: dims are numbers, or None if the file leaves them open."""

    name: str
    dtype: str
    dims: tuple[int | None, ...]


@dataclass(frozen=True)
class NodeDef:
    """One operator: "" stands for an omitted input or output."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.op})"

    def input(self, position: int) -> str:
        """Return the name of an input, "" if it is omitted."""
        return self.inputs[position] if position < len(self.inputs) else ""


@dataclass(frozen=True)
class GraphDef:
    """A graph with its nodes in topological order."""

    name: str
    opset: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[NodeDef, ...]
    constants: NamedArrays

    def weights(self) -> NamedArrays:
        """Return the float32 constants in order: a model's weights."""
        return {name: a for name, a in self.constants.items() if a.dtype == np.float32}

    def with_constants(self, constants: NamedArrays) -> "GraphDef":
        """Return the same graph with more constants, which replace constants of equal names."""
        return replace(self, constants={**self.constants, **constants})

    def to_config(self) -> dict[str, object]:
        """Return the graph for JSON, with only names and shapes of its weights."""
        return {
            "name": self.name,
            "opset": self.opset,
            "inputs": [[v.name, v.dtype, list(v.dims)] for v in self.inputs],
            "outputs": [[v.name, v.dtype, list(v.dims)] for v in self.outputs],
            "nodes": [
                [n.op, n.name, list(n.inputs), list(n.outputs), dict(n.attributes)]
                for n in self.nodes
            ],
            "integers": {
                name: [str(a.dtype), list(a.shape), a.reshape(-1).tolist()]
                for name, a in self.constants.items()
                if a.dtype != np.float32
            },
            "weights": {name: list(a.shape) for name, a in self.weights().items()},
        }


def require_sound(graph: GraphDef) -> None:
    """Raise ModelFileError if a node or an output reads a value that does not exist yet.

    Also raise it for a value that is made twice, and for a graph without outputs.
    """
    values = {*graph.constants, *(v.name for v in graph.inputs)}
    for node in graph.nodes:
        if missing := [name for name in node.inputs if name and name not in values]:
            raise ModelFileError(f"{node} reads {missing[0]!r}, which no node before it makes")
        if repeated := [name for name in node.outputs if name and name in values]:
            raise ModelFileError(f"{node} makes {repeated[0]!r}, which already exists")
        values |= set(node.outputs) - {""}
    if missing := [v.name for v in graph.outputs if v.name not in values]:
        raise ModelFileError(f"no node makes the graph's output {missing[0]!r}")
    if not graph.outputs:
        raise ModelFileError("not an ONNX model: the graph has no outputs")


def from_config(config: Mapping[str, Any]) -> tuple[GraphDef, dict[str, tuple[int, ...]]]:
    """Return the graph without its weights, and the weights' shapes. Raises ModelFileError."""
    integers = {}
    for name, (dtype, shape, values) in config["integers"].items():
        if dtype not in INTEGERS:
            raise ModelFileError(f"constant {name!r} has the unsupported dtype {dtype!r}")
        integers[name] = np.array(values, dtype=dtype).reshape(shape)
    graph = GraphDef(
        name=str(config["name"]),
        opset=int(config["opset"]),
        inputs=tuple(_value(v) for v in config["inputs"]),
        outputs=tuple(_value(v) for v in config["outputs"]),
        nodes=tuple(
            NodeDef(str(op), str(name), tuple(inputs), tuple(outputs), dict(attributes))
            for op, name, inputs, outputs, attributes in config["nodes"]
        ),
        constants=integers,
    )
    return graph, {name: tuple(shape) for name, shape in config["weights"].items()}


def _value(item: Sequence[Any]) -> Value:
    name, dtype, dims = item
    if dtype not in DTYPES:
        raise ModelFileError(f"{name!r} has the unsupported dtype {dtype!r}")
    return Value(str(name), dtype, tuple(dims))


NodeInputs = list[Any]
"""Arrays; None for an omitted input."""
Pairwise = Callable[[Array, Array], Array]
OperatorCheck = Callable[[NodeDef, Mapping[str, Array]], None]


class Operator(NamedTuple):
    """A function of node, inputs and opset, with the attributes that it supports.

    `check`: raises UnsupportedError, before there is data, to refuse a node with its constants.
    """

    run: Callable[[NodeDef, NodeInputs, int], Array | list[Array]]
    attributes: frozenset[str]
    check: OperatorCheck | None


OPERATORS: dict[str, Operator] = {}
MAX_VALUES = 1 << 25
"""Number of values that an array may always have, whatever the size of its inputs: 128 MB."""
_MAX_GROWTH = 64


def operator(
    name: str, *attributes: str, check: OperatorCheck | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
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

        OPERATORS[name] = Operator(run, frozenset(attributes), check)
        return function

    return register


def refuse_other_outputs(node: NodeDef, constants: Mapping[str, Array]) -> None:
    """Raise UnsupportedError if an output after the first is used."""
    if wanted := [name for name in node.outputs[1:] if name]:
        raise UnsupportedError(f"only its first output is supported, not {wanted[0]!r}")


def one_of(attribute: str, *values: str) -> OperatorCheck:
    """Return a check that an attribute has one of these values; the first is its default."""

    def check(node: NodeDef, constants: Mapping[str, Array]) -> None:
        if (value := node.attributes.get(attribute, values[0])) not in values:
            raise UnsupportedError(
                f"{attribute}={value!r} is not supported; supported: {', '.join(values[:-1])} and "
                f"{values[-1]}"
            )

    return check


def require_room(shape: Iterable[int], *inputs: Array) -> None:
    """Raise ShapeError if this shape is invalid, or has far more values than `inputs`."""
    sizes = tuple(int(n) for n in shape)
    limit = MAX_VALUES + _MAX_GROWTH * sum(x.size for x in inputs)
    negative = any(n < 0 for n in sizes)
    if negative or math.prod(sizes) > limit:
        reason = "a size is negative" if negative else f"the limit is {limit:,} values"
        raise ShapeError(f"it would make an array of shape {sizes}; {reason}")


def limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return the lowest and the highest value of a type."""
    if dtype.kind == "f":
        return -np.inf, np.inf
    return (False, True) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)


def ints_of(value: ArrayLike | None) -> list[int]:
    """Return the integers of an attribute or an array; [] for None."""
    return [] if value is None else [int(n) for n in np.asarray(value).reshape(-1)]


def tree(x: Array, function: Pairwise, of_none: float) -> Array:
    """Combine the entries of the first axis, in an order that depends on its size only.

    of_none: the result if there are no entries.
    """
    while len(x) > 1:
        half = len(x) // 2
        rest = x[2 * half :]
        x = np.concatenate([function(x[:half], x[half : 2 * half]), rest])
    return x[0] if len(x) else np.full(x.shape[1:], of_none, x.dtype)


def tree_sum(x: Array) -> Array:
    """Return the sum over the first axis, in an order that depends on its size only."""
    return tree(x, lambda a, b: a + b, 0)


_NONE: Mapping[str, float] = MappingProxyType({})


class Row(NamedTuple):
    """An operator, and its attributes, one for each of our parameters: name -> default value.

    in_nodes: recurrent nodes can have it as activation. by_kernel: our kernel computes exactly this
    operator.
    """

    operator: str
    attributes: Mapping[str, float] = _NONE
    in_nodes: bool = False
    by_kernel: bool = True


NAMES = {
    "tanh": Row("Tanh", in_nodes=True),
    "sigmoid": Row("Sigmoid", in_nodes=True),
    "relu": Row("Relu", in_nodes=True),
    "softplus": Row("Softplus", in_nodes=True),
    "softsign": Row("Softsign", in_nodes=True),
    "exponential": Row("Exp"),
    "erf": Row("Erf"),
    "mish": Row("Mish"),
    "celu": Row("Celu", {"alpha": 1.0}, by_kernel=False),
    "hard_silu": Row("HardSwish", by_kernel=False),
    "leaky_relu": Row("LeakyRelu", {"alpha": 0.01}, in_nodes=True),
    "elu": Row("Elu", {"alpha": 1.0}, in_nodes=True),
    "selu": Row("Selu", {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}),
    "hard_sigmoid_02": Row("HardSigmoid", {"alpha": 0.2, "beta": 0.5}, in_nodes=True),
    "affine": Row("Affine", {"alpha": 1.0, "beta": 0.0}, in_nodes=True, by_kernel=False),
    "scaled_tanh": Row("ScaledTanh", {"alpha": 1.0, "beta": 1.0}, in_nodes=True, by_kernel=False),
    "thresholded_relu": Row("ThresholdedRelu", {"alpha": 1.0}, in_nodes=True, by_kernel=False),
}
"""Our name -> ONNX's. Activations without a row are composed of other operators, or refused."""
