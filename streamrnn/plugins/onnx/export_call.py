"""The graph that an export builds, and one call of a layer in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array
from streamrnn.errors import UnsupportedError
from streamrnn.plugins.onnx.graph import NamedArrays, NodeDef, Value


class GraphBuilder:
    """The nodes, constants and states of a graph so far; all values have different names.

    states: pairs of an input (1, batch, units) and the output with its next value.
    integers: the names of inputs that are integers; all other values are float32.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeDef] = []
        self.constants: NamedArrays = {}
        self.states: list[tuple[Value, Value]] = []
        self.integers: set[str] = set()
        self._taken: set[str] = set()

    def fresh(self, name: str) -> str:
        """Return the name, followed by a number if a value already has it."""
        number, unique = 0, name
        while unique in self._taken:
            number += 1
            unique = f"{name}_{number}"
        self._taken.add(unique)
        return unique

    def constant(self, name: str, array: Array) -> str:
        """Store an array, unless an equal one has this name, and return its name."""
        array = np.asarray(array, order="C")
        stored = self.constants.get(name)
        if stored is not None and stored.dtype == array.dtype and np.array_equal(stored, array):
            return name
        name = self.fresh(name)
        self.constants[name] = array
        return name

    def axis(self, n: int) -> str:
        """Return the name of a constant with the number of one axis."""
        return self.constant(f"axis_{n}", np.array([n], np.int64))

    def node(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any
    ) -> None:
        """Append a node. The names of its outputs come from `fresh`."""
        self.nodes.append(NodeDef(op, name, tuple(inputs), tuple(outputs), attributes))


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer: the names of its inputs, and where its nodes go.

    path: the path of the call, as in the names of states. owner: the path of the layer, as in the
    names of weights, which two calls of one layer share.
    """

    builder: GraphBuilder
    layer: Any
    path: str
    owner: str
    inputs: tuple[str, ...]

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output, and return the output's name."""
        name = self.builder.fresh(f"{self.path}/{op.lower()}")
        self.builder.node(op, inputs, [name], name, **attributes)
        return name

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        """Store an array of the layer, and return its name."""
        return self.builder.constant(f"{self.owner}/{name}", np.asarray(array, np.float32))

    def refused(self, reason: str) -> UnsupportedError:
        """Return the error for a layer that ONNX does not have."""
        return UnsupportedError(f"{self.layer} cannot be written as ONNX: {reason}")
