"""LSTM with layer normalisation over a window of lanes. Gates in the order i, f, c, o (Keras)."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from streamrnn import simd
from streamrnn.kernels import packing, stepwise
from streamrnn.kernels.packed import Packed


class Norm(NamedTuple):
    """What is multiplied by and added to normalised values, (4U,) of gates, (U,) of c."""

    gamma: Any
    beta: Any


def pack(
    kernel_FG: Any,
    recurrent_UG: Any,
    bias_G: Any,
    norms: tuple[Norm, Norm, Norm],
    epsilon: float,
) -> Packed:
    """Weights in Keras' layout -> what `recurrent.run` takes; `bias_G` may be None.

    `norms`: of the input's sums, of the state's, and of c. Its activations: of the gates, of c.
    Its states: [h_BU, c_BU].
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
        stepwise.unless_softmax(
            partial(simd.layer_norm_lstm.entry, n, epsilon),
            partial(stepwise.layer_norm_lstm, kernel_FG, recurrent_UG, bias_G, norms, epsilon),
        ),
        partial(pack, kernel_FG, recurrent_UG, bias_G, norms, epsilon),
        lane_vectors=simd.layer_norm_lstm.LANE_VECTORS,
    )
