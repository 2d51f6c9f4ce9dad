"""A graph as plain values, as read from a file and stored in the native format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError

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
        """Return the same graph with some constants replaced."""
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
    """Raise ModelFileError if a node or an output reads a value that no previous node makes."""
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
    """Return the graph without its weights, and their shapes. Raises ModelFileError."""
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
