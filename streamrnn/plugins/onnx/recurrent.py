"""LSTM, GRU and RNN nodes: their weights in streamrnn's layout, and a run over one window.

Gates are in the order of `RECURRENT`, peepholes in the order i, o, f. linear_before_reset=1 is
reset_after=True; with 0 the two biases of h are added. `clip` bounds the sums of gates and
candidate; as in ONNX Runtime it does not bound the c of h(c), which the specification leaves open.
Source: onnx/defs/rnn/defs.cc.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints
from streamrnn.errors import ModelFileError, ShapeError, UnsupportedError
from streamrnn.nn.kernels import activation, packing, recurrent, swept
from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.kernels.integers import Integers
from streamrnn.nn.kernels.packing import Packed, WeightsLike
from streamrnn.nn.kernels.swept import SweptKind
from streamrnn.nn.layers import GRUCell, LSTMCell, PeepholeLSTMCell, SimpleRNNCell
from streamrnn.nn.layers.gated import GatedCell
from streamrnn.nn.layers.rnn import reverse
from streamrnn.plugins.onnx.graph import NAMES, GraphDef, NamedArrays, NodeDef


class Operator(NamedTuple):
    """A recurrent operator: the cells that it computes, simplest first, and ONNX's terms for them.

    `gates`: the letters of the gates, as in the kind of the cell, in the order of ONNX.
    `activations`: the operator's defaults. `before_reset`: the cell's argument that corresponds to
    linear_before_reset.
    """

    cells: tuple[type[GatedCell], ...]
    pack: Callable[..., Packed]
    gates: str
    activations: tuple[str, ...]
    before_reset: str = ""

    @property
    def kind(self) -> SweptKind:
        """The gates and states of the cells."""
        return self.cells[0].kind


RECURRENT = {
    "LSTM": Operator(
        (LSTMCell, PeepholeLSTMCell),
        swept.PLAIN_LSTM.pack,
        "iofc",
        activations=("Sigmoid", "Tanh", "Tanh"),
    ),
    "GRU": Operator(
        (GRUCell,), swept.pack_gru, "zrh", ("Sigmoid", "Tanh"), before_reset="reset_after"
    ),
    "RNN": Operator((SimpleRNNCell,), swept.SIMPLE_RNN.pack, "h", activations=("Tanh",)),
}
NO_INTEGERS: Mapping[str, Integers] = MappingProxyType({})
_ATTRIBUTES = {
    "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size",
    "input_forget", "layout", "linear_before_reset", "output_sequence",
}  # fmt: skip
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}

_ACTIVATIONS = {row.operator.lower(): name for name, row in NAMES.items() if row.in_nodes}


@dataclass(frozen=True)
class Direction:
    """Weights of one direction in Keras's layout, and its activations.

    `activations`: of an LSTM's gates, candidate and c; of a GRU's gates and h; of an RNN's h.
    `peepholes`: (3, U) of i, f and o, or None. `coupled`: f is 1 - i (input_forget).
    """

    backwards: bool
    kernel: WeightsLike
    recurrent: WeightsLike
    bias: Floats
    activations: tuple[Spec, ...]
    peepholes: Floats | None = None
    coupled: bool = False

    @property
    def as_keras(self) -> bool:
        """Whether it equals an LSTM, GRU or SimpleRNN of Keras."""
        plain = self.peepholes is None and not self.coupled
        return plain and (len(self.activations) < 3 or self.activations[1] == self.activations[2])


@dataclass(frozen=True)
class Recurrent:
    """A node with its weights; `packed` has each direction in the layout of its kernel."""

    node: NodeDef
    units: int
    features: int
    batch_first: bool
    reset_after: bool
    directions: tuple[Direction, ...]
    packed: tuple[Packed, ...]

    @property
    def states(self) -> tuple[str, ...]:
        """The states' names."""
        return RECURRENT[self.node.op].kind.states

    @property
    def cell_class(self) -> str:
        """The name of the class of cells that have the same states."""
        return RECURRENT[self.node.op].cells[0].__name__

    def run(
        self, x: Array, lengths: Ints | None, initial: Sequence[Array | None]
    ) -> tuple[Floats, list[Floats]]:
        """Return Y (T, dirs, B, U) and the final states (dirs, B, U).

        x (T, B, F), `initial` and the results have the node's layout: with layout=1, axis B comes
        first. lengths: int64 (B,) or None. initial: states (dirs, B, U), None for zeros. Y is 0
        past a row's length; the final state of a row of length 0 is its initial state.
        """
        if x.ndim != 3 or x.shape[2] != self.features or x.dtype != np.float32:
            raise ShapeError(
                f"{self.node}: expected X of 3 axes and {self.features} features, float32, "
                f"received {x.dtype} {x.shape}"
            )
        x_BTF = np.ascontiguousarray(x if self.batch_first else x.transpose(1, 0, 2))
        batch, steps = x_BTF.shape[:2]
        if lengths is not None and (
            lengths.shape != (batch,) or (batch and (lengths.min() < 0 or lengths.max() > steps))
        ):
            raise ShapeError(
                f"{self.node}: sequence_lens must be {batch} numbers from 0 to {steps}, received "
                f"{lengths.tolist()!r:.60}"
            )
        checked = [self._states(array, batch) for array in initial]
        ys, ends = [], []
        for i, (direction, packed) in enumerate(zip(self.directions, self.packed, strict=True)):
            states = [np.array(state[i]) for state in checked]  # the kernels overwrite them
            ys.append(self._one(direction, packed, x_BTF, lengths, states))
            ends.append(states)
        finals = [np.stack([end[k] for end in ends]) for k in range(len(self.states))]
        y = np.stack(ys)  # (dirs, B, T, U)
        if self.batch_first:
            return np.ascontiguousarray(y.transpose(1, 2, 0, 3)), [
                np.ascontiguousarray(f.transpose(1, 0, 2)) for f in finals
            ]
        return np.ascontiguousarray(y.transpose(2, 0, 1, 3)), finals

    def _one(
        self,
        direction: Direction,
        packed: Packed,
        x: Floats,
        lengths: Ints | None,
        states: list[Floats],
    ) -> Floats:
        if direction.backwards:
            x = reverse(x, lengths)
        y = np.zeros((*x.shape[:2], self.units), np.float32)
        names = direction.activations
        if self.node.op == "LSTM" and direction.as_keras:
            names = names[:2]
        if x.size:
            recurrent.run(packed, names, x, lengths, None, states, y)
        return reverse(y, lengths) if direction.backwards else y

    def _states(self, array: Array | None, batch: int) -> Floats:
        shape = (len(self.directions), batch, self.units)
        if array is None:
            return np.zeros(shape, np.float32)
        expected = (shape[1], shape[0], shape[2]) if self.batch_first else shape
        if array.shape != expected or array.dtype != np.float32:
            raise ShapeError(
                f"{self.node}: an initial state must be float32 {expected}, received "
                f"{array.dtype} {array.shape}"
            )
        return array.transpose(1, 0, 2) if self.batch_first else array


