"""LSTM over a window of lanes. Gates in the order i, f, c, o (Keras)."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn import simd
from streamrnn.nn.kernels import packing, stepwise
from streamrnn.nn.kernels.packed import Packed
from streamrnn.nn.kernels.packing import WeightsLike


def pack(kernel_FG: WeightsLike, recurrent_UG: WeightsLike, bias_G: Floats | None = None) -> Packed:
    """Pack weights in Keras's layout, (F, 4U), (U, 4U), (4U,) or None, for `recurrent.run`.

    Activations: of the gates, of c. States: [h_BU, c_BU]. Weights may be integers.
    """
    n, units = simd.jit.width(), recurrent_UG.shape[0]
    if bias_G is None:
        bias_G = np.zeros(4 * units, np.float32)
    x, h, b = (packing.by_gate(a, 4) for a in (kernel_FG, recurrent_UG, bias_G))
    word, rest = packing.word_of(kernel_FG), packing.rest_of(kernel_FG, recurrent_UG)
    return Packed(
        packing.packed([(x, h)], [b], n, 1, rest=rest),
        packing.groups_of(units, n, 1),
        stepwise.unless_row_wise(
            partial(simd.lstm.entry, n, word),
            partial(stepwise.lstm, kernel_FG, recurrent_UG, bias_G),
        ),
        partial(pack, kernel_FG, recurrent_UG, bias_G),
        lane_vectors=3,
        word=word,
    )


def pack_peephole(
    kernel_FG: Floats,
    recurrent_UG: Floats,
    bias_G: Floats | None = None,
    peepholes_3U: Floats | Sequence[Floats] | None = None,
    *,
    coupled: bool = False,
) -> Packed:
    """Pack the same with peepholes (Gers and Schmidhuber 2000) of i, f and o; None: zeros.

    i and f use the c before the step, o the c after it. If `coupled`, f is 1 - i. Activations: of
    the gates, of the candidate, of c.
    """
    n, units = simd.jit.width(), recurrent_UG.shape[0]
    bias_G = np.zeros(4 * units, np.float32) if bias_G is None else bias_G
    own = np.zeros((3, units), np.float32) if peepholes_3U is None else peepholes_3U
    x, h, b = (np.split(a, 4, axis=-1) for a in (kernel_FG, recurrent_UG, bias_G))
    return Packed(
        packing.packed([(x, h)], [b], n, 1, list(own)),
        packing.groups_of(units, n, 1),
        stepwise.unless_row_wise(
            partial(simd.lstm.peephole_entry, n, coupled),
            partial(stepwise.peephole_lstm, kernel_FG, recurrent_UG, bias_G, own, coupled),
        ),
        partial(pack_peephole, kernel_FG, recurrent_UG, bias_G, own, coupled=coupled),
        lane_vectors=3,
    )
