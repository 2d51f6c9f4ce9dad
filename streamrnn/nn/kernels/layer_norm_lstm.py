"""LSTM with layer normalisation over a window of lanes. Gates in the order i, f, c, o (Keras)."""

from functools import partial

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn import simd
from streamrnn.nn.kernels import packing, stepwise
from streamrnn.nn.kernels.normalization import Norm
from streamrnn.nn.kernels.packed import Packed


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
            partial(stepwise.layer_norm_lstm, kernel_FG, recurrent_UG, bias_G, norms, epsilon),
        ),
        partial(pack, kernel_FG, recurrent_UG, bias_G, norms, epsilon),
        lane_vectors=simd.layer_norm_lstm.LANE_VECTORS,
    )