def check(node: NodeDef) -> None:
    """Raise UnsupportedError, naming node and attribute, if an attribute is not supported."""
    attributes = node.attributes
    if unknown := sorted(set(attributes) - _ATTRIBUTES):
        raise UnsupportedError(f"{node}: attribute {unknown[0]!r} is not supported")
    clip = attributes.get("clip", 0.0)
    if not math.isfinite(clip) or clip < 0:
        raise UnsupportedError(f"{node}: clip={clip} is not supported: expected 0 or above")
    _activations(node, len(_directions(node)))


def _directions(node: NodeDef) -> tuple[bool, ...]:
    """Return whether each direction runs backwards."""
    backwards = _DIRECTIONS.get(str(node.attributes.get("direction", "forward")).lower())
    if backwards is None:
        raise UnsupportedError(
            f"{node}: direction {node.attributes['direction']!r} is unknown; expected one of "
            f"{', '.join(_DIRECTIONS)}"
        )
    return backwards


def packable_weights(graph: GraphDef, nodes: Iterable[Recurrent]) -> dict[str, bool]:
    """Return the weights that can be integers, by name, and whether their inputs have factors.

    These are weights of nodes that equal Keras's layers, if nothing else reads these weights.
    """
    plain = {
        id(recurrent.node): recurrent.node
        for recurrent in nodes
        if all(direction.as_keras for direction in recurrent.directions)
    }
    read: dict[str, set[int]] = {value.name: {0} for value in graph.outputs}
    for node in graph.nodes:
        for place, name in enumerate(node.inputs):
            read.setdefault(name, set()).add(place if id(node) in plain else 0)
    has_factors: dict[str, bool] = {}
    for node in plain.values():
        _, w, r = node.inputs[:3]
        if read[w] == {1} and read[r] == {2} and graph.constants[w].size:
            has_factors |= {w: True, r: False}
    return has_factors


