"""What kernels are called with, where it is more than a few arrays. Needs no compiler."""

from typing import Any, NamedTuple


class Absent(NamedTuple):
    """Which steps of a window are absent: those past a length (B,), and those that a mask (B, T)
    is false of. Empty arrays: none."""

    lengths_B: Any
    mask_BT: Any


class Weights(NamedTuple):
    """What a lane multiplies by, and, of each unit, the sums that it starts from and its own
    weights."""

    flat: Any
    unit: Any


class Share(NamedTuple):
    """What a thread takes of its lanes: with `parts` > 1 one part of their units; those who have
    the others share `scratch` with it, and count in `barrier` how many have come."""

    part: int
    parts: int
    scratch: Any
    barrier: Any


class Strings(NamedTuple):
    """N byte strings: n is `size[n]` bytes, and `words[start[n] + k]` is the word (uint64,
    little-endian) that begins at its byte k."""

    words: Any
    start: Any
    size: Any


KNOWN, PLACED, DONE = range(3)
"""Counts of a table of strings: those that it has, those that are in its cells, and how many of the
strings that are looked up are done."""


class StringTable(NamedTuple):
    """Distinct byte strings (see `kernels.keys.StringIndex`)."""

    cells: Any
    hashes: Any
    size: Any
    begin: Any
    words: Any
    counts: Any
