"""LSTM over a window of lanes. Gates in the order i, f, c, o (Keras)."""

from functools import partial
from typing import Any

import numpy as np

from streamrnn.kernels import call, packing, stepwise
from streamrnn.kernels.activation import Spec
from streamrnn.kernels.call import Packed


def pack(kernel_FG: Any, recurrent_UG: Any, bias_G: Any = None) -> Packed:
    """Weights in Keras' layout (F, 4U), (U, 4U), (4U,) or None -> what `run` takes."""
    from streamrnn.kernels.jit import simd

    n, units = simd(), recurrent_UG.shape[0]
    if bias_G is None:
        bias_G = np.zeros(4 * units, np.float32)
    x, h, b = (np.split(a, 4, axis=-1) for a in (kernel_FG, recurrent_UG, bias_G))
    weights, bias = packing.weights([(x, h)], n, 1), packing.starts([b], n, 1)
    return Packed(
        weights,
        bias,
        packing.groups_of(units, n, 1),
        lambda f, g: (f"lstm-{n}", lambda: _kernel(n, f, g)),
        lambda f, g: stepwise.lstm(kernel_FG, recurrent_UG, bias_G, f, g),
        partial(pack, kernel_FG, recurrent_UG, bias_G),
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
    """Advance `states` [h_BU, c_BU] by up to T steps and write h of each step into `y_BTU`."""
    call.run(
        packed,
        (recurrent_activation, activation),
        x_BTF,
        lengths_B,
        mask_BT,
        states,
        y_BTU,
        zero_masked,
    )


def _kernel(n: int, recurrent_activation: Spec, activation: Spec) -> Any:
    from streamrnn.kernels import recurrent
    from streamrnn.kernels.functions import activation as function
    from streamrnn.kernels.jit import inline
    from streamrnn.kernels.sweep import Shape
    from streamrnn.kernels.vector import fma, load, store

    f, g = function(recurrent_activation), function(activation)

    @inline
    def cell(s, z, old, new, own):
        forget = f(load(s, z + n, n)) * load(s, own, n)
        c = fma(f(load(s, z, n)), g(load(s, z + 2 * n, n)), forget)
        store(s, own, c)
        store(s, new, f(load(s, z + 3 * n, n)) * g(c))

    gates = (0, 1, 2, 3)
    shape = Shape(n, vectors=1, sums=4, x_into=gates, h_into=gates)
    return recurrent.window((recurrent.Phase(shape, cell),), others=1)
