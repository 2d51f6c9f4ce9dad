"""SimpleRNN over a window of lanes: h' = g(x K + b + h R)."""

from functools import partial

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn import simd
from streamrnn.nn.kernels import packing, stepwise
from streamrnn.nn.kernels.packed import Packed
from streamrnn.nn.kernels.packing import WeightsLike


def pack(kernel_FU: WeightsLike, recurrent_UU: WeightsLike, bias_U: Floats | None = None) -> Packed:
    """Pack weights in Keras's layout, (F, U), (U, U), (U,) or None, for `recurrent.run`.

    Activation: of h. State: [h_BU]. Weights may be integers.
    """
    n, units = simd.jit.width(), recurrent_UU.shape[0]
    if bias_U is None:
        bias_U = np.zeros(units, np.float32)
    v = packing.vectors_a_group(units, n, 1)
    x, h = (packing.by_gate(a, 1) for a in (kernel_FU, recurrent_UU))
    word, rest = packing.word_of(kernel_FU), packing.rest_of(kernel_FU, recurrent_UU)
    return Packed(
        packing.packed([(x, h)], [[bias_U]], n, v, rest=rest),
        packing.groups_of(units, n, v),
        stepwise.unless_row_wise(
            partial(simd.simple_rnn.entry, n, v, word),
            partial(stepwise.simple_rnn, kernel_FU, recurrent_UU, bias_U),
        ),
        partial(pack, kernel_FU, recurrent_UU, bias_U),
        lane_vectors=2,
        word=word,
    )
