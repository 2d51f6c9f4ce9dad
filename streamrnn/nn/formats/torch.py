"""PyTorch's weights: a state_dict as a .safetensors file, with tables of the layers.

Layouts (docs of torch.nn): weights are (gates * U, F), the transpose of Keras's, with the gates in
the order of `TORCH_CELLS`; there are two biases, which are summed unless the cell here has two.
Each level of a recurrent layer becomes one layer, a Bidirectional if it has both directions.

An LSTM with proj_size feeds back h = W_hr o(t), where o(t) is its output before the projection. An
LSTM with the recurrent weights W_hh W_hr, which feeds back o(t), followed by a Dense without bias
computes the same; the product W_hh W_hr is rounded once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError
from streamrnn.nn.formats.guard import Assignment, Budget, Loaded, assign_weights
from streamrnn.nn.formats.tables import (
    TORCH_CELLS,
    LayerTable,
    TensorShape,
    kind_of,
    kinds_of,
    layer_type,
    naturally_sorted,
    shapes_by_prefix,
    stack,
)
from streamrnn.nn.layers import initializers
from streamrnn.nn.layers.layer import Layer

Arrays = Mapping[str, Array]
TorchWeights = list[tuple[str, str, Array]]
"""(source, name of the weight in its layer, array)"""

_EPSILON = 1e-5
"""The default of LayerNorm and BatchNorm1d; Keras's is 1e-3."""
AFFINE = {"weight": "gamma", "bias": "beta"}
STATISTICS = {"running_mean": "moving_mean", "running_var": "moving_variance"}
"""PyTorch's names of the weights of normalizations -> Keras's."""

_RECURRENT = re.compile(r"(weight|bias)_(ih|hh|hr)(?:_l(\d{1,4}))?(_reverse)?")
_MAX_PROJECTED = 2048


@dataclass
class TorchLayer:
    """A layer, its weights with their sources, and its number of input features, if known."""

    layer: Layer
    weights: TorchWeights
    features: int | None = None


class Group:
    """The arrays of a table: their names without the prefix (`shorts`), and the used ones."""

    def __init__(self, table: LayerTable, arrays: Arrays) -> None:
        self.table, self.arrays = table, arrays
        self.prefix = f"{table.weights}." if table.weights else ""
        self.shorts = [n.removeprefix(self.prefix) for n in arrays if n.startswith(self.prefix)]
        self.used: set[str] = set()

    def use(self, short: str, axes: int) -> Array:
        """Return an array with `axes` axes and record its use. Raises ModelFileError."""
        if short not in self.shorts:
            raise ModelFileError(
                f"{self.table}: array {self.name(short)!r} not found; arrays with this prefix: "
                f"{', '.join(self.shorts) or 'none'}"
            )
        array = self.arrays[self.name(short)]
        self.used.add(self.name(short))
        if array.ndim != axes:
            raise ModelFileError(
                f"{self.name(short)} has shape {array.shape}, expected {axes} axes for {self.table}"
            )
        return array

    def name(self, short: str) -> str:
        """Return the full name of an array."""
        return self.prefix + short


def _layer_name(group: Group, suffix: str = "") -> dict[str, str]:
    """Return the argument `name`, if any: the table's name, else its prefix; and the suffix."""
    base = group.table.arguments.get("name") or group.table.weights
    return {"name": f"{base}{suffix}"} if base else {}


def _make(group: Group, implied: Mapping[str, object], suffix: str = "") -> Layer:
    """Build the layer with the arguments that its arrays imply, and the table's arguments.

    Of the implied arguments, the table can change epsilon and return_sequences only. Raises
    ConfigError if it changes another one.
    """
    arguments = group.table.arguments
    for key, value in implied.items():
        if key not in ("epsilon", "return_sequences") and arguments.get(key, value) != value:
            raise ConfigError(
                f"{group.table}: {key} = {arguments[key]!r}, but the arrays imply {value!r}"
            )
    config = {**implied, **arguments, **_layer_name(group, suffix)}
    return group.table.make({"class_name": group.table.kind, "config": config})


