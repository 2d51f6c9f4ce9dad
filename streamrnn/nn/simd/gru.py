"""GRU in both forms. Gates in the order z, r, h (Keras)."""

from streamrnn.nn.simd import recurrent
from streamrnn.nn.simd.activations import function_of
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.jit import inline
from streamrnn.nn.simd.names import Spec
from streamrnn.nn.simd.sweep import OWN, TileShape
from streamrnn.nn.simd.vector import fma, load, store


def entry(
    n: int, vectors: int, reset_after: bool, word: int, activations: tuple[Spec, ...]
) -> Kernel:
    """Return the kernel for groups of `vectors` of `n` floats; activations of gates and of h."""
    name, make = ("gru", _after) if reset_after else ("gru_before", _before)
    full = f"{name}-{n}x{vectors}"
    return recurrent.entry(full, activations, 1, lambda: make(n, vectors, word, *activations), word)


def _after(n: int, vectors: int, word: int, recurrent_activation: Spec, activation: Spec) -> Kernel:
    """Apply the reset gate after the product with the state: the candidate has two sums."""
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
    """Apply the reset gate before the product, which needs it for all units: two sweeps."""
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
