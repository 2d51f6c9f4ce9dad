"""Rows sorted by stream: where streams begin, what came before, and what the streams become."""

from typing import NamedTuple, Protocol

import numpy as np

from streamrnn.base.arrays import Array, Bools, Ints

NO_ROWS: Ints = np.zeros(0, np.int64)


def stream_begins(stream: Ints) -> Bools:
    """Return which rows (N,), sorted by stream, are the first of their stream."""
    begin = np.empty(len(stream), bool)
    begin[:1] = True
    np.not_equal(stream[1:], stream[:-1], out=begin[1:])
    return begin


def run_ends(first: Ints, rows: int) -> Ints:
    """Return the ends of the runs that begin at `first`, among `rows` rows."""
    ends = np.empty(len(first), np.int64)
    ends[:-1] = first[1:]
    ends[-1:] = rows
    return ends


def before_each(values: Ints, first: Ints, carried: Ints) -> Ints:
    """Return the value (N,) before each row; `carried` has the values before the `first` rows."""
    if len(first) == len(values):
        return carried
    before = np.empty_like(values)
    before[1:] = values[:-1]
    before[first] = carried
    return before


def running_maximum(values: Ints, begin: Bools) -> Ints:
    """Return the maximum of each row's run up to the row; runs begin where `begin` is true."""
    ordered, rank = np.unique(values, return_inverse=True)
    base = np.cumsum(begin) * len(ordered)
    best: Ints = ordered[np.maximum.accumulate(base + rank) - base]
    return best


Previous = dict[str, tuple[Array, Bools]]


class StreamHistory(Protocol):
    """What `windows` reads of a state table about the earlier rows of streams, by slot (B,).

    `newest` is the latest time of all streams, in ticks, when the table was loaded or idle streams
    were last dropped; None without times.
    """

    newest: int | None

    def steps(self, slots: Ints) -> Ints:
        """Return the steps (B,) since the last reset of each stream."""

    def last_times(self, slots: Ints) -> tuple[Ints, Bools]:
        """Return each stream's latest time (B,), in ticks, and whether (B,) it has one."""

    def previous(self, name: str, slots: Ints) -> tuple[Array, Bools]:
        """Return the last values (B,) of a feature, and which of them are present."""


class Update(NamedTuple):
    """The facts about B streams after their rows, as `StreamHistory` will return them."""

    slots: Ints
    steps: Ints
    last_time: Ints | None
    previous: Previous
