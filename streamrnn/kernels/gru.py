"""GRU over a window of lanes. Gates in the order z, r, h (Keras)."""

from functools import partial
from typing import Any

import numpy as np

from streamrnn.kernels import call, packing, stepwise
from streamrnn.kernels.activation import Spec
from streamrnn.kernels.call import Packed


def pack(
    kernel_FG: Any, recurrent_UG: Any, bias: Any = None, *, reset_after: bool = True
) -> Packed:
    """Weights in Keras' layout -> what `run` takes.

    `kernel_FG` (F, 3U), `recurrent_UG` (U, 3U), `bias` None, (3U,), or with `reset_after` (2, 3U):
    first of the input, then of the state.
    """
    from streamrnn.kernels.jit import simd

    n, units = simd(), recurrent_UG.shape[0]
    x, h = (np.split(a, 3, axis=-1) for a in (kernel_FG, recurrent_UG))
    both = np.zeros((2, 3 * units), np.float32)
    if bias is not None:
        both[: np.size(bias) // (3 * units)] = np.reshape(bias, (-1, 3 * units))
    bz, br, bh = np.split(both[0], 3)
    sz, sr, sh = np.split(both[1], 3)
    if reset_after:
        v = 1
        weights = packing.weights([(x, h)], n, v)
        starts = packing.starts([[bz + sz, br + sr, bh, sh]], n, v)
    else:
        v = packing.vectors_of(units, n, 2)
        weights = packing.weights([(x[:2], h[:2]), (x[2:], h[2:])], n, v)
        starts = packing.starts([[bz + sz, br + sr], [bh + sh]], n, v)
    name, make = ("gru", _after) if reset_after else ("gru_before", _before)
    return Packed(
        weights,
        starts,
        packing.groups_of(units, n, v),
        lambda f, g: (f"{name}-{n}x{v}", lambda: make(n, v, f, g)),
        lambda f, g: stepwise.gru(kernel_FG, recurrent_UG, both, reset_after, f, g),
        partial(pack, kernel_FG, recurrent_UG, both, reset_after=reset_after),
    )


def run(
    packed: Packed,
    x_BTF: Any,
    lengths_B: Any,
    mask_BT: Any,
    states: list[Any],
    y_BTU: Any,
    *,
    activation: Spec = "tanh",
    recurrent_activation: Spec = "sigmoid",
    zero_masked: bool = False,
) -> None:
    """Advance `states` [h_BU] by up to T steps and write h of each step into `y_BTU`."""
    names = (recurrent_activation, activation)
    call.run(packed, names, x_BTF, lengths_B, mask_BT, states, y_BTU, zero_masked)


def _after(n: int, vectors: int, recurrent_activation: Spec, activation: Spec) -> Any:
    """The reset gate after the product with the state: the candidate has two sums."""
    from streamrnn.kernels import recurrent
    from streamrnn.kernels.functions import activation as function
    from streamrnn.kernels.jit import inline
    from streamrnn.kernels.sweep import Shape
    from streamrnn.kernels.vector import fma, load, store

    f, g = function(recurrent_activation), function(activation)

    @inline
    def cell(s, z, old, new, own):
        update, reset = f(load(s, z, n)), f(load(s, z + n, n))
        candidate = g(fma(reset, load(s, z + 3 * n, n), load(s, z + 2 * n, n)))
        store(s, new, fma(update, load(s, old, n), (1.0 - update) * candidate))

    shape = Shape(n, vectors, sums=4, x_into=(0, 1, 2), h_into=(0, 1, 3))
    return recurrent.window((recurrent.Phase(shape, cell),), others=0)


def _before(n: int, vectors: int, recurrent_activation: Spec, activation: Spec) -> Any:
    """The reset gate before the product: it must be known for all units first, so two sweeps."""
    from streamrnn.kernels import recurrent
    from streamrnn.kernels.functions import activation as function
    from streamrnn.kernels.jit import inline
    from streamrnn.kernels.sweep import OWN, Shape
    from streamrnn.kernels.vector import fma, load, store

    f, g = function(recurrent_activation), function(activation)

    @inline
    def gates(s, z, old, new, own):
        store(s, new, f(load(s, z, n)))  # the update gate waits where the new state will be
        store(s, own, f(load(s, z + n, n)) * load(s, old, n))

    @inline
    def cell(s, z, old, new, own):
        update = load(s, new, n)
        store(s, new, fma(update, load(s, old, n), (1.0 - update) * g(load(s, z, n))))

    both = Shape(n, vectors, sums=2, x_into=(0, 1), h_into=(0, 1))
    last = Shape(n, vectors, sums=1, x_into=(0,), h_into=(0,))
    phases = (recurrent.Phase(both, gates), recurrent.Phase(last, cell, operand=OWN))
    return recurrent.window(phases, others=1)
