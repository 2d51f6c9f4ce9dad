"""What differs in earlier versions of Keras: recurrent layers, and the names of Keras 1.

Keras 1 has separate arrays for each gate; weights of CuDNN layers have another layout, which only
the bias reveals: it is flat and twice as long. Source: tf_keras' converters.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.nn.layers.gated import GatedCell
from streamrnn.nn.layers.layer import Layer

_NONE: Mapping[str, object] = MappingProxyType({})


class KerasCell(NamedTuple):
    """A recurrent layer in files of earlier versions.

    `before_3`: arguments that a config of Keras 1 or 2 may lack. `cudnn`: all arguments of its
    CuDNN layer; None without one. `keras_1`: the gates in the order of the arrays of Keras 1 (W, U
    and b of each gate); "" if it has today's arrays.
    """

    before_3: Mapping[str, object] = _NONE
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
    """Return the row for a layer or its cell; None without one."""
    return KERAS_CELLS.get(class_name.removesuffix("Cell"))


def as_keras(cell: Layer, arrays: Sequence[Array]) -> list[Array]:
    """Return a cell's kernel, recurrent kernel and bias in Keras's layout, others unchanged."""
    row = row_of(type(cell).__name__)
    if not (isinstance(cell, GatedCell) and row and row.cudnn and len(arrays) == 3):
        return list(arrays)
    gates, (kernel, recurrent, bias) = cell.gates, arrays
    if recurrent.ndim != 2:
        return list(arrays)
    if bias.shape != (2 * gates * recurrent.shape[0],) or kernel.ndim != 2:
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
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "p": "rate",
    "bias": "use_bias",
}
_TRAINING_ONLY = (
    "consume_less",
    "forget_bias_init",
    "W_regularizer",
    "U_regularizer",
    "b_regularizer",
    "W_constraint",
    "U_constraint",
    "b_constraint",
    "input_dim",
    "input_length",
)


def renamed(class_name: str, config: Mapping[str, object]) -> dict[str, object]:
    """Return a Keras 1 layer's config under the names of Keras 2."""
    if class_name == "Embedding":
        names = {"init": "embeddings_initializer"}
        dropped: tuple[str, ...] = ("dropout", "W_regularizer", "W_constraint")
    else:
        names, dropped = _NAMES, _TRAINING_ONLY
    return {names.get(key, key): value for key, value in config.items() if key not in dropped}


def joined(theirs: str, ours: str, arrays: Sequence[Array]) -> list[Array]:
    """Join each gate's (W, U, b), in the order `theirs`, to kernel, recurrent kernel and bias."""
    order = [theirs.index(gate) for gate in ours]
    return [np.concatenate([arrays[3 * gate + i] for gate in order], axis=-1) for i in range(3)]
