"""SimpleRNN."""

from streamrnn.nn.simd import recurrent
from streamrnn.nn.simd.activations import function_of
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.jit import inline
from streamrnn.nn.simd.names import Spec
from streamrnn.nn.simd.sweep import TileShape
from streamrnn.nn.simd.vector import load, store


def entry(n: int, vectors: int, word: int, activations: tuple[Spec, ...]) -> Kernel:
    """Return the kernel for groups of `vectors` of `n` floats; activation of h."""
    name = f"simple_rnn-{n}x{vectors}"
    return recurrent.entry(
        name, activations, 1, lambda: _kernel(n, vectors, word, *activations), word
    )


def _kernel(n: int, vectors: int, word: int, activation: Spec) -> Kernel:
    g = function_of(activation)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        store(s, new, g(load(s, z, n)))

    shape = TileShape(n, vectors, sums=1, x_into=(0,), h_into=(0,), word=word)
    return recurrent.window((recurrent.Phase(shape, cell),), states=1)
