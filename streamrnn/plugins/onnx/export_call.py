"""The graph that an export builds, one call of a layer in it, and activations as its nodes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array
from streamrnn.errors import UnsupportedError
from streamrnn.nn.kernels.activation import Spec, split_spec
from streamrnn.nn.layers import activations
from streamrnn.plugins.onnx.graph import NAMES, NamedArrays, NodeDef, Value


class GraphBuilder:
    """The nodes, constants and states of a graph that is being built.

    No two values have the same name. states: pairs of an input (1, batch, units) and the output
    with its next value. integers: the names of inputs that are integers; other inputs and all
    computed values are float32.
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
        """Return the error for a layer that cannot be written as ONNX."""
        return UnsupportedError(f"{self.layer} cannot be written as ONNX: {reason}")


_WRITTEN_AS = {"elu": "selu", "hard_sigmoid": "hard_sigmoid_02"}
"""Activations that equal another one with certain parameters."""
_IN_NODES = {
    "linear": NAMES["affine"],
    **{name: row for name, row in NAMES.items() if row.in_nodes},
    "hard_sigmoid": NAMES["hard_sigmoid_02"],
}


def activated(call: LayerCall, spec: Spec, x: str) -> str:
    """Append the nodes of an activation, and return the name of its output."""
    name, numbers = split_spec(spec)
    if name == "linear":
        return x
    if name == "softmax":
        return call.add("Softmax", x, axis=-1)
    if name in ("relu", "gelu"):
        if numbers != split_spec(name)[1]:
            raise call.refused(f"the export has no operator for the activation {spec!r}")
        numbers = ()
    if name in _COMPOSED:
        return _COMPOSED[name](call, x, numbers)
    row = NAMES.get(_WRITTEN_AS.get(name, name))
    if row is None:
        raise call.refused(f"the export has no operator for the activation {name!r}")
    return call.add(row.operator, x, **dict(zip(row.attributes, numbers, strict=False)))


def _gelu(call: LayerCall, x: str, numbers: Sequence[float]) -> str:
    """Append x Phi(x) = x (1 + erf(x / sqrt(2))) / 2, as opset 17 has no Gelu."""
    numbers_of = {"half": 0.5, "one": 1.0, "root": 0.5**0.5}
    half, one, root = (call.constant(f"gelu_{name}", n) for name, n in numbers_of.items())
    error = call.add("Erf", call.add("Mul", x, root))
    return call.add("Mul", call.add("Mul", x, half), call.add("Add", error, one))


def clipped_relu(call: LayerCall, x: str, top: float) -> str:
    """Append a ReLU with a largest value."""
    bounds = (call.constant("zero", 0), call.constant("largest", top))
    return call.add("Clip", x, *bounds)


_COMPOSED: dict[str, Callable[[LayerCall, str, Sequence[float]], str]] = {
    "silu": lambda call, x, _: call.add("Mul", x, call.add("Sigmoid", x)),
    "mish": lambda call, x, _: call.add("Mul", x, call.add("Tanh", call.add("Softplus", x))),
    "gelu": _gelu,
    "relu6": lambda call, x, numbers: clipped_relu(call, x, numbers[0]),
}


WRITTEN = {*NAMES, *_WRITTEN_AS, *_COMPOSED, "linear", "softmax"}
"""All activations that a model may have outside recurrent nodes."""


def node_activations(call: LayerCall, specs: Sequence[Spec]) -> dict[str, list[str] | list[float]]:
    """Return the attributes activations, activation_alpha and activation_beta of a node."""
    names: list[str] = []
    parameters: list[tuple[float, ...]] = []
    for spec in specs:
        name, numbers = split_spec(spec)
        if name == "linear":
            numbers = (1.0, 0.0)
        if name == "elu" and numbers[1] == 1:
            numbers = numbers[:1]
        if name == "relu" and numbers == split_spec(name)[1]:
            numbers = ()
        row = _IN_NODES.get(name)
        if row is None or len(numbers) > len(row.attributes):
            supported = [name for name in _IN_NODES if name in activations.__all__]
            raise call.refused(
                f"no recurrent node of ONNX has the activation {spec!r}; supported: "
                f"{', '.join(supported)}"
            )
        names.append(row.operator)
        parameters.append(numbers)
    alphas = [numbers[0] for numbers in parameters if numbers]
    betas = [numbers[1] for numbers in parameters if len(numbers) > 1]
    attributes: dict[str, list[str] | list[float]] = {
        "activations": names,
        "activation_alpha": alphas,
        "activation_beta": betas,
    }
    return {key: values for key, values in attributes.items() if values}
