"""LSTM over a window of lanes. Gates in the order i, f, c, o (Keras)."""

from functools import partial
from typing import Any

import numpy as np

from streamrnn import simd
from streamrnn.kernels import packing, stepwise
from streamrnn.kernels.packed import Packed


def pack(kernel_FG: Any, recurrent_UG: Any, bias_G: Any = None) -> Packed:
    """Weights in Keras' layout (F, 4U), (U, 4U), (4U,) or None -> what `recurrent.run` takes.

    Its activations: of the gates, of c. Its states: [h_BU, c_BU].
    """
    n, units = simd.jit.width(), recurrent_UG.shape[0]
    if bias_G is None:
        bias_G = np.zeros(4 * units, np.float32)
    x, h, b = (np.split(a, 4, axis=-1) for a in (kernel_FG, recurrent_UG, bias_G))
    return Packed(
        packing.packed([(x, h)], [b], n, 1),
        packing.groups_of(units, n, 1),
        stepwise.unless_softmax(
            partial(simd.lstm.entry, n), partial(stepwise.lstm, kernel_FG, recurrent_UG, bias_G)
        ),
        partial(pack, kernel_FG, recurrent_UG, bias_G),
        lane_vectors=3,
    )
