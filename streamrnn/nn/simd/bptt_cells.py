"""The cells of recurrent layers in training: forward with gates kept, and their gradients.

A cell of the way back gets in `old` the lane's carry (the gradient of h, then of the other states,
then the factors of h), in `new` the states before the step, in `own` the kept gates, and in `z` the
gradients of the next step's gates times the recurrent weights. It replaces the kept gates by the
gradients of their sums. `padded` floats lie between vectors of one row.

Rows kept: LSTM, also with peepholes, i, f, c, o; GRU with reset_after h, z, r, and the state's part
of h, else z, r, h, and r times the state; SimpleRNN its output.
"""

from collections.abc import Callable

import numpy as np

from streamrnn.nn.simd import bptt, jit
from streamrnn.nn.simd.activations import derivative_of, function_of
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.bptt import CellPasses, Pass
from streamrnn.nn.simd.jit import inline
from streamrnn.nn.simd.names import Spec, label
from streamrnn.nn.simd.sweep import TileShape
from streamrnn.nn.simd.vector import fma, load, splat, store

_GATES = (0, 1, 2, 3)


def entries(
    kind: str, n: int, ahead: int, back: int, activations: tuple[Spec, ...]
) -> tuple[Kernel, Kernel]:
    """Return the kernels forward and back of a kind of cell.

    `ahead`, `back`: vectors of `n` floats in a group of units, of the sweeps forward (1 for LSTM
    and GRU with reset_after) and back. Activations: those of `kernels.<cell>.pack`.
    """
    make, states = _KINDS[kind]
    names = "-".join(map(label, activations))
    signatures = bptt.signatures(states)
    return (
        jit.compiled(
            f"forward-{kind}-{n}x{ahead}-{names}",
            lambda: bptt.forward(make(n, ahead, back, *activations)),
            signatures[0],
        ),
        jit.compiled(
            f"back-{kind}-{n}x{back}-{names}",
            lambda: bptt.back(make(n, ahead, back, *activations)),
            signatures[1],
        ),
    )


def _back_shape(n: int, vectors: int) -> TileShape:
    return TileShape(n, vectors, sums=1, x_into=(), h_into=(0,))


def _lstm(
    n: int, ahead: int, back: int, recurrent_activation: Spec, activation: Spec
) -> CellPasses:
    f, g = function_of(recurrent_activation), function_of(activation)
    df, dg = derivative_of(recurrent_activation), derivative_of(activation)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        i, forget = f(load(s, z, n)), f(load(s, z + n, n))
        candidate, o = g(load(s, z + 2 * n, n)), f(load(s, z + 3 * n, n))
        c = fma(i, candidate, forget * load(s, old + padded, n))
        store(s, own, i)
        store(s, own + padded, forget)
        store(s, own + 2 * padded, candidate)
        store(s, own + 3 * padded, o)
        store(s, new + padded, c)
        store(s, new, o * g(c))

    @inline
    def gradient(s, z, old, new, own, unit, padded):
        dh = fma(load(s, z, n), load(s, old + 2 * padded, n), load(s, old, n))
        i, forget = load(s, own, n), load(s, own + padded, n)
        candidate, o = load(s, own + 2 * padded, n), load(s, own + 3 * padded, n)
        before = load(s, new + padded, n)
        y = g(fma(i, candidate, forget * before))
        dc = fma(dh * o, dg(y), load(s, old + padded, n))
        store(s, own, dc * candidate * df(i))
        store(s, own + padded, dc * before * df(forget))
        store(s, own + 2 * padded, dc * i * dg(candidate))
        store(s, own + 3 * padded, dh * y * df(o))
        store(s, old, splat(np.float32(0), n))
        store(s, old + padded, dc * forget)

    shape = TileShape(n, ahead, sums=4, x_into=_GATES, h_into=_GATES)
    last = Pass(_back_shape(n, back), gradient, fed=0, feeds=4)
    return CellPasses((Pass(shape, cell),), (last,), states=2, kept=4)


def _peephole_lstm(
    n: int, ahead: int, back: int, gate: Spec, candidate: Spec, output: Spec
) -> CellPasses:
    f, g, h = function_of(gate), function_of(candidate), function_of(output)
    df, dg, dh_of = derivative_of(gate), derivative_of(candidate), derivative_of(output)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        before = load(s, old + padded, n)
        i = f(fma(load(s, unit, n), before, load(s, z, n)))
        forget = f(fma(load(s, unit + padded, n), before, load(s, z + n, n)))
        new_part = g(load(s, z + 2 * n, n))
        c = fma(i, new_part, forget * before)
        o = f(fma(load(s, unit + 2 * padded, n), c, load(s, z + 3 * n, n)))
        store(s, own, i)
        store(s, own + padded, forget)
        store(s, own + 2 * padded, new_part)
        store(s, own + 3 * padded, o)
        store(s, new + padded, c)
        store(s, new, o * h(c))

    @inline
    def gradient(s, z, old, new, own, unit, padded):
        dh = fma(load(s, z, n), load(s, old + 2 * padded, n), load(s, old, n))
        i, forget = load(s, own, n), load(s, own + padded, n)
        new_part, o = load(s, own + 2 * padded, n), load(s, own + 3 * padded, n)
        before = load(s, new + padded, n)
        y = h(fma(i, new_part, forget * before))
        of_o = dh * y * df(o)
        dc = fma(dh * o, dh_of(y), load(s, old + padded, n))
        dc = fma(of_o, load(s, unit + 2 * padded, n), dc)
        of_i, of_f = dc * new_part * df(i), dc * before * df(forget)
        store(s, own, of_i)
        store(s, own + padded, of_f)
        store(s, own + 2 * padded, dc * i * dg(new_part))
        store(s, own + 3 * padded, of_o)
        store(s, old, splat(np.float32(0), n))
        through = fma(of_i, load(s, unit, n), dc * forget)
        store(s, old + padded, fma(of_f, load(s, unit + padded, n), through))

    shape = TileShape(n, ahead, sums=4, x_into=_GATES, h_into=_GATES)
    last = Pass(_back_shape(n, back), gradient, fed=0, feeds=4)
    return CellPasses((Pass(shape, cell),), (last,), states=2, kept=4)