def load_state_dict(arrays: Arrays, tables: Sequence[LayerTable]) -> Loaded:
    """Build a Sequential of the tables' layers, with weights from the arrays.

    A table without a prefix takes the only arrays that fit its type, or the next arrays of an
    nn.Sequential. Raises ModelFileError (a missing array, or one of an invalid shape),
    UnsupportedError (`weights` for a type that is not read from PyTorch, proj_size on too many
    units), ConfigError (a prefix that no array has, a missing prefix that the arrays do not
    determine, or an argument that contradicts the arrays).
    """
    stored = sum(int(array.size) for array in arrays.values()) + _derived_values(arrays)
    layers: list[TorchLayer] = []
    used: set[str] = set()
    with initializers.replaced_by(Budget(stored).zeros):
        for table in _with_prefixes(tables, arrays):
            reader = _READERS.get(table.kind)
            if reader is None:  # a layer whose type has no weights in PyTorch
                if table.weights is not None:
                    raise UnsupportedError(
                        f"{table}: PyTorch weights are read for {', '.join(_READERS)}, and "
                        "for the same layers under PyTorch's names. If this layer has no weights, "
                        "remove `weights`"
                    )
                layers.append(TorchLayer(table.make(), []))
                continue
            group = Group(table, arrays)
            layers += reader(group)
            used |= group.used
        features = next((layer.features for layer in layers if layer.weights), None)
        model = stack([layer.layer for layer in layers], features)
    assignments = [
        Assignment(source, f"{layer.layer.name}/{name}", array)
        for layer in layers
        for source, name, array in layer.weights
    ]
    left = [name for name in arrays if name not in used]
    return Loaded(model, assign_weights(model, assignments), left)


def _with_prefixes(tables: Sequence[LayerTable], arrays: Arrays) -> list[LayerTable]:
    """Return the tables, each with the prefix of its arrays if its type has weights in PyTorch.

    A table without a prefix takes the only prefix whose arrays fit its type. Several such tables of
    one type take the prefixes that fit, in order, if there are as many prefixes as tables, all in
    one nn.Sequential. Raises ConfigError otherwise, and for a prefix that no array has.
    """
    groups = shapes_by_prefix({name: array.shape for name, array in arrays.items()})
    named = {table.weights for table in tables if table.weights is not None}
    free = {prefix: shapes for prefix, shapes in groups.items() if prefix not in named}
    queues = {
        kind: _candidates(free, kind, sum(t.kind == kind and t.weights is None for t in tables))
        for kind in {table.kind for table in tables}
    }
    prefixes = naturally_sorted(groups)
    listed = ", ".join(map(repr, prefixes))
    complete = []
    for table in tables:
        if table.kind in _READERS:
            if table.weights is None and queues[table.kind]:
                table = replace(table, weights=queues[table.kind].pop(0))
            if table.weights is None:
                raise ConfigError(
                    f"{table}: set the prefix of its weights, for instance weights = "
                    f"{prefixes[0]!r}; the file has the prefixes {listed}"
                )
            if table.weights and not any(name.startswith(f"{table.weights}.") for name in arrays):
                raise ConfigError(
                    f"{table}: no array starts with {table.weights + '.'!r}; the file has the "
                    f"prefixes {listed}"
                )
        complete.append(table)
    return complete


def _candidates(groups: Mapping[str, dict[str, TensorShape]], kind: str, wanted: int) -> list[str]:
    """Return the prefixes whose arrays fit a type, in order; [] if their order is unknown.

    The order of several is known if all are numbered members of one nn.Sequential. Also returns []
    unless there are `wanted` prefixes.
    """
    prefixes = [p for p, shapes in groups.items() if kind in map(layer_type, kinds_of(shapes))]
    parents = {prefix.rpartition(".")[0] for prefix in prefixes}
    numbered = all(prefix.rpartition(".")[2].isdecimal() for prefix in prefixes)
    if len(prefixes) != wanted or (wanted > 1 and not (len(parents) == 1 and numbered)):
        return []
    return prefixes


