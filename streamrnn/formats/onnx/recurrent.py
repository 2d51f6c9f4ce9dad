"""LSTM, GRU and RNN nodes: their weights in our layout, and a run over one window.

Gates: LSTM i o f c (ours i f c o), peepholes i o f, GRU z r h as ours. linear_before_reset=1 is
reset_after=True; with 0 the recurrent bias of h adds up with the other one. `clip` bounds the
sums that gates and candidate are made of; as in ONNX Runtime not the c that h(c) is made of, which
the specification leaves open. Source: onnx/defs/rnn/defs.cc.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from streamrnn.errors import ModelFileError, ShapeError, UnsupportedError
from streamrnn.formats.onnx.graph import Arrays, NodeDef
from streamrnn.kernels import activation, gru, lstm, recurrent, simple_rnn
from streamrnn.layers.rnn import reverse

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_KERNELS: dict[str, ModuleType] = {"LSTM": lstm, "GRU": gru, "RNN": simple_rnn}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_ATTRIBUTES = (
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "input_forget",
    "layout",
    "linear_before_reset",
    "output_sequence",
)
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}

_ACTIVATIONS: dict[str, tuple[str, int, tuple[float, ...]]] = {
    "relu": ("relu", 0, ()),
    "tanh": ("tanh", 0, ()),
    "sigmoid": ("sigmoid", 0, ()),
    "softsign": ("softsign", 0, ()),
    "softplus": ("softplus", 0, ()),
    "affine": ("affine", 2, (1.0, 0.0)),
    "leakyrelu": ("leaky_relu", 1, (0.01,)),
    "thresholdedrelu": ("thresholded_relu", 1, (1.0,)),
    "scaledtanh": ("scaled_tanh", 2, (1.0, 1.0)),
    "hardsigmoid": ("hard_sigmoid_02", 2, (0.2, 0.5)),
    "elu": ("elu", 1, (1.0,)),
}
"""ONNX name -> our name, how many of (alpha, beta) it takes, their defaults."""

Spec = str | tuple[Any, ...]


@dataclass(frozen=True)
class Direction:
    """Weights of one direction in Keras's layout, and its activations.

    `activations`: of an LSTM's gates, candidate and c; of a GRU's gates and h; of an RNN's h.
    `peepholes`: (3, U) of i, f and o, or None. `coupled`: f is 1 - i (input_forget).
    """

    backwards: bool
    kernel: Any
    recurrent: Any
    bias: Any
    activations: tuple[Spec, ...]
    peepholes: Any = None
    coupled: bool = False

    @property
    def as_keras(self) -> bool:
        """Whether it is an LSTM, GRU or SimpleRNN as Keras has them."""
        plain = self.peepholes is None and not self.coupled
        return plain and (len(self.activations) < 3 or self.activations[1] == self.activations[2])


@dataclass(frozen=True)
class Recurrent:
    """A node whose weights are known; `packed` is each direction as its kernel reads it."""

    node: NodeDef
    units: int
    features: int
    batch_first: bool
    reset_after: bool
    directions: tuple[Direction, ...]
    packed: tuple[Any, ...]

    @property
    def states(self) -> tuple[str, ...]:
        """The states' names."""
        return ("h", "c") if self.node.op == "LSTM" else ("h",)

    def run(self, x: Any, lengths: Any, initial: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Y (T, dirs, B, U) and final states (dirs, B, U), in the node's own layout.

        x: in the node's layout. lengths: int64 (B,) or None. initial: states (dirs, B, U) in the
        node's layout, None for zeros. Y is 0 past a row's length; the state of a row of length 0 is
        the one it came with.
        """
        x_BTF = self._batch_first(x)
        batch, steps = x_BTF.shape[:2]
        if lengths is not None and (
            lengths.shape != (batch,) or (batch and (lengths.min() < 0 or lengths.max() > steps))
        ):
            raise ShapeError(
                f"{self.node}: sequence_lens must be {batch} numbers of 0…{steps}, received "
                f"{lengths.tolist()!r:.60}"
            )
        begun = [self._states(array, batch) for array in initial]
        ys, ends = [], []
        for i, (direction, packed) in enumerate(zip(self.directions, self.packed, strict=True)):
            states = [np.array(state[i]) for state in begun]  # the kernels overwrite them
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
        self, direction: Direction, packed: Any, x: Any, lengths: Any, states: list[Any]
    ) -> Any:
        if direction.backwards:
            x = reverse(x, lengths)
        y = np.zeros((*x.shape[:2], self.units), np.float32)
        names = direction.activations
        if self.node.op == "LSTM" and direction.as_keras:
            names = names[:2]
        if x.size:
            recurrent.run(packed, names, x, lengths, None, states, y)
        return reverse(y, lengths) if direction.backwards else y

    def _batch_first(self, x: Any) -> Any:
        if x.ndim != 3 or x.shape[2] != self.features or x.dtype != np.float32:
            raise ShapeError(
                f"{self.node}: expected X of 3 axes and {self.features} features, float32, "
                f"received {x.dtype} {x.shape}"
            )
        return np.ascontiguousarray(x if self.batch_first else x.transpose(1, 0, 2))

    def _states(self, array: Any, batch: int) -> Any:
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
    """Raise UnsupportedError that names node and attribute, where one cannot be honoured."""
    attributes = node.attributes
    if unknown := sorted(set(attributes) - set(_ATTRIBUTES)):
        raise UnsupportedError(f"{node}: attribute {unknown[0]!r} is not supported")
    clip = attributes.get("clip", 0.0)
    if not math.isfinite(clip) or clip < 0:
        raise UnsupportedError(f"{node}: clip={clip} is not supported: expected a positive number")
    _activations(node, len(_directions(node)))


def _directions(node: NodeDef) -> tuple[bool, ...]:
    """Does it run backwards, for each direction."""
    found = _DIRECTIONS.get(str(node.attributes.get("direction", "forward")).lower())
    if found is None:
        raise UnsupportedError(f"{node}: direction {node.attributes['direction']!r} is not known")
    return found


def weight_names(node: NodeDef) -> list[str]:
    """The inputs W, R, B and P."""
    return [name for name in (*node.inputs[1:4], *node.inputs[7:8]) if name]


def prepare(node: NodeDef, constants: Arrays) -> Recurrent:
    """The node, checked before, with its weights. Raises ModelFileError where they do not fit."""
    gates, attributes, backwards = GATES[node.op], node.attributes, _directions(node)
    w, r = (_weight(node, i, constants, len(backwards)) for i in (1, 2))
    units = r.shape[2]
    b = _bias(node, constants, len(backwards), gates * units)
    if w.shape[1] != gates * units or r.shape[1] != gates * units:
        raise ModelFileError(f"{node}: weights of shape {w.shape} and {r.shape} do not fit")
    if attributes.get("hidden_size", units) != units:
        raise ModelFileError(f"{node}: hidden_size={attributes['hidden_size']}, weights {r.shape}")
    after = node.op == "GRU" and bool(attributes.get("linear_before_reset", 0))
    specs = _activations(node, len(backwards))
    coupled = node.op == "LSTM" and bool(attributes.get("input_forget", 0))
    peepholes = _peepholes(node, constants, len(backwards), units)
    directions = tuple(
        _direction(node.op, after, back, w[i], r[i], b[i], specs[i], peepholes[i], coupled)
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


def _weight(node: NodeDef, place: int, constants: Arrays, directions: int) -> Any:
    name = node.inputs[place] if len(node.inputs) > place else ""
    if name not in constants:
        raise UnsupportedError(f"{node}: its weights ({name!r}) are computed, not constant")
    array = constants[name]
    if array.ndim != 3 or array.shape[0] != directions or array.dtype != np.float32:
        raise ModelFileError(f"{node}: {name!r} has shape {array.shape}, dtype {array.dtype}")
    return array


def _bias(node: NodeDef, constants: Arrays, directions: int, rows: int) -> Any:
    """(dirs, 2, gates * U)"""
    name = node.inputs[3] if len(node.inputs) > 3 else ""
    if not name:
        return np.zeros((directions, 2, rows), np.float32)
    if name not in constants:
        raise UnsupportedError(f"{node}: its biases ({name!r}) are computed, not constant")
    if constants[name].shape != (directions, 2 * rows):
        raise ModelFileError(f"{node}: {name!r} has shape {constants[name].shape}")
    return constants[name].reshape(directions, 2, rows)


def _peepholes(node: NodeDef, constants: Arrays, directions: int, units: int) -> list[Any]:
    """(3, U) of i, f and o for each direction; None where the node has none."""
    name = node.inputs[7] if len(node.inputs) > 7 else ""
    if not name:
        return [None] * directions
    if name not in constants:
        raise UnsupportedError(f"{node}: its peepholes ({name!r}) are computed, not constant")
    if constants[name].shape != (directions, 3 * units) or constants[name].dtype != np.float32:
        raise ModelFileError(f"{node}: {name!r} has shape {constants[name].shape}")
    return [p.reshape(3, units)[[0, 2, 1]] for p in constants[name]]


def _direction(
    op: str,
    after: bool,
    backwards: bool,
    w: Any,
    r: Any,
    b: Any,
    specs: tuple[Spec, ...],
    peepholes: Any,
    coupled: bool,
) -> Direction:
    def ordered(rows: Any) -> Any:
        if op != "LSTM":
            return rows
        i, o, f, c = np.split(rows, 4)
        return np.concatenate([i, f, c, o])

    bias = np.stack([ordered(b[0]), ordered(b[1])])
    return Direction(
        backwards,
        np.ascontiguousarray(ordered(w).T),
        np.ascontiguousarray(ordered(r).T),
        bias if after else bias[0] + bias[1],
        specs,
        peepholes,
        coupled,
    )


def _pack(op: str, after: bool, direction: Direction) -> Any:
    weights = direction.kernel, direction.recurrent, direction.bias
    if op == "LSTM" and not direction.as_keras:
        return lstm.pack_peephole(*weights, direction.peepholes, coupled=direction.coupled)
    options = {"reset_after": after} if op == "GRU" else {}
    return _KERNELS[op].pack(*weights, **options)


def _activations(node: NodeDef, directions: int) -> list[tuple[Spec, ...]]:
    """Those of each direction."""
    defaults = _DEFAULTS[node.op]
    names = list(node.attributes.get("activations") or defaults * directions)
    count = len(defaults)
    if len(names) != count * directions:
        raise UnsupportedError(f"{node}: {len(names)} activations, expected {count * directions}")
    numbers = [list(node.attributes.get(f"activation_{k}", [])) for k in ("alpha", "beta")]
    specs = [_spec(node, name, numbers) for name in names]
    if any(numbers):
        raise UnsupportedError(f"{node}: activation_alpha or _beta that no activation takes")
    if clip := node.attributes.get("clip", 0.0):
        specs = [
            spec if node.op == "LSTM" and i % count == 2 else activation.clipped(clip, spec)
            for i, spec in enumerate(specs)
        ]
    return [tuple(specs[i * count : (i + 1) * count]) for i in range(directions)]


def _spec(node: NodeDef, name: str, numbers: list[list[float]]) -> Spec:
    """An activation with the numbers it takes from the lists (alpha, beta), else its defaults."""
    known = _ACTIVATIONS.get(name.lower())
    if known is None:
        raise UnsupportedError(
            f"{node}: activation {name!r} is not supported; supported are "
            f"{', '.join(sorted(_ACTIVATIONS))}"
        )
    ours, takes, defaults = known
    values = [
        float(numbers[i].pop(0)) if numbers[i] else default
        for i, default in enumerate(defaults[:takes])
    ]
    if tuple(values) == {"hard_sigmoid_02": (0.2, 0.5), "elu": (1.0,)}.get(ours, ()):
        return ours
    return (ours, *values)
