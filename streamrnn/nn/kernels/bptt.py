"""Recurrent layers in training: forward with all gates kept, then back through time.

A `Network` is one layer of one kind of cell; `Tape` holds what a window keeps. Weights have Keras's
layout: they change with each update, so they are packed for each window.
"""

from collections.abc import Sequence

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.nn import simd
from streamrnn.nn.kernels import packing, threads
from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.kernels.gradients import (
    Outer,
    Projection,
    StridedRows,
    WeightOrder,
    elementwise_products,
    flat_indices,
    flattened,
    outer,
    products_a_row,
)
from streamrnn.nn.kernels.recurrent import NO_MASK, NO_OUTPUT
from streamrnn.nn.kernels.swept import SweptKind
from streamrnn.nn.simd.arguments import Factors, TapeLayout
from streamrnn.nn.simd.sweep import Span

__all__ = ["NO_FACTORS", "Factors", "Network", "Tape"]

NO_FACTORS = np.empty((0, 0), np.float32)
_NONE_BU = np.empty((0, 0), np.float32)

PART = 1 << 17
"""Number of floats of gates in a part of a window: half of an L2 cache of 1 MiB. Sums over rows are
computed part by part."""


class Tape:
    """What one window keeps: inputs, states and gates. The next window of this shape reuses it."""

    def __init__(self, network: "Network", lanes: int, steps: int, dropped: bool) -> None:
        kind, padded = network.kind, network.padded
        self.dropped, self.shape = dropped, (lanes, steps)
        self.per_state = len(kind.states) + (1 if dropped or kind.keeps_fed else 0)
        sizes = [
            network.sums * padded,
            len(kind.peepholes) * padded,
            lanes * 6 * network.widest,
            kind.kept * padded,
            lanes * (len(kind.states) + 1) * padded,
            (steps + 1) * lanes * self.per_state * padded,
            steps * lanes * kind.kept * padded,
        ]
        own, z, zeros, carry, states, kept = np.cumsum(sizes)[:-1].tolist()
        self.flat = packing.aligned(sum(sizes))
        self.inputs = packing.aligned(steps * lanes * network.features)
        self.places = TapeLayout(lanes, network.units, padded, own, z, zeros, carry, states, kept)
        self.products = self._products(network)
        self.later = np.zeros(lanes, np.int64)
        a_part = max(1, PART // max(1, lanes * kind.kept * padded))
        self.parts = [(max(0, end - a_part), end) for end in range(steps, 0, -a_part)]

    def _products(self, network: "Network") -> list[Outer]:
        """Return the products for gradients of weights: with x, h (per sweep) and 1 (bias)."""
        kind, padded, places = network.kind, network.padded, self.places
        row = kind.kept * padded

        def kept(vector: int) -> StridedRows:
            return StridedRows(self.flat, places.kept + vector * padded, row)

        fed = len(kind.states) * padded if self.per_state > len(kind.states) else 0
        h = StridedRows(self.flat, places.states + fed, self.per_state * padded)
        x = StridedRows(self.inputs, 0, network.features)
        of_x = np.zeros((network.features, len(kind.x_gates) * padded), np.float32)
        products = [Outer(x, kept(0), of_x)]
        c = places.states + padded
        step = self.per_state * padded
        self.peepholes = [
            (StridedRows(self.flat, c + of.after * self.shape[0] * step, step), kept(of.kept))
            for of in kind.peepholes
        ]
        for sweep in kind.back:
            of_h = np.zeros((network.units, len(sweep.gates) * padded), np.float32)
            operand = h if sweep.operand is None else kept(sweep.operand)
            products.append(Outer(operand, kept(sweep.first), of_h))
        if network.bias:
            one = StridedRows(np.ones(1, np.float32), 0, 0)
            products.append(Outer(one, kept(0), np.zeros((1, row), np.float32)))
        return products


class Network:
    """A recurrent layer in training, for weights of one shape.

    activations: in the order that the cell's `pack` documents.
    """

    def __init__(
        self, kind: SweptKind, features: int, units: int, activations: tuple[Spec, ...], bias: bool
    ) -> None:
        self.kind = kind
        self.features, self.units, self.bias = features, units, bias
        multiple = 16 if units <= 48 else 32
        self.padded = -(-units // multiple) * multiple
        n = simd.jit.width()
        full = self.padded // n
        self._vectors = next(v for v in (4, 3, 2, 1) if full % v == 0)
        sums = [len(sweep.x_biases) for sweep in self.kind.ahead]  # a tile has at most four vectors
        self._ahead = next(v for v in (4, 3, 2, 1) if full % v == 0 and v * max(sums) <= 4)
        self._kernels = kind.in_training(n, self._ahead, self._vectors, activations)
        self.sums = sum(sums)
        self.widest = 4 * n
        self._order(n)
        self._source: Floats | None = None
        self._tape: Tape | None = None

    def tape(self, lanes: int, steps: int, *, dropped: bool) -> Tape:
        """Return a tape for a window: the last window's tape if shape and `dropped` are the same.

        dropped: whether factors of h are passed to `forward`.
        """
        tape = self._tape
        if tape is None or (tape.shape, tape.dropped) != ((lanes, steps), dropped):
            tape = self._tape = Tape(self, lanes, steps, dropped)
        return tape

    def _order(self, n: int) -> None:
        """Index the weights in the orders in which the sweeps read them."""
        kind, units = self.kind, self.units
        columns = len(kind.gates) * units
        shapes = (self.features, columns), (units, columns), (kind.biases, columns)
        x, h, b = flat_indices(*shapes)
        x_gates, h_gates = (self._padded(a) for a in (x, h))
        flat = []
        for sweep in kind.ahead:
            groups = [
                packing.by_group([index[..., g, :] for g in kind.columns(gates)], n, self._ahead)
                for index, gates in ((x_gates, sweep.x_gates), (h_gates, sweep.h_gates))
            ]
            flat.append(np.concatenate([g.reshape(len(g), -1) for g in groups], axis=1).ravel())
        self._ahead_order = WeightOrder(np.concatenate(flat))
        b_gates = self._padded(b)
        none = np.zeros(self.padded, b.dtype)
        starts = [s.x_biases for s in kind.ahead], [s.h_biases for s in kind.ahead]
        self._starts = [
            np.concatenate([
                packing.by_group(
                    [none if g < 0 else b_gates[row, g] for g in kind.columns(gates)],
                    n,
                    self._ahead,
                ).ravel()
                for gates in sweeps
            ])
            for row, sweeps in enumerate(starts)
        ]  # fmt: skip
        self._back_order = WeightOrder(
            np.concatenate([
                packing.by_group([self._transposed(h_gates, sweep.gates)], n, self._vectors).ravel()
                for sweep in kind.back
            ])
        )  # fmt: skip
        self._to_inputs = Projection(self._transposed(x_gates, kind.x_gates))
        self._to_states = Projection(self._transposed(h_gates, kind.back[0].gates))

    def _padded(self, index: Array) -> Array:
        """Split columns into gates, and pad their units with 0, the index of a zero."""
        split = index.reshape(len(index), len(self.kind.gates), self.units)
        return np.pad(split, ((0, 0), (0, 0), (0, self.padded - self.units)))

    def _transposed(self, gates: Array, of: str) -> Array:
        """Return (len(of) * padded, rows): gates one after the other, as the tape keeps them."""
        return np.concatenate([gates[:, g].T for g in self.kind.columns(of)])

    def forward(
        self,
        tape: Tape,
        weights: tuple[Floats, Floats, Floats | None],
        x_BTF: Floats,
        factors: Factors,
        mask_BT: Bools | None,
        states: Sequence[Floats],
        y_BTU: Floats | None,
        *,
        zero_masked: bool = False,
        peepholes: Sequence[Floats] = (),
    ) -> None:
        """Advance `states`, write each h to `y_BTU`, and fill the tape."""
        kernel, recurrent, bias = weights
        if bias is None:
            bias = np.zeros((self.kind.biases, len(self.kind.gates) * self.units), np.float32)
        self._source = source = flattened(kernel, recurrent, bias)
        packed, places = self._ahead_order.take(source), tape.places
        tape.flat[: self._starts[0].size] = source[self._starts[0]] + source[self._starts[1]]
        for number, peephole in enumerate(peepholes):
            begin = places.own + number * self.padded
            tape.flat[begin : begin + self.units] = peephole
        mask = NO_MASK if mask_BT is None else mask_BT
        y = NO_OUTPUT if y_BTU is None else y_BTU
        window = x_BTF, factors, mask, tuple(states), y
        fixed = *window, tape.inputs, tape.flat, places, packed, zero_masked
        work = lambda *span: self._kernels[0](*fixed, Span(*span))  # noqa: E731
        threads.over_lanes(work, tape.shape[0], tape.shape[0] * tape.shape[1] * packed.size)

    def back(
        self,
        tape: Tape,
        dy_BTU: Floats | None,
        ends: Sequence[Floats | None],
        factors: Factors,
        mask_BT: Bools | None,
        *,
        zero_masked: bool = False,
        weights: bool = True,
    ) -> list[Floats] | None:
        """Replace the gates on the tape with their gradients.

        Return the gradients of the weights, in Keras's layout and order, valid until the next call;
        None if not wanted.
        """
        assert self._source is not None
        lanes, steps = tape.shape
        packed = self._back_order.take(self._source)
        dy = NO_OUTPUT if dy_BTU is None else dy_BTU
        mask = NO_MASK if mask_BT is None else mask_BT
        slopes = dy, factors, mask, tuple(_NONE_BU if end is None else end for end in ends)
        fixed = *slopes, tape.flat, tape.places, packed, zero_masked, steps, tape.later

        def through(begin: int, end: int) -> None:
            part = Span(begin, end)
            work = lambda *span: self._kernels[1](*fixed, part, Span(*span))  # noqa: E731
            threads.over_lanes(work, lanes, lanes * (end - begin) * packed.size)

        chunks = [(begin * lanes, end * lanes) for begin, end in tape.parts]
        if not weights or threads.pays(lanes * steps * products_a_row(tape.products)):
            through(0, steps)
            if weights:
                outer(tape.products, chunks, again=False)
        else:  # part by part, while the gradients of a part are in the cache
            for number, (part, chunk) in enumerate(zip(tape.parts, chunks, strict=True)):
                through(*part)
                outer(tape.products, [chunk], again=number > 0)
        return self._weight_gradients(tape) if weights else None

    def input_gradients(self, tape: Tape, dx_BTF: Floats) -> None:
        """Write the gradients of the inputs, after `back`. Dropout is not yet applied."""
        assert self._source is not None
        rows = StridedRows(tape.flat, tape.places.kept, self.kind.kept * self.padded)
        self._to_inputs.run(rows, self._source, dx_BTF)

    def state_gradients(self, tape: Tape, factors: Factors) -> list[Floats]:
        """Return the gradients of the states before the window, after `back`."""
        assert self._source is not None
        lanes, places, padded, units = tape.shape[0], tape.places, self.padded, self.units
        carry = tape.flat[places.carry :][: lanes * (len(self.kind.states) + 1) * padded]
        carried = carry.reshape(lanes, len(self.kind.states) + 1, padded)[:, :-1, :units]
        # The gradient of h includes what reaches it through the gates of the first step.
        (first, of, _), *_ = self.kind.back
        gates = tape.later[:, None] + np.arange(first * padded, (first + len(of)) * padded)
        rows = StridedRows(tape.flat[gates].reshape(-1), 0, len(of) * padded)
        through = np.empty((1, lanes, units), np.float32)
        self._to_states.run(rows, self._source, through)
        if factors.h_BU.size:
            through *= factors.h_BU
        return [
            carried[:, 0] + through[0],
            *(carried[:, k] for k in range(1, len(self.kind.states))),
        ]

    def _weight_gradients(self, tape: Tape) -> list[Floats]:
        kind = self.kind
        of_x, *others = [product.out for product in tape.products]
        kernel = self._in_order([(of_x, kind.x_gates)], self.features)
        of_h = [sweep.gates for sweep in kind.back]
        recurrent = self._in_order(list(zip(others, of_h, strict=False)), self.units)
        biases = []
        if self.bias:
            of_kept, padded = others[-1], self.padded
            of_bias = [(of_kept[:, : len(kind.x_gates) * padded], kind.x_gates)]
            bias = self._in_order(of_bias, 1).reshape(-1)
            if kind.biases == 2:
                ((first, of, _),) = kind.back
                part = of_kept[:, first * padded : (first + len(of)) * padded]
                bias = np.stack([bias, self._in_order([(part, of)], 1)[0]])
            biases = [bias]
        rows = tape.shape[0] * tape.shape[1]
        peepholes = [elementwise_products(c, d, rows, self.units) for c, d in tape.peepholes]
        return [kernel, recurrent, *biases, *peepholes]

    def _in_order(self, parts: Sequence[tuple[Floats, str]], rows: int) -> Floats:
        """Convert gradients of gates, padded and in the tape's order, to Keras's layout."""
        (only, of), *others = parts
        if not others and of == self.kind.gates and self.padded == self.units:
            return only
        ordered = np.empty((rows, len(self.kind.gates), self.units), np.float32)
        for part, gates in parts:
            split = part.reshape(rows, len(gates), self.padded)
            for i, gate in enumerate(self.kind.columns(gates)):
                ordered[:, gate] = split[:, i, : self.units]
        flat: Floats = ordered.reshape(rows, -1)
        return flat