def _dense(group: Group) -> list[TorchLayer]:
    kernel = group.use("weight", 2)
    weights = [(group.name("weight"), "kernel", kernel.T)]
    bias = "bias" in group.shorts
    if bias:
        weights.append((group.name("bias"), "bias", group.use("bias", 1)))
    layer = _make(group, {"units": kernel.shape[0], "use_bias": bias})
    return [TorchLayer(layer, weights, kernel.shape[1])]


def _embedding(group: Group) -> list[TorchLayer]:
    table = group.use("weight", 2)
    layer = _make(group, {"input_dim": table.shape[0], "output_dim": table.shape[1]})
    return [TorchLayer(layer, [(group.name("weight"), "embeddings", table)])]


def _norm(group: Group) -> list[TorchLayer]:
    names = AFFINE
    if group.table.kind == "BatchNormalization":
        names = AFFINE | STATISTICS
        group.used.add(group.name("num_batches_tracked"))  # for training only
    optional = {"weight": "scale", "bias": "center"}
    present = {argument: short in group.shorts for short, argument in optional.items()}
    required = [short for short in names if short not in optional or short in group.shorts]
    weights = [(group.name(short), names[short], group.use(short, 1)) for short in required]
    layer = _make(group, {**present, "epsilon": _EPSILON})
    return [TorchLayer(layer, weights, weights[0][2].shape[0] if weights else None)]


def _recurrent_layers(group: Group) -> list[TorchLayer]:
    """Build the layers of all levels; a level with a projection becomes two layers.

    Every level but the last returns all steps, whatever the table says: the next level reads them.
    """
    matches = [m for m in map(_RECURRENT.fullmatch, group.shorts) if m]
    cell = not any(match.group(3) for match in matches)
    levels = sorted({int(match.group(3)) for match in matches if match.group(3)}) or [0]
    if levels != list(range(len(levels))):
        raise ModelFileError(
            f"{group.table}: the arrays are of levels {levels}, expected all levels from 0 on"
        )
    both = any(match.group(4) for match in matches)
    stack = []
    for n in levels:
        level = group if n == levels[-1] else _with(group, return_sequences=True)
        ending, suffix = "" if cell else f"_l{n}", f"_l{n}" if len(levels) > 1 else ""
        stack += [_level(level, ending, suffix, both), *_projection(level, ending, suffix, both)]
    return stack


def _derived_values(arrays: Arrays) -> int:
    """Return how many values the products of recurrent weights and projections have.

    The file does not store these products. Raises UnsupportedError for too many units.
    """
    count = 0
    for name, array in arrays.items():
        if name.rpartition(".")[2].startswith("weight_hr") and array.ndim == 2:
            units = array.shape[1]
            if units > _MAX_PROJECTED:
                raise UnsupportedError(
                    f"{name} projects {units:,} units; an LSTM with proj_size can have at most "
                    f"{_MAX_PROJECTED:,}"
                )
            count += 4 * units * units
    return count


def _level(group: Group, ending: str, suffix: str, both: bool) -> TorchLayer:
    kind, arguments = group.table.kind, dict(group.table.arguments)
    if "nonlinearity" in arguments:
        group = _with(group, activation=arguments["nonlinearity"])
        del group.table.arguments["nonlinearity"]
    weights, shape = _direction(group, ending)
    implied: dict[str, object] = {
        "units": shape[1],
        "use_bias": len(weights) == 3,
        "return_sequences": True,
        **TORCH_CELLS[kind].implied,
    }
    if not both:
        layer = _make(group, implied, suffix)
        return TorchLayer(layer, [(s, f"cell/{n}", a) for s, n, a in weights], shape[0])
    back, _ = _direction(group, f"{ending}_reverse")
    unnamed = {key: value for key, value in group.table.arguments.items() if key != "name"}
    inner = {"class_name": kind, "config": {**implied, **unnamed}}
    config = {**_layer_name(group, suffix), "layer": inner}
    layer = group.table.make({"class_name": "Bidirectional", "config": config})
    sides = (("forward_layer", weights), ("backward_layer", back))
    named = [(s, f"{side}/cell/{n}", a) for side, arrays in sides for s, n, a in arrays]
    return TorchLayer(layer, named, shape[0])


