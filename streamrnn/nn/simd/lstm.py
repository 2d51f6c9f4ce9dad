"""LSTM. Gates in the order i, f, c, o (Keras)."""

from streamrnn.nn.simd import recurrent
from streamrnn.nn.simd.activations import function_of
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.jit import Inlined, inline
from streamrnn.nn.simd.names import Spec
from streamrnn.nn.simd.sweep import TileShape
from streamrnn.nn.simd.vector import fma, load, store

_GATES = (0, 1, 2, 3)


def entry(n: int, word: int, activations: tuple[Spec, ...]) -> Kernel:
    """Return the kernel for vectors of `n` floats; activations of the gates and of c.

    `word`: weights in 32 bits, 1 (float32), 2 (int16) or 4 (int8); so in the other cells.
    """
    return recurrent.entry(
        f"lstm-{n}", activations, 2, lambda: _window(n, _cell(n, *activations), word), word
    )


def peephole_entry(n: int, coupled: bool, activations: tuple[Spec, ...]) -> Kernel:
    """Return the kernel with peepholes, which are a unit's own weights.

    Activations of the gates, of the candidate and of c. If `coupled`, the forget gate is 1 - i.
    """
    name = f"lstm_coupled-{n}" if coupled else f"lstm_peephole-{n}"
    return recurrent.entry(
        name, activations, 2, lambda: _window(n, _peephole_cell(n, coupled, *activations))
    )


def _window(n: int, cell: Inlined, word: int = 1) -> Kernel:
    shape = TileShape(n, vectors=1, sums=4, x_into=_GATES, h_into=_GATES, word=word)
    return recurrent.window((recurrent.Phase(shape, cell),), states=2)


def _cell(n: int, recurrent_activation: Spec, activation: Spec) -> Inlined:
    f, g = function_of(recurrent_activation), function_of(activation)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        forget = f(load(s, z + n, n)) * load(s, own, n)
        c = fma(f(load(s, z, n)), g(load(s, z + 2 * n, n)), forget)
        store(s, own, c)
        store(s, new, f(load(s, z + 3 * n, n)) * g(c))

    return cell


def _peephole_cell(n: int, coupled: bool, gate: Spec, candidate: Spec, output: Spec) -> Inlined:
    f, g, h = function_of(gate), function_of(candidate), function_of(output)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        before = load(s, own, n)
        i = f(fma(load(s, unit, n), before, load(s, z, n)))
        if coupled:
            forget = 1.0 - i
        else:
            forget = f(fma(load(s, unit + padded, n), before, load(s, z + n, n)))
        c = fma(i, g(load(s, z + 2 * n, n)), forget * before)
        store(s, own, c)
        store(s, new, f(fma(load(s, unit + 2 * padded, n), c, load(s, z + 3 * n, n))) * h(c))

    return cell
