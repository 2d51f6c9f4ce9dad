"""LSTM. Gates in the order i, f, c, o (Keras)."""

from collections.abc import Callable
from typing import Any

from streamrnn.simd import recurrent
from streamrnn.simd.functions import activation as function
from streamrnn.simd.jit import inline
from streamrnn.simd.names import Spec
from streamrnn.simd.sweep import Shape
from streamrnn.simd.vector import fma, load, store


def entry(n: int, activations: tuple[Spec, ...]) -> Callable[..., None]:
    """The kernel for vectors of `n` floats, and the activations of the gates and of c."""
    return recurrent.entry(f"lstm-{n}", activations, 2, lambda: _kernel(n, *activations))


def _kernel(n: int, recurrent_activation: Spec, activation: Spec) -> Any:
    f, g = function(recurrent_activation), function(activation)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        forget = f(load(s, z + n, n)) * load(s, own, n)
        c = fma(f(load(s, z, n)), g(load(s, z + 2 * n, n)), forget)
        store(s, own, c)
        store(s, new, f(load(s, z + 3 * n, n)) * g(c))

    gates = (0, 1, 2, 3)
    shape = Shape(n, vectors=1, sums=4, x_into=gates, h_into=gates)
    return recurrent.window((recurrent.Phase(shape, cell),), states=2)
