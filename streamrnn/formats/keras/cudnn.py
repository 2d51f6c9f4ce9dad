"""Weights that CuDNN's layers wrote: the same shapes as a plain layer's, in another layout.

Only the bias tells them apart: it is flat, and twice as long. From tf_keras' converters.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_GATES = {"LSTMCell": 4, "GRUCell": 3}


def as_keras(cell_class: str, arrays: Sequence[Any]) -> list[Any]:
    """kernel, recurrent kernel, bias of a cell in Keras's layout; others come back as they are."""
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


def _by_gate(kernel: Any, gates: int, change: Callable[[Any], Any]) -> Any:
    return np.hstack([change(part) for part in np.hsplit(kernel, gates)])
