"""LSTM. Gates in the order i, f, c, o (Keras), which are the vectors kept in training."""

from functools import partial

import numpy as np

from streamrnn.nn.simd import recurrent
from streamrnn.nn.simd.activations import derivative_of, function_of
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.bptt import CellPasses, Pass, SweptCell, back_shape
from streamrnn.nn.simd.jit import inline
from streamrnn.nn.simd.names import Spec
from streamrnn.nn.simd.sweep import TileShape
from streamrnn.nn.simd.vector import fma, load, splat, store

_GATES = (0, 1, 2, 3)


def _window(
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


def _in_training(
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
    "lstm": SweptCell(_window, _in_training),
    "peephole_lstm": SweptCell(
        partial(_window, peepholes=True), partial(_in_training, peepholes=True)
    ),
    "coupled_lstm": SweptCell(partial(_window, peepholes=True, coupled=True)),
}
