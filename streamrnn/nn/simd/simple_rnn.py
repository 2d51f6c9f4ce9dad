"""SimpleRNN. Kept in training: its output."""

import numpy as np

from streamrnn.nn.simd import recurrent
from streamrnn.nn.simd.activations import derivative_of, function_of
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.bptt import CellPasses, Pass, SweptCell, back_shape
from streamrnn.nn.simd.jit import inline
from streamrnn.nn.simd.names import Spec
from streamrnn.nn.simd.sweep import TileShape
from streamrnn.nn.simd.vector import fma, load, splat, store


def _window(n: int, vectors: int, word: int, activation: Spec) -> Kernel:
    g = function_of(activation)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        store(s, new, g(load(s, z, n)))

    shape = TileShape(n, vectors, sums=1, x_into=(0,), h_into=(0,), word=word)
    return recurrent.window((recurrent.Phase(shape, cell),), states=1)


def _in_training(n: int, ahead: int, back: int, activation: Spec) -> CellPasses:
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


CELLS = {"simple_rnn": SweptCell(_window, _in_training)}
