"""SimpleRNN, GRU in both forms, and LSTM: the vector functions of their sweeps.

`kernels.swept` has the order of their gates. Of a GRU, training keeps the vectors h (the
candidate), z, r and the state's part of h if the reset gate is applied after the product; z, r, h,
and r times the state if it is applied before.
"""

from functools import partial

import numpy as np

from streamrnn.nn.simd import recurrent
from streamrnn.nn.simd.activations import derivative_of, function_of
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.bptt import CellPasses, Pass, SweptCell, back_shape
from streamrnn.nn.simd.jit import inline
from streamrnn.nn.simd.names import Spec
from streamrnn.nn.simd.sweep import OWN, TileShape
from streamrnn.nn.simd.vector import fma, load, splat, store

_GATES = (0, 1, 2, 3)


def _simple_rnn(n: int, vectors: int, word: int, activation: Spec) -> Kernel:
    g = function_of(activation)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        store(s, new, g(load(s, z, n)))

    shape = TileShape(n, vectors, sums=1, x_into=(0,), h_into=(0,), word=word)
    return recurrent.window((recurrent.Phase(shape, cell),), states=1)


def _simple_rnn_in_training(n: int, ahead: int, back: int, activation: Spec) -> CellPasses:
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
    last = Pass(back_shape(n, back), gradient, fed=0, feeds=1)
    return CellPasses((Pass(shape, cell),), (last,), states=1, kept=1)


def _gru_after(n: int, vectors: int, word: int, gate: Spec, activation: Spec) -> Kernel:
    """Make the kernel with the reset gate after the product: the candidate has two sums."""
    f, g = function_of(gate), function_of(activation)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        update, reset = f(load(s, z, n)), f(load(s, z + n, n))
        candidate = g(fma(reset, load(s, z + 3 * n, n), load(s, z + 2 * n, n)))
        store(s, new, fma(update, load(s, old, n), (1.0 - update) * candidate))

    shape = TileShape(n, vectors, sums=4, x_into=(0, 1, 2), h_into=(0, 1, 3), word=word)
    return recurrent.window((recurrent.Phase(shape, cell),), states=1)


def _gru_before(n: int, vectors: int, word: int, gate: Spec, activation: Spec) -> Kernel:
    """Make the kernel with the reset gate before the product: two sweeps.

    The product needs the reset gates of all units.
    """
    f, g = function_of(gate), function_of(activation)

    @inline
    def gates(s, z, old, new, own, unit, padded):
        store(s, new, f(load(s, z, n)))  # the update gate, until the new state overwrites it
        store(s, own, f(load(s, z + n, n)) * load(s, old, n))

    @inline
    def cell(s, z, old, new, own, unit, padded):
        update = load(s, new, n)
        store(s, new, fma(update, load(s, old, n), (1.0 - update) * g(load(s, z, n))))

    both = TileShape(n, vectors, sums=2, x_into=(0, 1), h_into=(0, 1), word=word)
    last = TileShape(n, vectors, sums=1, x_into=(0,), h_into=(0,), word=word)
    phases = (recurrent.Phase(both, gates), recurrent.Phase(last, cell, operand=OWN))
    return recurrent.window(phases, states=1, kept=1)


def _gru_after_in_training(
    n: int, ahead: int, back: int, gate: Spec, activation: Spec
) -> CellPasses:
    f, g = function_of(gate), function_of(activation)
    df, dg = derivative_of(gate), derivative_of(activation)

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
    last = Pass(back_shape(n, back), gradient, fed=1, feeds=3)
    return CellPasses((Pass(shape, cell),), (last,), states=1, kept=4)


def _gru_before_in_training(
    n: int, ahead: int, back: int, gate: Spec, activation: Spec
) -> CellPasses:
    f, g = function_of(gate), function_of(activation)
    df, dg = derivative_of(gate), derivative_of(activation)

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
    shape = back_shape(n, back)
    return CellPasses(
        (Pass(both, gates), Pass(last, cell, fed=3)),
        (Pass(shape, outside, fed=0, feeds=2), Pass(shape, inside, fed=2, feeds=1)),
        states=1,
        kept=4,
        keeps_fed=True,
    )


