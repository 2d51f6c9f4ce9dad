"""SimpleRNN over a window of lanes: h' = g(x K + b + h R)."""

from functools import partial

import numpy as np

from streamrnn import simd
from streamrnn.arrays import Floats
from streamrnn.kernels import packing, stepwise
from streamrnn.kernels.packed import Packed


def pack(kernel_FU: Floats, recurrent_UU: Floats, bias_U: Floats | None = None) -> Packed:
    """Pack weights in Keras's layout, (F, U), (U, U), (U,) or None, for `recurrent.run`.

    Activation: of h. State: [h_BU].
    """
    n, units = simd.jit.width(), recurrent_UU.shape[0]
    if bias_U is None:
        bias_U = np.zeros(units, np.float32)
    v = packing.vectors_a_group(units, n, 1)
    return Packed(
        packing.packed([([kernel_FU], [recurrent_UU])], [[bias_U]], n, v),
        packing.groups_of(units, n, v),
        stepwise.unless_row_wise(
            partial(simd.simple_rnn.entry, n, v),
            partial(stepwise.simple_rnn, kernel_FU, recurrent_UU, bias_U),
        ),
        partial(pack, kernel_FU, recurrent_UU, bias_U),
        lane_vectors=2,
    )