def _gru(n: int, ahead: int, back: int, recurrent_activation: Spec, activation: Spec) -> CellPasses:
    f, g = function_of(recurrent_activation), function_of(activation)
    df, dg = derivative_of(recurrent_activation), derivative_of(activation)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        update, reset, part = f(load(s, z, n)), f(load(s, z + n, n)), load(s, z + 3 * n, n)
        candidate = g(fma(reset, part, load(s, z + 2 * n, n)))
        store(s, own, candidate)
        store(s, own + padded, update)
        store(s, own + 2 * padded, reset)
        store(s, own + 3 * padded, part)
        store(s, new, fma(update, load(s, old, n), (1.0 - update) * candidate))

    @inline
    def gradient(s, z, old, new, own, unit, padded):
        dh = fma(load(s, z, n), load(s, old + padded, n), load(s, old, n))
        candidate, update = load(s, own, n), load(s, own + padded, n)
        reset, part = load(s, own + 2 * padded, n), load(s, own + 3 * padded, n)
        da = dh * (1.0 - update) * dg(candidate)
        store(s, own, da)
        store(s, own + padded, dh * (load(s, new, n) - candidate) * df(update))
        store(s, own + 2 * padded, da * part * df(reset))
        store(s, own + 3 * padded, da * reset)
        store(s, old, dh * update)

    shape = TileShape(n, ahead, sums=4, x_into=(0, 1, 2), h_into=(0, 1, 3))
    last = Pass(_back_shape(n, back), gradient, fed=1, feeds=3)
    return CellPasses((Pass(shape, cell),), (last,), states=1, kept=4)


def _gru_before(
    n: int, ahead: int, back: int, recurrent_activation: Spec, activation: Spec
) -> CellPasses:
    f, g = function_of(recurrent_activation), function_of(activation)
    df, dg = derivative_of(recurrent_activation), derivative_of(activation)

    @inline
    def gates(s, z, old, new, own, unit, padded):
        reset = f(load(s, z + n, n))
        store(s, own, f(load(s, z, n)))
        store(s, own + padded, reset)
        store(s, own + 3 * padded, reset * load(s, old + padded, n))

    @inline
    def cell(s, z, old, new, own, unit, padded):
        update, candidate = load(s, own, n), g(load(s, z, n))
        store(s, own + 2 * padded, candidate)
        store(s, new, fma(update, load(s, old, n), (1.0 - update) * candidate))

    @inline
    def outside(s, z, old, new, own, unit, padded):
        dh = fma(load(s, z, n), load(s, old + padded, n), load(s, old, n))
        update, candidate = load(s, own, n), load(s, own + 2 * padded, n)
        store(s, own, dh * (load(s, new, n) - candidate) * df(update))
        store(s, own + 2 * padded, dh * (1.0 - update) * dg(candidate))
        store(s, old, dh * update)

    @inline
    def inside(s, z, old, new, own, unit, padded):
        reset, product = load(s, own + padded, n), load(s, z, n)
        store(s, own + padded, product * load(s, new + padded, n) * df(reset))
        store(s, old, fma(product * reset, load(s, old + padded, n), load(s, old, n)))

    both = TileShape(n, ahead, sums=2, x_into=(0, 1), h_into=(0, 1))
    last = TileShape(n, ahead, sums=1, x_into=(0,), h_into=(0,))
    shape = _back_shape(n, back)
    return CellPasses(
        (Pass(both, gates), Pass(last, cell, fed=3)),
        (Pass(shape, outside, fed=0, feeds=2), Pass(shape, inside, fed=2, feeds=1)),
        states=1,
        kept=4,
        keeps_fed=True,
    )


def _simple_rnn(n: int, ahead: int, back: int, activation: Spec) -> CellPasses:
    g, dg = function_of(activation), derivative_of(activation)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        h = g(load(s, z, n))
        store(s, own, h)
        store(s, new, h)

    @inline
    def gradient(s, z, old, new, own, unit, padded):
        dh = fma(load(s, z, n), load(s, old + padded, n), load(s, old, n))
        store(s, own, dh * dg(load(s, own, n)))
        store(s, old, splat(np.float32(0), n))

    shape = TileShape(n, ahead, sums=1, x_into=(0,), h_into=(0,))
    last = Pass(_back_shape(n, back), gradient, fed=0, feeds=1)
    return CellPasses((Pass(shape, cell),), (last,), states=1, kept=1)


_KINDS: dict[str, tuple[Callable[..., CellPasses], int]] = {
    "lstm": (_lstm, 2),
    "gru": (_gru, 1),
    "gru_before": (_gru_before, 1),
    "peephole_lstm": (_peephole_lstm, 2),
    "simple_rnn": (_simple_rnn, 1),
}