def prepare(
    node: NodeDef, constants: NamedArrays, integers: Mapping[str, Integers] = NO_INTEGERS
) -> Recurrent:
    """Pack the weights of a checked node; `integers` has the weights that are integers, by name.

    Raises ModelFileError if weights have invalid shapes, UnsupportedError if weights are computed.
    """
    operator, attributes, backwards = RECURRENT[node.op], node.attributes, _directions(node)
    gates = len(operator.gates)
    w, r = (_weight(node, i, constants, len(backwards)) for i in (1, 2))
    units = r.shape[2]
    bias = _optional(node, 3, "biases", constants, (len(backwards), 2 * gates * units))
    if w.shape[1] != gates * units or r.shape[1] != gates * units:
        raise ModelFileError(
            f"{node}: W of shape {w.shape} or R of shape {r.shape} does not fit: expected gates * "
            "units on the second axis of both; the last size of R is the number of units"
        )
    if attributes.get("hidden_size", units) != units:
        raise ModelFileError(
            f"{node}: hidden_size={attributes['hidden_size']} is not the last size of R, {r.shape}"
        )
    after = bool(operator.before_reset) and bool(attributes.get("linear_before_reset", 0))
    specs = _activations(node, len(backwards))
    coupled = node.op == "LSTM" and bool(attributes.get("input_forget", 0))
    peepholes = _optional(node, 7, "peepholes", constants, (len(backwards), 3 * units))
    packed = {name: integers[name] for name in node.inputs[1:3] if name in integers}
    operands = (w, r) if len(packed) < 2 else (packed[name] for name in node.inputs[1:3])
    order = _order(operator, units)
    kernels, recurrents = (_by_direction(weights, order, len(backwards)) for weights in operands)
    if bias is None:
        bias = np.zeros((len(backwards), 2 * gates * units), np.float32)
    both = bias.reshape(len(backwards), 2, -1)[:, :, order]  # of W and of R
    i_f_o = [0, 2, 1]  # of the peepholes, which the file has in the order i, o, f
    directions = tuple(
        Direction(
            back,
            kernels[i],
            recurrents[i],
            np.ascontiguousarray(both[i]) if after else both[i, 0] + both[i, 1],
            specs[i],
            None if peepholes is None else peepholes[i].reshape(3, units)[i_f_o],
            coupled,
        )
        for i, back in enumerate(backwards)
    )
    return Recurrent(
        node,
        units,
        w.shape[2],
        bool(attributes.get("layout", 0)),
        after,
        directions,
        tuple(_pack(node.op, after, direction) for direction in directions),
    )


