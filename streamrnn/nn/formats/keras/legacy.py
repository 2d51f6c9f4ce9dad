"""Files of earlier versions of Keras: weights in .h5 files, recurrent layers, names of Keras 1.

A legacy .h5 file lists arrays per layer, in the layer's own order. Keras 1 has separate arrays for
each gate; weights of CuDNN layers have another layout, which only the bias reveals: it is flat and
twice as long. Source: tf_keras' converters.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError
from streamrnn.nn.formats.guard import Assignment
from streamrnn.nn.formats.keras.h5 import Tree
from streamrnn.nn.layers.gated import GatedCell
from streamrnn.nn.layers.layer import Layer

Stored = tuple[str, Array]
"""A stored array and its path."""


class KerasCell(NamedTuple):
    """A recurrent layer in files of earlier versions.

    `before_3`: arguments that a config of Keras 1 or 2 may lack, with the defaults of that time.
    `cudnn`: the arguments that the CuDNN layer fixes; None if there is no CuDNN layer. `keras_1`:
    the gates in the order of the arrays of Keras 1 (W, U and b of each gate); "" if Keras 1 has
    today's arrays.
    """

    before_3: Mapping[str, object] = MappingProxyType({})
    cudnn: Mapping[str, object] | None = None
    keras_1: str = ""


_TWO = {"activation": "tanh", "recurrent_activation": "sigmoid"}
_HARD = {"recurrent_activation": "hard_sigmoid_02"}
KERAS_CELLS = {
    "LSTM": KerasCell(_HARD, cudnn=_TWO, keras_1="icfo"),
    "GRU": KerasCell(
        {**_HARD, "reset_after": False}, cudnn={**_TWO, "reset_after": True}, keras_1="zrh"
    ),
    "SimpleRNN": KerasCell(),
}


def row_of(class_name: str) -> KerasCell | None:
    """Return the row for the class of a layer or of its cell; None for other classes."""
    return KERAS_CELLS.get(class_name.removesuffix("Cell"))


def find_assignments(order: Sequence[Layer], tree: Tree) -> tuple[list[Assignment], list[str]]:
    """Return the array of each weight, and the unused stored arrays.

    order: a model's layers in the order of the file. tree: the group with `layer_names`. Layers
    with weights are matched by their order; names are ignored.
    """
    stored = [(name, arrays) for name in _names(tree) if (arrays := _arrays(tree, name))]
    layers = [layer for layer in order if layer.named_weights()]
    if len(stored) != len(layers):
        raise ModelFileError(
            f"the file has {len(stored)} layers with weights "
            f"({', '.join(name for name, _ in stored)}), but the model has {len(layers)} "
            f"({', '.join(layer.name for layer in layers)})"
        )
    assignments: list[Assignment] = []
    for layer, (name, arrays) in zip(layers, stored, strict=True):
        assignments += _layer(layer, name, arrays)
    used = {part for assignment in assignments for part in assignment.source.split(" + ")}
    return assignments, [name for name in tree.arrays if name not in used]


def with_reset_after(config: object, tree: Tree) -> object:
    """Set reset_after=True, in place, in each GRU that stores a bias of two rows.

    A GRU whose config has reset_after, or which is inside a wrapper or an inner model, stays as it
    is. Returns the config.
    """
    inner = config.get("config") if isinstance(config, Mapping) else None
    entries = inner.get("layers") if isinstance(inner, Mapping) else inner
    for entry in entries if isinstance(entries, list) else ():
        own = entry.get("config") if isinstance(entry, Mapping) else None
        if not isinstance(own, dict) or "reset_after" in own:
            continue
        row = row_of(str(entry.get("class_name")))
        if row is None or "reset_after" not in row.before_3:
            continue
        arrays = _arrays(tree, str(own.get("name")))
        if len(arrays) == 3 and arrays[2][1].ndim == 2:
            own["reset_after"] = True
    return config


def first_array(tree: Tree, layer: Layer, group: str | None) -> Array | None:
    """Return the first array in a group, or in the file if `group` is None; None without arrays."""
    groups = _names(tree) if group is None else [group]
    return next((array for name in groups for _, array in _arrays(tree, name)), None)


def from_group(layer: Layer, group: str, tree: Tree) -> list[Assignment]:
    """Return the array of each weight of one layer, given its group."""
    return _layer(layer, group, _arrays(tree, group))


def _names(tree: Tree) -> list[str]:
    names = tree.attributes.get("", {}).get("layer_names")
    if not isinstance(names, list):
        raise ModelFileError("it has no layer_names: this is not a Keras weights file")
    return names


def _arrays(tree: Tree, layer: str) -> list[Stored]:
    names = tree.attributes.get(layer, {}).get("weight_names", [])
    arrays = []
    for name in names if isinstance(names, list) else []:
        path = f"{layer}/{name}"
        if path not in tree.arrays:
            raise ModelFileError(f"layer {layer!r} lists an array {name!r}, which is not stored")
        arrays.append((path, tree.arrays[path]))
    return arrays


def _layer(layer: Layer, name: str, arrays: list[Stored]) -> list[Assignment]:
    leaves = _leaves(layer, layer.name)
    weights = sum(len(names) for _, names in leaves)
    if len(arrays) == weights:
        return _in_order(layer, arrays)
    orders = [_gate_orders(leaf) for leaf, _ in leaves]
    counts = [
        3 * len(theirs) or len(names)
        for (theirs, _), (_, names) in zip(orders, leaves, strict=True)
    ]
    if len(arrays) != sum(counts):
        raise ModelFileError(
            f"layer {name!r} has {len(arrays)} arrays, but {layer} needs {weights}: "
            f"{', '.join(n for _, names in leaves for n in names)}"
        )
    assignments: list[Assignment] = []
    for (_, names), order, count in zip(leaves, orders, counts, strict=True):
        own, arrays = arrays[:count], arrays[count:]
        if count == len(names):
            assignments += [Assignment(s, t, a) for (s, a), t in zip(own, names, strict=True)]
            continue
        whole = joined(*order, [array for _, array in own])
        for i, (target, array) in enumerate(zip(names, whole, strict=True)):
            assignments.append(Assignment(" + ".join(s for s, _ in own[i::3]), target, array))
    return assignments


def _gate_orders(leaf: Layer) -> tuple[str, str]:
    """Return the gates of a cell in the order of Keras 1, and in today's order.

    The first is "" if the arrays of Keras 1 are today's; both are "" for other layers.
    """
    row = row_of(type(leaf).__name__)
    return (row.keras_1, leaf.kind.gates) if row and isinstance(leaf, GatedCell) else ("", "")


def _in_order(layer: Layer, arrays: list[Stored]) -> list[Assignment]:
    """Assign the arrays in Keras's order of a layer's weights: trainable weights first."""
    targets = [f"{layer.name}/{name}" for name in layer.named_weights()]
    trains = [trains for _, _, trains in layer.holders()]
    order = sorted(range(len(targets)), key=lambda i: not trains[i])
    by_target = {targets[i]: array for i, array in zip(order, arrays, strict=True)}
    assignments: list[Assignment] = []
    for leaf, names in _leaves(layer, layer.name):
        values = as_keras(leaf, [by_target[name][1] for name in names])
        sources = [by_target[name][0] for name in names]
        assignments += map(Assignment, sources, names, values)
    return assignments


def _leaves(layer: Layer, prefix: str) -> list[tuple[Layer, list[str]]]:
    """Return this layer and its inner layers that hold weights, with the weights' names."""
    children = layer.children().items()
    inside = [leaf for key, child in children for leaf in _leaves(child, f"{prefix}/{key}")]
    own = [f"{prefix}/{name}" for name in own_weights(layer)]
    return [(layer, own), *inside] if own else inside


