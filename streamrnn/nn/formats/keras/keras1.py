"""Keras 1: argument names, and weights of one array per gate. Source: tf_keras' converters."""

from collections.abc import Mapping, Sequence

import numpy as np

from streamrnn.base.arrays import Array

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


_ORDERS = {"LSTM": (0, 2, 1, 3), "GRU": (0, 1, 2)}
"""The positions of the gates i f c o, and z r h, in the file: LSTM is stored as i c f o."""

ARRAYS = {"LSTM": 12, "GRU": 9}
"""The number of arrays that Keras 1 stores for a layer."""


def joined(class_name: str, arrays: Sequence[Array]) -> list[Array]:
    """Join (W, U, b) of each gate to kernel, recurrent kernel and bias."""
    order = _ORDERS[class_name]
    return [np.concatenate([arrays[3 * gate + i] for gate in order], axis=-1) for i in range(3)]
