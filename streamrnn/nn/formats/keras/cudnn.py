"""Weights of CuDNN layers: the shapes of those of a plain layer, in another layout.

They differ only in the bias, which is flat and twice as long. Source: tf_keras' converters.
"""

from collections.abc import Callable, Sequence

import numpy as np

from streamrnn.base.arrays import Array

_GATES = {"LSTMCell": 4, "GRUCell": 3}


def as_keras(cell_class: str, arrays: Sequence[Array]) -> list[Array]:
    """Return kernel, recurrent kernel, bias of a cell in Keras's layout, others unchanged."""
    gates = _GATES.get(cell_class)
    if gates is None or len(arrays) != 3 or arrays[1].ndim != 2:
        return list(arrays)
    kernel, recurrent, bias = arrays
    if bias.shape != (2 * gates * recurrent.shape[0],) or kernel.ndim != 2:
        return list(arrays)
    halves = bias.reshape(2, -1)
    return [
        _by_gate(kernel, gates, lambda k: k.T.reshape(k.shape, order="F")),
        _by_gate(recurrent, gates, lambda k: k.T),
        halves.sum(axis=0) if gates == 4 else halves,
    ]


def _by_gate(kernel: Array, gates: int, change: Callable[[Array], Array]) -> Array:
    return np.hstack([change(part) for part in np.hsplit(kernel, gates)])
