"""Counts of values in classes."""

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Doubles, Ints


def log_histogram(value_N: Ints) -> pa.Table:
    """Count integers from 1 on in classes `from`, `to` (both included) that double: 1, 2-3, 4-7, ….

    Classes from the first to the last that has a value; `count` is their number.

    >>> log_histogram(np.array([1, 5, 6])).to_pylist()[-1]
    {'from': 4, 'to': 7, 'count': 2}
    """
    value = value_N[value_N > 0]
    edges = 2 ** np.arange(63, dtype=np.int64)
    level = np.searchsorted(edges, value, side="right") - 1
    count = np.bincount(level, minlength=1)
    first = int(level.min(initial=len(count)))
    start = edges[first : len(count)]
    return pa.table({"from": start, "to": 2 * (start - 1) + 1, "count": count[first:]})


def even_histogram(value_N: Doubles, classes: int = 30) -> pa.Table:
    """Count numbers in up to `classes` of one width from the least to the greatest."""
    value = value_N[np.isfinite(value_N)]
    if not len(value):
        return pa.table({"from": np.zeros(0), "to": np.zeros(0), "count": np.zeros(0, np.int64)})
    low, high = float(value.min()), float(value.max())
    if low == high:
        return pa.table({"from": [low], "to": [high], "count": [len(value)]})
    edges = low + (high - low) * np.arange(classes + 1) / classes
    edges = np.unique(edges)  # fewer, if so many numbers do not fit in between
    classes = len(edges) - 1
    at = np.searchsorted(edges, value, side="right") - 1
    count = np.bincount(at.clip(0, classes - 1), minlength=classes)
    return pa.table({"from": edges[:-1], "to": edges[1:], "count": count})
