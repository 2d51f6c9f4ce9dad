"""PyTorch's weights: a state_dict as a .safetensors file, with tables of the layers.

Layouts (docs of torch.nn): weights are (gates * U, F), transposed against Keras; the rows of
LSTM are i f g o as in Keras, those of GRU r z n (Keras: z r h); there are two biases, which are
summed except in GRU, where the second one is multiplied by the reset gate (reset_after=True).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamrnn.arrays import Array
from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError
from streamrnn.formats.assignment import Assignment, Loaded, assign_weights
from streamrnn.formats.guard import Budget
from streamrnn.formats.tables import LayerTable, stack
from streamrnn.layers import initializers
from streamrnn.layers.layer import Layer

_GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
_RECURRENT = re.compile(r"(weight|bias)_(ih|hh|hr)(?:_l(\d{1,4}))?(_reverse)?")
_EPSILON = 1e-5
"""The default of LayerNorm and BatchNorm1d; Keras's is 1e-3."""

Arrays = Mapping[str, Array]
_Weights = list[tuple[str, str, Array]]
"""(source, name of the weight in its layer, array)"""


@dataclass
class TorchLayer:
    """A layer, the sources of its weights, and its number of input features."""

    layer: Layer
    weights: _Weights
    features: int | None = None


class _Group:
    """The arrays under one prefix, by the rest of their names; records which were used."""

    def __init__(self, table: LayerTable, arrays: Arrays) -> None:
        prefix = f"{table.weights}." if table.weights else ""
        self.table = table
        self.full = {n[len(prefix) :]: n for n in arrays if n.startswith(prefix)}
        self.arrays = arrays
        self.used: set[str] = set()

    def use(self, short: str, axes: int) -> Array:
        """Return an array and record its use. Raises ModelFileError if missing or of other axes."""
        if short not in self.full:
            raise ModelFileError(
                f"{self.table}: array {self.name(short)!r} not found; arrays with this prefix: "
                f"{', '.join(self.full) or 'none'}"
            )
        array = self.arrays[self.full[short]]
        self.used.add(self.full[short])
        if array.ndim != axes:
            raise ModelFileError(
                f"{self.name(short)} has shape {array.shape}, expected {axes} axes for {self.table}"
            )
        return array

    def name(self, short: str) -> str:
        """Return the full name."""
        return self.full.get(
            short, f"{self.table.weights}.{short}" if self.table.weights else short
        )


def load_state_dict(arrays: Arrays, tables: Sequence[LayerTable]) -> Loaded:
    """Build a Sequential of the tables' layers, with weights from the arrays.

    Raises ModelFileError (a missing array, or one of an invalid shape), UnsupportedError
    (proj_size, a type without a PyTorch layout), ConfigError (a prefix that no array has).
    """
    stored = sum(int(array.size) for array in arrays.values())
    layers: list[TorchLayer] = []
    used: set[str] = set()
    with initializers.replaced_by(Budget(stored).zeros):
        for table in tables:
            reader = _READERS.get(table.kind)
            if reader is None:
                layers.append(TorchLayer(_plain(table), []))
                continue
            _require_prefix(table, arrays)
            group = _Group(table, arrays)
            layers += reader(group)
            used |= group.used
    features = next((layer.features for layer in layers if layer.weights), None)
    model = stack([layer.layer for layer in layers], features, stored)
    assignments = [
        Assignment(source, f"{layer.layer.name}/{name}", array)
        for layer in layers
        for source, name, array in layer.weights
    ]
    left = [name for name in arrays if name not in used]
    return Loaded(model, assign_weights(model, assignments), left)


def _plain(table: LayerTable) -> Layer:
    """Build a layer whose type has no weights in PyTorch."""
    if table.weights is not None:
        raise UnsupportedError(
            f"{table}: weights of PyTorch are read for {', '.join(_READERS)} and PyTorch's names "
            "of these"
        )
    return table.make(table.config())


def _require_prefix(table: LayerTable, arrays: Arrays) -> None:
    prefixes = sorted({name.rpartition(".")[0] for name in arrays})
    listed = ", ".join(repr(prefix) for prefix in prefixes)
    if table.weights is None:
        raise ConfigError(
            f"{table}: set the prefix of its weights, for instance weights = {prefixes[0]!r}; the "
            f"file has the prefixes {listed}"
        )
    if table.weights and not any(name.startswith(f"{table.weights}.") for name in arrays):
        raise ConfigError(
            f"{table}: no array starts with {table.weights + '.'!r}; the file has the prefixes "
            f"{listed}"
        )


def _name(group: _Group, suffix: str = "") -> dict[str, str]:
    """Return the layer's name: that of the table, else its prefix."""
    base = group.table.arguments.get("name") or group.table.weights
    return {"name": f"{base}{suffix}"} if base else {}


def _make(group: _Group, implied: Mapping[str, object], suffix: str = "") -> Layer:
    """Build the layer with the arguments implied by its arrays.

    Raises ConfigError if the table contradicts them.
    """
    arguments = group.table.arguments
    for key, value in implied.items():
        if key not in ("epsilon", "return_sequences") and arguments.get(key, value) != value:
            raise ConfigError(
                f"{group.table}: {key} = {arguments[key]!r}, but the arrays imply {value!r}"
            )
    config = {**implied, **arguments, **_name(group, suffix)}
    return group.table.make({"class_name": group.table.kind, "config": config})


def _dense(group: _Group) -> list[TorchLayer]:
    kernel = group.use("weight", 2)
    weights = [(group.name("weight"), "kernel", kernel.T)]
    bias = "bias" in group.full
    if bias:
        weights.append((group.name("bias"), "bias", group.use("bias", 1)))
    layer = _make(group, {"units": kernel.shape[0], "use_bias": bias})
    return [TorchLayer(layer, weights, kernel.shape[1])]