def own_weights(layer: Layer) -> list[str]:
    """Return the names of the weights that a layer holds itself, not a layer inside it."""
    names = list(layer.named_weights())
    inside = sum(len(child.named_weights()) for child in layer.children().values())
    return names[: len(names) - inside]


def as_keras(cell: Layer, arrays: Sequence[Array]) -> list[Array]:
    """Return a CuDNN cell's kernels and bias in the cell's layout; other arrays as they are."""
    row = row_of(type(cell).__name__)
    if not (isinstance(cell, GatedCell) and row and row.cudnn and len(arrays) == 3):
        return list(arrays)
    gates, (kernel, recurrent, bias) = cell.gates, arrays
    if kernel.ndim != 2 or recurrent.ndim != 2 or bias.shape != (2 * gates * len(recurrent),):
        return list(arrays)
    halves = bias.reshape(2, -1)
    return [
        _by_gate(kernel, gates, lambda k: k.T.reshape(k.shape, order="F")),
        _by_gate(recurrent, gates, lambda k: k.T),
        halves if "reset_after" in row.cudnn else halves.sum(axis=0),
    ]


def _by_gate(kernel: Array, gates: int, change: Callable[[Array], Array]) -> Array:
    return np.hstack([change(part) for part in np.hsplit(kernel, gates)])


_NAMES = {
    "output_dim": "units",
    "inner_activation": "recurrent_activation",
    "input_dtype": "dtype",
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "p": "rate",
    "bias": "use_bias",
}
_DROPPED = [
    "W_constraint", "U_constraint", "b_constraint", "W_regularizer", "U_regularizer",
    "b_regularizer", "consume_less", "forget_bias_init", "input_dim", "input_length",
]  # fmt: skip


def renamed(class_name: str, config: Mapping[str, object]) -> dict[str, object]:
    """Return a Keras 1 layer's config under the names of Keras 2."""
    if class_name == "Embedding":
        names = {"init": "embeddings_initializer", "input_dtype": "dtype"}
        dropped = ["dropout", "W_regularizer", "W_constraint"]
    else:
        names, dropped = _NAMES, _DROPPED
    return {names.get(key, key): value for key, value in config.items() if key not in dropped}


def joined(theirs: str, ours: str, arrays: Sequence[Array]) -> list[Array]:
    """Join each gate's (W, U, b) to a kernel, a recurrent kernel and a bias.

    theirs, ours: the gates in the order of `arrays`, and in the order of the result.
    """
    order = [theirs.index(gate) for gate in ours]
    return [np.concatenate([arrays[3 * gate + i] for gate in order], axis=-1) for i in range(3)]
