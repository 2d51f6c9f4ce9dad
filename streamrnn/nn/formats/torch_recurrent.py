"""Recurrent layers of PyTorch: one layer per level, Bidirectional if it has both directions.

An LSTM with proj_size feeds back h = W_hr o(t), where o(t) is its output. With recurrent weights
W_hh W_hr it feeds back o(t) itself, which makes it an LSTM followed by a Dense without bias; the
product of the weights is rounded once.
"""

import re
from collections.abc import Sequence

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ModelFileError, UnsupportedError
from streamrnn.nn.formats.tables import TORCH_CELLS, LayerTable, kind_of
from streamrnn.nn.formats.torch_group import (
    Arrays,
    Group,
    TorchLayer,
    TorchWeights,
    layer_name,
    make,
)

_RECURRENT = re.compile(r"(weight|bias)_(ih|hh|hr)(?:_l(\d{1,4}))?(_reverse)?")
_MAX_PROJECTED = 2048


def recurrent_layers(group: Group) -> list[TorchLayer]:
    """Build one layer per level, Bidirectional if arrays of the reverse direction exist.

    Every level but the last returns all steps, whatever the table says: the next level reads them.
    A level with a projection is two layers.
    """
    matches = [m for m in map(_RECURRENT.fullmatch, group.full) if m]
    cell = not any(match.group(3) for match in matches)
    levels = sorted({int(match.group(3)) for match in matches if match.group(3)}) or [0]
    if levels != list(range(len(levels))):
        raise ModelFileError(f"{group.table}: arrays of levels {levels}; some levels are missing")
    both = any(match.group(4) for match in matches)
    stack = []
    for n in levels:
        level = group if n == levels[-1] else _with(group, return_sequences=True)
        ending, suffix = "" if cell else f"_l{n}", f"_l{n}" if len(levels) > 1 else ""
        stack += [_level(level, ending, suffix, both), *_projection(level, ending, suffix, both)]
    return stack


def derived_values(arrays: Arrays) -> int:
    """Return the number of values in the products of projections, which are not in the file.

    Raises UnsupportedError, naming the array, for an LSTM with more than 2,048 units.
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
        layer = make(group, implied, suffix)
        return TorchLayer(layer, [(s, f"cell/{n}", a) for s, n, a in weights], shape[0])
    back, _ = _direction(group, f"{ending}_reverse")
    unnamed = {key: value for key, value in group.table.arguments.items() if key != "name"}
    layer = group.table.make(
        {
            "class_name": "Bidirectional",
            "config": {
                **layer_name(group, suffix),
                "layer": {"class_name": kind, "config": {**implied, **unnamed}},
            },
        }
    )
    sides = (("forward_layer", weights), ("backward_layer", back))
    named = [(s, f"{side}/cell/{n}", a) for side, arrays in sides for s, n, a in arrays]
    return TorchLayer(layer, named, shape[0])


def _projection(group: Group, ending: str, suffix: str, both: bool) -> list[TorchLayer]:
    """Return the Dense after a level with proj_size, with both directions side by side."""
    shorts = [f"weight_hr{ending}", *([f"weight_hr{ending}_reverse"] if both else [])]
    if shorts[0] not in group.full:
        return []
    parts = [group.use(short, 2) for short in shorts]
    rows, columns = (sum(part.shape[i] for part in parts) for i in (1, 0))
    kernel = np.zeros((rows, columns), np.float32)
    top = left = 0
    for part in parts:
        kernel[top : top + part.shape[1], left : left + part.shape[0]] = part.T
        top, left = top + part.shape[1], left + part.shape[0]
    name = layer_name(group, f"{suffix}_projection")
    config = {"units": columns, "use_bias": False, **name}
    layer = group.table.make({"class_name": "Dense", "config": config})
    source = " + ".join(group.name(short) for short in shorts)
    return [TorchLayer(layer, [(source, "kernel", kernel)], rows)]


def _with(group: Group, **arguments: object) -> Group:
    """Return the same group with changed arguments, and a shared record of used arrays."""
    table = group.table
    new = Group(
        LayerTable(table.number, table.kind, table.weights, {**table.arguments, **arguments}),
        group.arrays,
    )
    new.used = group.used
    return new


def _direction(group: Group, ending: str) -> tuple[TorchWeights, tuple[int, int]]:
    """Return kernel, recurrent kernel and bias of one direction, and (features, units)."""
    kind, theirs = kind_of(group.table.kind), TORCH_CELLS[group.table.kind].gates
    kernel, recurrent = group.use(f"weight_ih{ending}", 2), group.use(f"weight_hh{ending}", 2)
    source = group.name(f"weight_hh{ending}")
    if f"weight_hr{ending}" in group.full:
        projection = group.use(f"weight_hr{ending}", 2)
        source += f" {group.name(f'weight_hr{ending}')}"
        if recurrent.shape[1] != projection.shape[0]:
            raise ModelFileError(
                f"{source}: shapes {recurrent.shape} and {projection.shape} do not fit"
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
    if any(name in group.full for name in names):
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
    """Return a b, summed in float64 in the order of the inner axis."""
    total = np.zeros((a.shape[0], b.shape[1]))
    for left, right in zip(a.T.astype(np.float64), b.astype(np.float64), strict=True):
        total += left[:, None] * right
    return total.astype(np.float32)
