"""The one inner loop of all dense and recurrent kernels: rows times packed weights, then a cell.

A *row* is one lane at one step (or one row of a Dense input). It is described by the offsets of its
parts in the scratch array `s`: initial sums, input, old and new state. Rows are processed m at a
time (a *tile*), units by *groups*: `vectors` vectors of `n` units, each unit with all its gates.
Tiles and groups do not change the order in which one sum of one row is added up: first the initial
sum, then the inputs, then the state, each product added by one exact fma.

Weights of a group lie in the order in which they are read: `[k][vector][gate][n]`. If packed, they
are 32-bit words of integers, each word for several k; the scales of the gates follow the last word
of the inputs, and again the last word of the state (`simd.tile`). Packed rows, the integers of
inputs and states, lie in a thread's own part of the scratch array, from `Sizes.packed` on: first
the inputs of one row times the factors of the features, as floats; then the integers of the inputs
of each row, then the integers of the state of each row, each after their scale.
"""

from typing import NamedTuple

from numba import types

from streamrnn.nn.simd import tile
from streamrnn.nn.simd.arguments import FACTORS, H_TOP, X_TOP, Weights
from streamrnn.nn.simd.jit import F1, Inlined, inline_always, registers

START, X, OLD, NEW, OWN, PACKED = range(6)
"""Blocks of the array `offsets`, `cap` long each: the offsets of the rows' initial sums, inputs,
old states, new states and other states, and, with packed weights, of the integers of the states
(the offsets of the inputs' integers are in X). The array is flat: for views of its blocks, Numba
would count references."""

WEIGHTS_TYPE = types.NamedTuple((F1, F1), Weights)


class Sizes(NamedTuple):
    """Sizes that a sweep gets at run time."""

    features: int
    units: int
    groups: int
    """Groups of units, the last one padded with zeros."""
    padded: int
    """Units including the padding."""
    cap: int
    """Capacity in rows of each block of `offsets`."""
    unit: int
    """Offset in the scratch array of the units' own weights (peepholes, gains), `padded` of each
    kind; with packed weights, of the largest integers and the factors (`arguments.Weights`)."""
    packed: int = 0
    """Offset in the scratch array of this thread's packed rows."""


class Span(NamedTuple):
    """The groups low..high of a thread."""

    low: int
    high: int


