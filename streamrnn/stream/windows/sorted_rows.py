"""Rows that are sorted by stream: where streams begin, and their latest times."""

import numpy as np

from streamrnn.base.arrays import Bools, Ints

NO_ROWS: Ints = np.zeros(0, np.int64)


def stream_begins(stream: Ints) -> Bools:
    """Return which rows (N,), sorted by stream, are the first of theirs."""
    begin = np.empty(len(stream), bool)
    begin[:1] = True
    np.not_equal(stream[1:], stream[:-1], out=begin[1:])
    return begin


def before_each(values: Ints, first: Ints, carried: Ints) -> Ints:
    """Return the value before each row's (N,): `carried` where the row is a `first` one."""
    if len(first) == len(values):
        return carried
    before = np.empty_like(values)
    before[1:] = values[:-1]
    before[first] = carried
    return before


def running_maximum(values: Ints, begin: Bools) -> Ints:
    """Return the largest value so far, in each run that begins where `begin` is true."""
    ordered, rank = np.unique(values, return_inverse=True)
    base = np.cumsum(begin) * len(ordered)
    best: Ints = ordered[np.maximum.accumulate(base + rank) - base]
    return best
