"""The one inner loop of all dense and recurrent kernels: rows times packed weights, then a cell.

A *row* is one lane at one step (or one row of a Dense input). It is described by where its parts
begin in the scratch array `s`: the sums it starts from, its input, its old and new state. Rows are
taken m at a time (a tile), units `n` at a time (a *group*: `vectors` of `n` units, each with all
its gates); the order of the additions of one unit of one row never depends on that: first what it
starts from, then the inputs, then the state, each product added by one exact fma.

Weights of a group lie in the order in which they are read: `[k][vector][gate][n]`.
"""

from typing import Any, NamedTuple

from streamrnn.simd import tile
from streamrnn.simd.jit import inline_always, registers

START, X, OLD, NEW, OWN = range(5)
"""Blocks of the index array `at`, `cap` long each: where the rows' sums to start from, inputs, old
states, new states and other states begin. (Flat: a view of each block would count references.)"""


class Sizes(NamedTuple):
    """What a sweep is told when it runs, beside its arrays."""

    features: int
    units: int
    groups: int
    """Of units, the last one filled up with zeros."""
    padded: int
    """Units with those zeros."""
    cap: int
    """Rows that each block of `at` has room for."""
    unit: int
    """Where the weights that a unit multiplies by itself begin in the scratch array, `padded` of
    each kind (peepholes, gains)."""


class Span(NamedTuple):
    """The groups low..high that a thread takes."""

    low: int
    high: int


class Shape(NamedTuple):
    """What a sweep is compiled for."""

    n: int
    """Floats in a vector."""
    vectors: int
    """Vectors of units in a group."""
    sums: int
    """Sums of a unit (gates; four for a GRU with reset_after, whose candidate has two parts)."""
    x_into: tuple[int, ...]
    """The sum that each gate of the input's weights adds to."""
    h_into: tuple[int, ...]
    """The sum that each gate of the state's weights adds to."""

    @property
    def group(self) -> int:
        """Floats of a group's sums."""
        return self.vectors * self.sums * self.n

    @property
    def x_step(self) -> int:
        """Floats of a group's weights for one input."""
        return self.vectors * len(self.x_into) * self.n

    @property
    def h_step(self) -> int:
        """Floats of a group's weights for one unit of the state."""
        return self.vectors * len(self.h_into) * self.n

    def tile(self, m: int) -> tuple[Any, Any, Any]:
        """The functions of a tile of m rows: begin, feed inputs, feed states."""
        size = m, self.vectors * self.sums, self.n
        feeds = (
            tuple(v * self.sums + s for v in range(self.vectors) for s in into)
            for into in (self.x_into, self.h_into)
        )
        return (tile.begin(*size), *(tile.feed(*size, into) for into in feeds))


def tile_rows(shape: Shape) -> int:
    """Most rows of a tile: its sums, the weights of a step and an input must fit in the registers.

    With 16 of them an LSTM takes two rows, whose third would spill: 1.4-1.7 x as fast as three. A
    Dense of many units too: 1.8 x.
    """
    weights = shape.vectors * max(len(shape.x_into), len(shape.h_into))
    return max(1, min(6, (registers() - weights - 1) // (shape.vectors * shape.sums)))


def _multiply(shape: Shape, m: int, operand: int) -> Any:
    """Make the function that leaves the sums of rows i..i+m for one group in s[z:]."""
    begin, feed_x, feed_h = shape.tile(m)

    @inline_always
    def multiply(s, z, at, cap, i, start, x, features, units, w, jx, jh):
        sums = begin(s, at, START * cap + i, start)
        sums = feed_x(sums, features, x, at, X * cap + i, w, jx)
        sums = feed_h(sums, units, s, at, operand * cap + i, w, jh)
        tile.put(sums, s, z)

    return multiply


def sweep(shape: Shape, cell: Any, operand: int = OLD) -> Any:
    """Make the sweep: for the groups of a span and the first `rows` rows, multiply, call the cell.

    `cell(s, z, old, new, own, unit, padded)` gets where a unit vector's sums, old, new and other
    state, and own weights begin; further states and weights of it follow `padded` floats later.
    `operand` is the part of a row that the recurrent weights multiply.
    """
    most = tile_rows(shape)
    one, two, three, four, five, full = (
        _multiply(shape, min(m, most), operand) for m in (1, 2, 3, 4, 5, most)
    )
    n, vectors, sums, group = shape.n, shape.vectors, shape.sums, shape.group
    x_step, h_step = shape.x_step, shape.h_step

    @inline_always
    def run(rows, span, sizes, s, z, at, start, x, fed, w, j):
        """`fed` says how many of the inputs are still to add: all, or none."""
        features, units, cap = sizes.features, sizes.units, sizes.cap
        start += span.low * group
        j += span.low * (features * x_step + units * h_step)
        for g in range(span.low, span.high):
            jx = j + (features - fed) * x_step
            jh = j + features * x_step
            i = 0
            while i < rows:
                left = rows - i
                if left >= 9 or left == most:
                    m = most
                    full(s, z, at, cap, i, start, x, fed, units, w, jx, jh)
                elif left == 5:
                    m = min(5, most)
                    five(s, z, at, cap, i, start, x, fed, units, w, jx, jh)
                elif left >= 6 or left == 4:
                    m = min(4, most)
                    four(s, z, at, cap, i, start, x, fed, units, w, jx, jh)
                elif left >= 3:
                    m = min(3, most)
                    three(s, z, at, cap, i, start, x, fed, units, w, jx, jh)
                elif left == 2:
                    m = min(2, most)
                    two(s, z, at, cap, i, start, x, fed, units, w, jx, jh)
                else:
                    m = 1
                    one(s, z, at, cap, i, start, x, fed, units, w, jx, jh)
                for r in range(m):
                    row = i + r
                    old, new, own = at[OLD * cap + row], at[NEW * cap + row], at[OWN * cap + row]
                    for v in range(vectors):
                        u = (g * vectors + v) * n
                        tile = z + (r * vectors + v) * sums * n
                        cell(s, tile, old + u, new + u, own + u, sizes.unit + u, sizes.padded)
                i += m
            start += group
            j += features * x_step + units * h_step

    return run


def _add_inputs(shape: Shape, m: int) -> Any:
    """Make the function that adds the inputs of rows i..i+m for one group, into s[at[NEW]:]."""
    begin, feed, _ = shape.tile(m)

    @inline_always
    def add(s, at, cap, i, start, x, features, w, j):
        sums = begin(s, at, START * cap + i, start)
        sums = feed(sums, features, x, at, X * cap + i, w, j)
        tile.scatter(sums, s, at, NEW * cap + i, start)

    return add


def project(shape: Shape) -> Any:
    """Make the sweep that only adds the inputs and leaves the sums in s[at[NEW]:]."""
    most = tile_rows(shape)
    one, full = _add_inputs(shape, 1), _add_inputs(shape, most)
    group, x_step, h_step = shape.group, shape.x_step, shape.h_step

    @inline_always
    def run(rows, span, sizes, s, at, start, x, w, j):
        features, cap = sizes.features, sizes.cap
        start += span.low * group
        j += span.low * (features * x_step + sizes.units * h_step)
        for _ in range(span.low, span.high):
            i = 0
            while i < rows:
                if rows - i >= most:
                    full(s, at, cap, i, start, x, features, w, j)
                    i += most
                else:
                    one(s, at, cap, i, start, x, features, w, j)
                    i += 1
            start += group
            j += features * x_step + sizes.units * h_step

    return run
