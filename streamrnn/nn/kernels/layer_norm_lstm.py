"""LSTM with layer normalisation over a window of lanes. Gates in the order i, f, c, o (Keras)."""

from functools import partial

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn import simd
from streamrnn.nn.kernels import normalization, packing, stepwise
from streamrnn.nn.kernels.activation import Spec, applied
from streamrnn.nn.kernels.normalization import Norm
from streamrnn.nn.kernels.packed import Packed


def _step(
    kernel_FG: Floats,
    recurrent_UG: Floats,
    bias_G: Floats,
    norms: tuple[Norm, Norm, Norm],
    epsilon: float,
    f: Spec,
    g: Spec,
) -> stepwise.CellStep:
    of_x, of_h, of_c = norms
    zeros = np.zeros_like(bias_G)
    x_part, h_part = (
        stepwise.dense_product(kernel_FG, zeros),
        stepwise.dense_product(recurrent_UG, zeros),
    )

    def normalized(x_NU: Floats, norm: Norm) -> Floats:
        y_NU = np.empty_like(x_NU)
        normalization.layer_norm(x_NU, norm.gamma, norm.beta, epsilon, y_NU)
        return y_NU

    def step(x, h, c):
        z = normalized(x_part(x), of_x) + normalized(h_part(h), of_h) + bias_G
        i, forget, new, o = np.split(z, 4, axis=1)
        c = normalized(applied(f, forget) * c + applied(f, i) * applied(g, new), of_c)
        return applied(f, o) * applied(g, c), c

    return step


def pack(
    kernel_FG: Floats,
    recurrent_UG: Floats,
    bias_G: Floats | None,
    norms: tuple[Norm, Norm, Norm],
    epsilon: float,
) -> Packed:
    """Pack weights in Keras's layout for `recurrent.run`; `bias_G` may be None.

    `norms`: of the input's sums, of the state's, and of c. Activations: of the gates, of c. States:
    [h_BU, c_BU].
    """
    n, units = simd.jit.width(), recurrent_UG.shape[0]
    if bias_G is None:
        bias_G = np.zeros(4 * units, np.float32)
    x, h = (np.split(a, 4, axis=-1) for a in (kernel_FG, recurrent_UG))
    of_x, of_h, of_c = norms
    gates = (of_x.gamma, of_x.beta, of_h.gamma, of_h.beta, bias_G)
    own = [*np.concatenate(gates).reshape(20, units), of_c.gamma, of_c.beta]
    nothing = np.zeros((8, units), np.float32)
    return Packed(
        packing.packed([(x, h)], [list(nothing)], n, 1, own),
        packing.groups_of(units, n, 1),
        stepwise.unless_row_wise(
            partial(simd.layer_norm_lstm.entry, n, epsilon),
            partial(_step, kernel_FG, recurrent_UG, bias_G, norms, epsilon),
        ),
        partial(pack, kernel_FG, recurrent_UG, bias_G, norms, epsilon),
        lane_vectors=simd.layer_norm_lstm.LANE_VECTORS,
    )
