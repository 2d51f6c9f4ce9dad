"""Numbers of categories as vectors: one_hot, multi_hot, count; for lookups and CategoryEncoding."""

from collections.abc import Sequence

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.nn.layers.structure import Shape

ENCODINGS = ("multi_hot", "one_hot", "count")
SYNONYMS = {"binary": "multi_hot", "tf-idf": "tf_idf"}
"""Names of earlier versions of Keras."""


def joins_last(mode: str, input_shape: Shape) -> bool:
    """Return whether an encoding takes the last axis as a set: (…, n) -> (…, size).

    one_hot does for n = 1. The shape at building decides: a window that happens to have one step
    stays a window.
    """
    return mode != "one_hot" or (len(input_shape) > 1 and input_shape[-1] == 1)


def encode_ids(
    ids: Array, size: int, mode: str, *, joins: bool, weights: Sequence[float] | Array | None = None
) -> Floats:
    """Return 1 (count: how often, or the sum of `weights`) for each number; -1 is no number.

    ids: int64 below `size`. weights: of the shape of ids.
    """
    one_hot = np.zeros((ids.size, size + 1), np.float32)
    one_hot[np.arange(ids.size), ids.reshape(-1)] = (
        1 if weights is None else np.asarray(weights, np.float32).reshape(-1)
    )
    one_hot = one_hot.reshape(*ids.shape, size + 1)[..., :size]
    if not joins:
        return np.ascontiguousarray(one_hot)
    if mode != "count":
        joined: Floats = one_hot.max(axis=-2, initial=0)
        return joined
    total = np.zeros((*ids.shape[:-1], size), np.float32)
    for place in range(ids.shape[-1]):  # one after the other: weights may round
        total = total + one_hot[..., place, :]
    return total