def _projection(group: Group, ending: str, suffix: str, both: bool) -> list[TorchLayer]:
    """Return the Dense that projects a level's output, each direction by itself; [] without one."""
    shorts = [f"weight_hr{ending}", *([f"weight_hr{ending}_reverse"] if both else [])]
    if shorts[0] not in group.shorts:
        return []
    parts = [group.use(short, 2) for short in shorts]
    rows, columns = (sum(part.shape[i] for part in parts) for i in (1, 0))
    kernel = np.zeros((rows, columns), np.float32)
    top = left = 0
    for part in parts:
        kernel[top : top + part.shape[1], left : left + part.shape[0]] = part.T
        top, left = top + part.shape[1], left + part.shape[0]
    config = {"units": columns, "use_bias": False, **_layer_name(group, f"{suffix}_projection")}
    layer = group.table.make({"class_name": "Dense", "config": config})
    source = " + ".join(group.name(short) for short in shorts)
    return [TorchLayer(layer, [(source, "kernel", kernel)], rows)]


def _with(group: Group, **arguments: object) -> Group:
    """Return the group with changed arguments; both share the record of used arrays."""
    arguments = {**group.table.arguments, **arguments}
    new = Group(replace(group.table, arguments=arguments), group.arrays)
    new.used = group.used
    return new


def _direction(group: Group, ending: str) -> tuple[TorchWeights, tuple[int, int]]:
    """Return kernel, recurrent kernel and bias of one direction, and (features, units)."""
    kind, theirs = kind_of(group.table.kind), TORCH_CELLS[group.table.kind].gates
    kernel, recurrent = group.use(f"weight_ih{ending}", 2), group.use(f"weight_hh{ending}", 2)
    source = group.name(f"weight_hh{ending}")
    if f"weight_hr{ending}" in group.shorts:
        projection = group.use(f"weight_hr{ending}", 2)
        source += f" {group.name(f'weight_hr{ending}')}"
        if recurrent.shape[1] != projection.shape[0]:
            raise ModelFileError(
                f"{source}: shapes {recurrent.shape} and {projection.shape} do not fit: "
                "expected as many columns in the first as rows in the second"
            )
        recurrent = _product(recurrent, projection)
    units = recurrent.shape[1]
    for short, array in ((f"weight_ih{ending}", kernel), (f"weight_hh{ending}", recurrent)):
        if array.shape[0] != len(theirs) * units:
            raise ModelFileError(
                f"{group.name(short)} has shape {array.shape}, expected {len(theirs) * units} rows "
                f"for {group.table.kind} with {units} units"
            )
    weights = [
        (group.name(f"weight_ih{ending}"), "kernel", gates_in_order(kernel, theirs, kind.gates).T),
        (source, "recurrent_kernel", gates_in_order(recurrent, theirs, kind.gates).T),
    ]
    names = [f"bias_ih{ending}", f"bias_hh{ending}"]
    if any(name in group.shorts for name in names):
        pair = [gates_in_order(group.use(name, 1), theirs, kind.gates) for name in names]
        bias = np.stack(pair) if kind.biases == 2 else pair[0] + pair[1]
        weights.append((" + ".join(group.name(name) for name in names), "bias", bias))
    return weights, (kernel.shape[1], units)


def gates_in_order(rows: Array, gates: Sequence[str], wanted: Sequence[str]) -> Array:
    """Return the rows with their `gates` in the order `wanted`."""
    if gates == wanted:
        return rows
    split = np.split(rows, len(gates))
    return np.concatenate([split[gates.index(gate)] for gate in wanted])


def _product(a: Array, b: Array) -> Floats:
    """Return the product a b, summed in float64 in the order of the inner axis."""
    total = np.zeros((a.shape[0], b.shape[1]))
    for left, right in zip(a.T.astype(np.float64), b.astype(np.float64), strict=True):
        total += left[:, None] * right
    return total.astype(np.float32)


_READERS: dict[str, Callable[[Group], list[TorchLayer]]] = {
    **dict.fromkeys(TORCH_CELLS, _recurrent_layers),
    "Dense": _dense,
    "Embedding": _embedding,
    "LayerNormalization": _norm,
    "BatchNormalization": _norm,
}