def _embedding(group: _Group) -> list[TorchLayer]:
    table = group.use("weight", 2)
    layer = _make(group, {"input_dim": table.shape[0], "output_dim": table.shape[1]})
    return [TorchLayer(layer, [(group.name("weight"), "embeddings", table)])]


def _layer_norm(group: _Group) -> list[TorchLayer]:
    return [_norm(group, {"weight": "gamma", "bias": "beta"})]


def _batch_norm(group: _Group) -> list[TorchLayer]:
    if "num_batches_tracked" in group.full:  # for training only
        group.used.add(group.name("num_batches_tracked"))
    statistics = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    return [_norm(group, {"weight": "gamma", "bias": "beta", **statistics})]


def _norm(group: _Group, names: Mapping[str, str]) -> TorchLayer:
    optional = {"weight": "scale", "bias": "center"}
    present = {argument: short in group.full for short, argument in optional.items()}
    required = [short for short in names if short not in optional or short in group.full]
    weights = [(group.name(short), names[short], group.use(short, 1)) for short in required]
    layer = _make(group, {**present, "epsilon": _EPSILON})
    return TorchLayer(layer, weights, weights[0][2].shape[0] if weights else None)


def _recurrent(group: _Group) -> list[TorchLayer]:
    """Build one layer per level, Bidirectional if arrays of the reverse direction exist."""
    _refuse_projection(group)
    matches = [m for m in map(_RECURRENT.fullmatch, group.full) if m]
    cell = not any(match.group(3) for match in matches)
    levels = sorted({int(match.group(3)) for match in matches if match.group(3)}) or [0]
    if levels != list(range(len(levels))):
        raise ModelFileError(f"{group.table}: arrays of levels {levels}; some levels are missing")
    both = any(match.group(4) for match in matches)
    return [
        _level(group, "" if cell else f"_l{n}", f"_l{n}" if len(levels) > 1 else "", both)
        for n in levels
    ]


def _refuse_projection(group: _Group) -> None:
    for short, full in group.full.items():
        if short.startswith("weight_hr"):
            raise UnsupportedError(
                f"{group.table}: {full} is the projection of an LSTM with proj_size, which is not "
                "supported; train it with proj_size=0"
            )


def _level(group: _Group, ending: str, suffix: str, both: bool) -> TorchLayer:
    kind, arguments = group.table.kind, dict(group.table.arguments)
    if "nonlinearity" in arguments:
        arguments["activation"] = arguments.pop("nonlinearity")
    group = _with_arguments(group, arguments)
    weights, shape = _direction(group, ending)
    implied: dict[str, object] = {
        "units": shape[1],
        "use_bias": len(weights) == 3,
        "return_sequences": True,
    }
    if kind == "GRU":
        implied["reset_after"] = True
    if not both:
        layer = _make(group, implied, suffix)
        return TorchLayer(layer, [(s, f"cell/{n}", a) for s, n, a in weights], shape[0])
    back, _ = _direction(group, f"{ending}_reverse")
    layer = group.table.make(
        {
            "class_name": "Bidirectional",
            "config": {
                **_name(group, suffix),
                "layer": {"class_name": kind, "config": {**implied, **_unnamed(group)}},
            },
        }
    )
    sides = (("forward_layer", weights), ("backward_layer", back))
    named = [(s, f"{side}/cell/{n}", a) for side, arrays in sides for s, n, a in arrays]
    return TorchLayer(layer, named, shape[0])


def _with_arguments(group: _Group, arguments: dict[str, object]) -> _Group:
    """Return the same group, with a shared record of used arrays, and other arguments."""
    new = _Group(
        LayerTable(group.table.number, group.table.kind, group.table.weights, arguments),
        group.arrays,
    )
    new.used = group.used
    return new


def _unnamed(group: _Group) -> dict[str, object]:
    return {k: v for k, v in group.table.arguments.items() if k != "name"}


def _direction(group: _Group, ending: str) -> tuple[_Weights, tuple[int, int]]:
    """Return kernel, recurrent kernel and bias of one direction, and (features, units)."""
    gates = _GATES[group.table.kind]
    kernel, recurrent = group.use(f"weight_ih{ending}", 2), group.use(f"weight_hh{ending}", 2)
    units = recurrent.shape[1]
    for short, array in ((f"weight_ih{ending}", kernel), (f"weight_hh{ending}", recurrent)):
        if array.shape[0] != gates * units:
            raise ModelFileError(
                f"{group.name(short)} has shape {array.shape}, expected {gates * units} rows for "
                f"{group.table.kind} with {units} units"
            )
    order = _gate_order(group.table.kind)
    weights = [
        (group.name(f"weight_ih{ending}"), "kernel", order(kernel).T),
        (group.name(f"weight_hh{ending}"), "recurrent_kernel", order(recurrent).T),
    ]
    names = [f"bias_ih{ending}", f"bias_hh{ending}"]
    if any(name in group.full for name in names):
        pair = [order(group.use(name, 1)) for name in names]
        bias = np.stack(pair) if group.table.kind == "GRU" else pair[0] + pair[1]
        weights.append((" + ".join(group.name(name) for name in names), "bias", bias))
    return weights, (kernel.shape[1], units)


def _gate_order(kind: str) -> Callable[[Array], Array]:
    def swapped(rows: Array) -> Array:
        reset, update, new = np.split(rows, 3)
        return np.concatenate([update, reset, new])

    return swapped if kind == "GRU" else lambda rows: rows


_READERS: dict[str, Callable[[_Group], list[TorchLayer]]] = {
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "SimpleRNN": _recurrent,
    "Dense": _dense,
    "Embedding": _embedding,
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
}