def _weight(node: NodeDef, position: int, constants: NamedArrays, directions: int) -> Floats:
    name = node.input(position)
    if name not in constants:
        raise UnsupportedError(f"{node}: its weights ({name!r}) are computed, not constant")
    array = constants[name]
    if array.ndim != 3 or array.shape[0] != directions or array.dtype != np.float32:
        raise ModelFileError(
            f"{node}: expected {name!r} to be float32 with axes (directions of the node, gates * "
            f"units, inputs), received shape {array.shape}, dtype {array.dtype}"
        )
    return array


def _optional(
    node: NodeDef, position: int, what: str, constants: NamedArrays, shape: tuple[int, ...]
) -> Array | None:
    """Return the constant of this shape at an input, None if the input is omitted."""
    name = node.input(position)
    if not name:
        return None
    if name not in constants:
        raise UnsupportedError(f"{node}: its {what} ({name!r}) are computed, not constant")
    array = constants[name]
    if array.shape != shape or array.dtype != np.float32:
        raise ModelFileError(
            f"{node}: {name!r} has shape {array.shape}, dtype {array.dtype}, expected {shape}, "
            "float32"
        )
    return array


def _by_direction(weights: WeightsLike, order: Ints, count: int) -> list[WeightsLike]:
    """Return the weights (dirs, gates * U, K) as a list of (K, gates * U), columns in `order`."""
    if isinstance(weights, Integers):
        return [weights.columns(i * order.size + order) for i in range(count)]
    return [np.ascontiguousarray(one[order].T) for one in weights]


def _order(operator: Operator, units: int) -> Ints:
    """Return, for each row in Keras's order, its position among ONNX's rows."""
    theirs, ours = operator.gates, operator.kind.gates
    rows = np.arange(len(theirs) * units).reshape(-1, units)
    return rows[[theirs.index(gate) for gate in ours]].reshape(-1)


def _pack(op: str, after: bool, direction: Direction) -> Packed:
    kernel, recurrent, bias = direction.kernel, direction.recurrent, direction.bias
    if op == "LSTM" and not direction.as_keras:
        kernel, recurrent = packing.dequantized(kernel), packing.dequantized(recurrent)
        own = direction.peepholes
        return swept.pack_peephole(kernel, recurrent, bias, own, coupled=direction.coupled)
    option = RECURRENT[op].before_reset
    return RECURRENT[op].pack(kernel, recurrent, bias, **({option: after} if option else {}))


def _activations(node: NodeDef, directions: int) -> list[tuple[Spec, ...]]:
    defaults = RECURRENT[node.op].activations
    names = list(node.attributes.get("activations") or defaults * directions)
    count = len(defaults)
    if len(names) != count * directions:
        raise UnsupportedError(
            f"{node}: it has {len(names)} activations, expected {count * directions}"
        )
    numbers = [list(node.attributes.get(f"activation_{k}", [])) for k in ("alpha", "beta")]
    specs = [_spec(node, name, numbers) for name in names]
    if any(numbers):
        raise UnsupportedError(
            f"{node}: activation_alpha or activation_beta has more numbers than the activations use"
        )
    if clip := node.attributes.get("clip", 0.0):
        specs = [
            spec if node.op == "LSTM" and i % count == 2 else activation.clipped(clip, spec)
            for i, spec in enumerate(specs)
        ]
    return [tuple(specs[i * count : (i + 1) * count]) for i in range(directions)]


def _spec(node: NodeDef, name: str, numbers: list[list[float]]) -> Spec:
    """Return an activation with its numbers: the next ones of (alpha, beta), or its defaults."""
    kernel = _ACTIVATIONS.get(name.lower())
    if kernel is None:
        raise UnsupportedError(
            f"{node}: activation {name!r} is not supported; supported: "
            f"{', '.join(sorted(_ACTIVATIONS))}"
        )
    values = [
        float(remaining.pop(0)) if remaining else default
        for remaining, default in zip(numbers, NAMES[kernel].attributes.values(), strict=False)
    ]
    if not values or tuple(values) == {"hard_sigmoid_02": (0.2, 0.5), "elu": (1.0,)}.get(kernel):
        return kernel
    return (kernel, *values)