class TileShape(NamedTuple):
    """Constants of a compiled sweep."""

    n: int
    """Floats in a vector."""
    vectors: int
    """Vectors of units in a group."""
    sums: int
    """Sums per unit: one per gate; for some cells more, as where a candidate has two parts."""
    x_into: tuple[int, ...]
    """For each gate of the input's weights, the sum to which its products are added."""
    h_into: tuple[int, ...]
    """For each gate of the state's weights, the sum to which its products are added."""
    word: int = 1
    """Weights in a 32-bit word: one float32, two int16, or four int8."""

    @property
    def group(self) -> int:
        """Number of floats of a group's sums."""
        return self.vectors * self.sums * self.n

    @property
    def x_step(self) -> int:
        """Number of floats of a group's weights for one input, or one word of packed inputs."""
        return self.vectors * len(self.x_into) * self.n

    @property
    def h_step(self) -> int:
        """Number of floats of a group's weights for one unit, or one packed word, of the state."""
        return self.vectors * len(self.h_into) * self.n

    def tile(self, m: int) -> tuple[Inlined, Inlined, Inlined]:
        """Make the functions of a tile of m rows: begin, feed inputs, feed states."""
        size = m, self.vectors * self.sums, self.n
        x_feed, h_feed = (tile.feed(*size, into) for into in self._feeds)
        return tile.begin(*size), x_feed, h_feed

    def integer_tile(self, m: int, *, scattered: bool = False) -> tuple[Inlined, Inlined]:
        """Make the functions of a tile of m packed rows: add inputs, add states."""
        size = m, self.vectors * self.sums, self.n
        x_add, h_add = (
            tile.add(*size, into, self.word, scattered=scattered) for into in self._feeds
        )
        return x_add, h_add

    @property
    def _feeds(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The indices, in a tile's row, of the sums for products of inputs, and of states."""
        x, h = (
            tuple(v * self.sums + s for v in range(self.vectors) for s in into)
            for into in (self.x_into, self.h_into)
        )
        return x, h


def make_steps(word: int) -> Inlined:
    """Make the function that returns the number of steps in the weights of `count` inputs."""
    rest = tile.rest_steps(word)

    @inline_always
    def steps(count):
        return count if word == 1 else (count + word - 1) // word + rest

    return steps


def tile_rows(shape: TileShape) -> int:
    """Return the number of rows of a tile: as many as registers can hold, from one to six.

    The registers hold the sums of the rows, an input and a step's weights. With 16 registers, this
    gives two rows for an LSTM (1.4 to 1.7 times as fast as with three, which spill) and two for a
    Dense with many units (1.8 times as fast as with three). For packed weights, they hold the
    sums of one operand (input or state) at a time, and one more register a product until it is
    added.
    """
    weights = shape.vectors * max(len(shape.x_into), len(shape.h_into))
    if shape.word > 1:
        return max(1, min(6, (registers() - weights - 2) // weights))
    return max(1, min(6, (registers() - weights - 1) // (shape.vectors * shape.sums)))


def _multiply(shape: TileShape, m: int, operand: int) -> Inlined:
    """Make the function that leaves the sums of rows i..i+m for one group in s[z:].

    With packed weights, PACKED has the offsets of the operand.
    """
    if shape.word > 1:
        add_x, add_h = shape.integer_tile(m)

        @inline_always
        def add(s, z, offsets, cap, i, start, x, features, units, w, jx, jh):
            if features:
                add_x(s, z, offsets, START * cap + i, start, 0, X * cap + i, features, w, jx)
            add_h(s, z, offsets, START * cap + i, start, features, PACKED * cap + i, units, w, jh)

        @inline_always
        def add_inputs(s, z, offsets, cap, i, start, x, features, units, w, jx, jh):
            add_x(s, z, offsets, START * cap + i, start, 0, X * cap + i, features, w, jx)

        return add if shape.h_into else add_inputs
    begin, feed_x, feed_h = shape.tile(m)

    @inline_always
    def multiply(s, z, offsets, cap, i, start, x, features, units, w, jx, jh):
        sums = begin(s, offsets, START * cap + i, start)
        sums = feed_x(sums, features, x, offsets, X * cap + i, w, jx)
        sums = feed_h(sums, units, s, offsets, operand * cap + i, w, jh)
        tile.put(sums, s, z)

    return multiply


def sweep(shape: TileShape, cell: Inlined, operand: int = OLD) -> Inlined:
    """Make the sweep: multiply the first `rows` rows by each group of a span, then call the cell.

    `cell(s, z, old, new, own, unit, padded)` gets the offsets of a unit vector's sums, old, new and
    other state, and own weights; its further states and weights follow every `padded` floats.
    `operand` is the part of a row that the recurrent weights multiply.
    """
    most = tile_rows(shape)
    one, two, three, four, five, full = (
        _multiply(shape, min(m, most), operand) for m in (1, 2, 3, 4, 5, most)
    )
    n, vectors, sums, group = shape.n, shape.vectors, shape.sums, shape.group
    x_step, h_step, steps = shape.x_step, shape.h_step, make_steps(shape.word)

    @inline_always
    def run(rows, span, sizes, s, z, offsets, start, x, fed, w, j):
        """Sweep the rows; `fed` is the number of inputs still to be added: all, or none."""
        features, units, cap = steps(sizes.features), steps(sizes.units), sizes.cap
        if fed:
            fed = features
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
                    full(s, z, offsets, cap, i, start, x, fed, units, w, jx, jh)
                elif left == 5:
                    m = min(5, most)
                    five(s, z, offsets, cap, i, start, x, fed, units, w, jx, jh)
                elif left >= 6 or left == 4:
                    m = min(4, most)
                    four(s, z, offsets, cap, i, start, x, fed, units, w, jx, jh)
                elif left >= 3:
                    m = min(3, most)
                    three(s, z, offsets, cap, i, start, x, fed, units, w, jx, jh)
                elif left == 2:
                    m = min(2, most)
                    two(s, z, offsets, cap, i, start, x, fed, units, w, jx, jh)
                else:
                    m = 1
                    one(s, z, offsets, cap, i, start, x, fed, units, w, jx, jh)
                for r in range(m):
                    row = i + r
                    old, new = offsets[OLD * cap + row], offsets[NEW * cap + row]
                    own = offsets[OWN * cap + row]
                    for v in range(vectors):
                        u = (g * vectors + v) * n
                        tile = z + (r * vectors + v) * sums * n
                        cell(s, tile, old + u, new + u, own + u, sizes.unit + u, sizes.padded)
                i += m
            start += group
            j += features * x_step + units * h_step

    return run


def _add_inputs(shape: TileShape, m: int) -> Inlined:
    """Make the function that adds the inputs of rows i..i+m for a group into s[offsets[NEW]:]."""
    if shape.word > 1:
        add_x, _ = shape.integer_tile(m, scattered=True)

        @inline_always
        def add_integers(s, offsets, cap, i, start, x, features, w, j):
            add_x(s, NEW * cap + i, offsets, START * cap + i, start, 0, X * cap + i, features, w, j)

        return add_integers
    begin, feed, _ = shape.tile(m)

    @inline_always
    def add(s, offsets, cap, i, start, x, features, w, j):
        sums = begin(s, offsets, START * cap + i, start)
        sums = feed(sums, features, x, offsets, X * cap + i, w, j)
        tile.scatter(sums, s, offsets, NEW * cap + i, start)

    return add


def project(shape: TileShape) -> Inlined:
    """Make the sweep that only adds the inputs and leaves the sums in s[offsets[NEW]:]."""
    most = tile_rows(shape)
    one, full = _add_inputs(shape, 1), _add_inputs(shape, most)
    group, x_step, h_step = shape.group, shape.x_step, shape.h_step
    steps = make_steps(shape.word)

    @inline_always
    def run(rows, span, sizes, s, offsets, start, x, w, j):
        features, units, cap = steps(sizes.features), steps(sizes.units), sizes.cap
        start += span.low * group
        j += span.low * (features * x_step + units * h_step)
        for _ in range(span.low, span.high):
            i = 0
            while i < rows:
                if rows - i >= most:
                    full(s, offsets, cap, i, start, x, features, w, j)
                    i += most
                else:
                    one(s, offsets, cap, i, start, x, features, w, j)
                    i += 1
            start += group
            j += features * x_step + units * h_step

    return run


def make_packed_floats(word: int) -> Inlined:
    """Make `floats(features, units, inputs, states)`: the size of a thread's packed rows.

    `inputs`, `states`: the number of rows of inputs and of rows of the state.
    """

    @inline_always
    def floats(features, units, inputs, states):
        if word == 1:
            return 0
        x_row, h_row = (features + word - 1) // word + 1, (units + word - 1) // word + 1
        return features + inputs * x_row + states * h_row

    return floats


def make_pack_inputs(n: int, word: int) -> Inlined:
    """Make `pack_inputs(x, i, s, sizes, offsets, row)`: pack x[i : i + features] as row `row`."""
    copy, pack = tile.make_scaled_copy(n), tile.make_pack(n, word)

    @inline_always
    def pack_inputs(x, i, s, sizes, offsets, row):
        features, place = sizes.features, sizes.packed
        j = place + features + row * ((features + word - 1) // word + 1)
        copy(x, i, s, sizes.unit + FACTORS, s, place, features)
        pack(s, place, features, s[sizes.unit + X_TOP], j)
        offsets[X * sizes.cap + row] = j + 1

    return pack_inputs


def make_pack_states(n: int, word: int, operand: int) -> Inlined:
    """Make `pack_states(rows, s, sizes, offsets)`: pack the operand of the first `rows` rows."""
    pack = tile.make_pack(n, word)

    @inline_always
    def pack_states(rows, s, sizes, offsets):
        features, units, cap = sizes.features, sizes.units, sizes.cap
        j = sizes.packed + features + cap * ((features + word - 1) // word + 1)
        for row in range(rows):
            pack(s, offsets[operand * cap + row], units, s[sizes.unit + H_TOP], j)
            offsets[PACKED * cap + row] = j + 1
            j += (units + word - 1) // word + 1

    return pack_states
