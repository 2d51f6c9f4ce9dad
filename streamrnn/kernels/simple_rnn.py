"""SimpleRNN over a window of lanes: h' = g(x K + b + h R)."""

from functools import partial
from typing import Any

import numpy as np

from streamrnn.kernels import call, packing, stepwise
from streamrnn.kernels.activation import Spec
from streamrnn.kernels.call import Packed


def pack(kernel_FU: Any, recurrent_UU: Any, bias_U: Any = None) -> Packed:
    """Weights in Keras' layout (F, U), (U, U), (U,) or None -> what `run` takes."""
    from streamrnn.kernels.jit import simd

    n, units = simd(), recurrent_UU.shape[0]
    if bias_U is None:
        bias_U = np.zeros(units, np.float32)
    v = packing.vectors_of(units, n, 1)
    weights = packing.weights([([kernel_FU], [recurrent_UU])], n, v)
    bias = packing.starts([[bias_U]], n, v)
    return Packed(
        weights,
        bias,
        packing.groups_of(units, n, v),
        lambda g: (f"simple_rnn-{n}x{v}", lambda: _kernel(n, v, g)),
        lambda g: stepwise.simple_rnn(kernel_FU, recurrent_UU, bias_U, g),
        partial(pack, kernel_FU, recurrent_UU, bias_U),
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
    zero_masked: bool = False,
) -> None:
    """Advance `states` [h_BU] by up to T steps and write h of each step into `y_BTU`."""
    call.run(packed, (activation,), x_BTF, lengths_B, mask_BT, states, y_BTU, zero_masked)


def _kernel(n: int, vectors: int, activation: Spec) -> Any:
    from streamrnn.kernels import recurrent
    from streamrnn.kernels.functions import activation as function
    from streamrnn.kernels.jit import inline
    from streamrnn.kernels.sweep import Shape
    from streamrnn.kernels.vector import load, store

    g = function(activation)

    @inline
    def cell(s, z, old, new, own):
        store(s, new, g(load(s, z, n)))

    shape = Shape(n, vectors, sums=1, x_into=(0,), h_into=(0,))
    return recurrent.window((recurrent.Phase(shape, cell),), others=0)
