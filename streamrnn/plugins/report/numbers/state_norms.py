"""Norms of the states h of streams, and the share of their units that are saturated."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Doubles
from streamrnn.plugins.report.numbers.sample import BucketSample

SATURATED = 0.99
"""The size of a unit's state from which it is called saturated, of at most 1."""


class LayerNorms(NamedTuple):
    """The state h of one layer in one commit: norms (S,), `units`, and the share that is saturated.

    The share is null if the units are not bounded by 1, as those of another activation than tanh.
    """

    layer: str
    units: int
    norm: Doubles
    saturated: float | None


def layer_norms(table: pa.Table) -> list[LayerNorms]:
    """Return the Euclidean norm of each h of each stream of a state table."""
    found = []
    for field in table.schema:
        layer, _, name = field.name.rpartition("/")
        if name != "h" or not pa.types.is_fixed_size_list(field.type):
            continue
        units = field.type.list_size
        squares, counted, bounded = [], 0, True
        for chunk in table.column(field.name).chunks:
            state = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, units)
            state = state.astype(np.float64)
            squares.append((state * state).sum(axis=1))
            counted += int((abs(state) > SATURATED).sum())
            bounded &= not bool((abs(state) > 1).any())
        norm = np.sqrt(np.concatenate([*squares, np.zeros(0)]))
        share = counted / (len(norm) * units) if bounded and len(norm) else None
        found.append(LayerNorms(layer, units, norm, share))
    return found


def norm_quantiles(found: LayerNorms) -> tuple[float, float, float] | None:
    """Return the quantiles 0.1, 0.5 and 0.9 over streams; None without a stream."""
    sample = BucketSample(1, 1, most=max(1, len(found.norm)))
    sample.add(np.zeros(len(found.norm), np.int64), found.norm[:, None].astype(np.float32))
    low, middle, high = sample.quantiles((0.1, 0.5, 0.9))[0, 0].tolist()
    return (low, middle, high) if len(found.norm) else None
