"""GRU in both forms. Gates in the order z, r, h (Keras).

Vectors kept in training, where h is the candidate: if the reset gate is applied after the product,
h, z, r, and the state's part of h; if before it, z, r, h, and r times the state.
"""

from streamrnn.nn.simd import recurrent
from streamrnn.nn.simd.activations import derivative_of, function_of
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.bptt import CellPasses, Pass, SweptCell, back_shape
from streamrnn.nn.simd.jit import inline
from streamrnn.nn.simd.names import Spec
from streamrnn.nn.simd.sweep import OWN, TileShape
from streamrnn.nn.simd.vector import fma, load, store


def _after(n: int, vectors: int, word: int, recurrent_activation: Spec, activation: Spec) -> Kernel:
    """Make the kernel with the reset gate after the product: the candidate has two sums."""
    f, g = function_of(recurrent_activation), function_of(activation)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        update, reset = f(load(s, z, n)), f(load(s, z + n, n))
        candidate = g(fma(reset, load(s, z + 3 * n, n), load(s, z + 2 * n, n)))
        store(s, new, fma(update, load(s, old, n), (1.0 - update) * candidate))

    shape = TileShape(n, vectors, sums=4, x_into=(0, 1, 2), h_into=(0, 1, 3), word=word)
    return recurrent.window((recurrent.Phase(shape, cell),), states=1)


def _before(
    n: int, vectors: int, word: int, recurrent_activation: Spec, activation: Spec
) -> Kernel:
    """Make the kernel with the reset gate before the product: two sweeps.

    The product needs the reset gates of all units.
    """
    f, g = function_of(recurrent_activation), function_of(activation)

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


def _after_in_training(
    n: int, ahead: int, back: int, recurrent_activation: Spec, activation: Spec
) -> CellPasses:
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
    last = Pass(back_shape(n, back), gradient, fed=1, feeds=3)
    return CellPasses((Pass(shape, cell),), (last,), states=1, kept=4)


def _before_in_training(
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
    shape = back_shape(n, back)
    return CellPasses(
        (Pass(both, gates), Pass(last, cell, fed=3)),
        (Pass(shape, outside, fed=0, feeds=2), Pass(shape, inside, fed=2, feeds=1)),
        states=1,
        kept=4,
        keeps_fed=True,
    )


CELLS = {
    "gru": SweptCell(_after, _after_in_training),
    "gru_before": SweptCell(_before, _before_in_training),
}