def _lstm(
    n: int,
    vectors: int,
    word: int,
    gate: Spec,
    candidate: Spec,
    output: Spec | None = None,
    *,
    peepholes: bool = False,
    coupled: bool = False,
) -> Kernel:
    """Make the kernel; with peepholes a unit's own weights times its c are added to its gates.

    If `coupled`, the forget gate is 1 - i. `output`: the activation of c; None: it is `candidate`.
    """
    f, g = function_of(gate), function_of(candidate)
    h = g if output is None else function_of(output)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        before = load(s, own, n)
        of_i, of_f, of_o = load(s, z, n), load(s, z + n, n), load(s, z + 3 * n, n)
        if peepholes:
            of_i = fma(load(s, unit, n), before, of_i)
            of_f = fma(load(s, unit + padded, n), before, of_f)
        i = f(of_i)
        forget = 1.0 - i if coupled else f(of_f)
        c = fma(i, g(load(s, z + 2 * n, n)), forget * before)
        store(s, own, c)
        if peepholes:
            of_o = fma(load(s, unit + 2 * padded, n), c, of_o)
        store(s, new, f(of_o) * h(c))

    shape = TileShape(n, vectors, sums=4, x_into=_GATES, h_into=_GATES, word=word)
    return recurrent.window((recurrent.Phase(shape, cell),), states=2)


def _lstm_in_training(
    n: int,
    ahead: int,
    back: int,
    gate: Spec,
    candidate: Spec,
    output: Spec | None = None,
    *,
    peepholes: bool = False,
) -> CellPasses:
    f, g = function_of(gate), function_of(candidate)
    df, dg = derivative_of(gate), derivative_of(candidate)
    h, dh_of = (g, dg) if output is None else (function_of(output), derivative_of(output))

    @inline
    def cell(s, z, old, new, own, unit, padded):
        before = load(s, old + padded, n)
        of_i, of_f, of_o = load(s, z, n), load(s, z + n, n), load(s, z + 3 * n, n)
        if peepholes:
            of_i = fma(load(s, unit, n), before, of_i)
            of_f = fma(load(s, unit + padded, n), before, of_f)
        i, forget, new_part = f(of_i), f(of_f), g(load(s, z + 2 * n, n))
        c = fma(i, new_part, forget * before)
        if peepholes:
            of_o = fma(load(s, unit + 2 * padded, n), c, of_o)
        o = f(of_o)
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
        if peepholes:
            dc = fma(of_o, load(s, unit + 2 * padded, n), dc)
        of_i, of_f = dc * new_part * df(i), dc * before * df(forget)
        store(s, own, of_i)
        store(s, own + padded, of_f)
        store(s, own + 2 * padded, dc * i * dg(new_part))
        store(s, own + 3 * padded, of_o)
        store(s, old, splat(np.float32(0), n))
        through = dc * forget
        if peepholes:
            through = fma(of_i, load(s, unit, n), through)
            through = fma(of_f, load(s, unit + padded, n), through)
        store(s, old + padded, through)

    shape = TileShape(n, ahead, sums=4, x_into=_GATES, h_into=_GATES)
    last = Pass(back_shape(n, back), gradient, fed=0, feeds=4)
    return CellPasses((Pass(shape, cell),), (last,), states=2, kept=4)


CELLS = {
    "simple_rnn": SweptCell(_simple_rnn, _simple_rnn_in_training),
    "gru": SweptCell(_gru_after, _gru_after_in_training),
    "gru_before": SweptCell(_gru_before, _gru_before_in_training),
    "lstm": SweptCell(_lstm, _lstm_in_training),
    "peephole_lstm": SweptCell(
        partial(_lstm, peepholes=True), partial(_lstm_in_training, peepholes=True)
    ),
    "coupled_lstm": SweptCell(partial(_lstm, peepholes=True, coupled=True)),
}
