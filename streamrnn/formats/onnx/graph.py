"""A graph as plain values: what was read from a file, and what the native format keeps of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streamrnn.arrays import Array
from streamrnn.errors import ModelFileError

Arrays = dict[str, Array]

INTEGERS = ("int64", "int32", "bool")
DTYPES = ("float32", *INTEGERS)


@dataclass(frozen=True)
class Value:
    """An input or output: dims are numbers, or None where the file leaves them open."""

    name: str
    dtype: str
    dims: tuple[int | None, ...]


@dataclass(frozen=True)
class NodeDef:
    """One operator: "" among inputs or outputs means that one is left out."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.op})"


@dataclass(frozen=True)
class GraphDef:
    """Nodes in an order in which each stands behind what it reads."""

    name: str
    opset: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[NodeDef, ...]
    constants: Arrays

    def weights(self) -> Arrays:
        """The constants that are numbers, in order: a model's weights."""
        return {name: a for name, a in self.constants.items() if a.dtype == np.float32}

    def with_constants(self, constants: Arrays) -> "GraphDef":
        """The same graph with some constants replaced."""
        return replace(self, constants={**self.constants, **constants})

    def to_config(self) -> dict[str, Any]:
        """JSON-able; of the weights only names and shapes."""
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
    """Raise ModelFileError where a node or an output reads what nothing before it makes."""
    known = {*graph.constants, *(v.name for v in graph.inputs)}
    for node in graph.nodes:
        if missing := [name for name in node.inputs if name and name not in known]:
            raise ModelFileError(f"{node} reads {missing[0]!r}, which nothing before it makes")
        if twice := [name for name in node.outputs if name and name in known]:
            raise ModelFileError(f"{node} makes {twice[0]!r}, which is there already")
        known |= set(node.outputs) - {""}
    if missing := [v.name for v in graph.outputs if v.name not in known]:
        raise ModelFileError(f"the graph's output {missing[0]!r} is made by no node")
    if not graph.outputs:
        raise ModelFileError("no ONNX model: the graph has no outputs")


def from_config(config: Mapping[str, Any]) -> tuple[GraphDef, dict[str, tuple[int, ...]]]:
    """The graph without its weights, and their shapes. Raises ModelFileError."""
    integers = {}
    for name, (dtype, shape, values) in config["integers"].items():
        if dtype not in INTEGERS:
            raise ModelFileError(f"constant {name!r} has dtype {dtype!r}")
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


def _value(item: Any) -> Value:
    name, dtype, dims = item
    if dtype not in DTYPES:
        raise ModelFileError(f"{name!r} has dtype {dtype!r}")
    return Value(str(name), dtype, tuple(dims))
