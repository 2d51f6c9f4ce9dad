"""GRU over a window of lanes. Gates in the order z, r, h (Keras)."""

from functools import partial

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn import simd
from streamrnn.nn.kernels import packing, stepwise
from streamrnn.nn.kernels.packed import Packed
from streamrnn.nn.kernels.packing import WeightsLike


def pack(
    kernel_FG: WeightsLike,
    recurrent_UG: WeightsLike,
    bias: Floats | None = None,
    *,
    reset_after: bool = True,
) -> Packed:
    """Pack weights in Keras's layout for `recurrent.run`.

    `kernel_FG` (F, 3U), `recurrent_UG` (U, 3U), `bias` None, (3U,), or with `reset_after` (2, 3U):
    first of the input, then of the state. Activations: of the gates, of h. State: [h_BU]. Kernels
    may be integers.
    """
    n, units = simd.jit.width(), recurrent_UG.shape[0]
    x, h = (packing.by_gate(a, 3) for a in (kernel_FG, recurrent_UG))
    word, rest = packing.word_of(kernel_FG), packing.rest_of(kernel_FG, recurrent_UG)
    both = np.zeros((2, 3 * units), np.float32)
    if bias is not None:
        both[: np.size(bias) // (3 * units)] = np.reshape(bias, (-1, 3 * units))
    bz, br, bh = np.split(both[0], 3)
    sz, sr, sh = np.split(both[1], 3)
    if reset_after:
        v = 1
        weights = packing.packed([(x, h)], [[bz + sz, br + sr, bh, sh]], n, v, rest=rest)
    else:
        v = packing.vectors_a_group(units, n, 2)
        sweeps = [(x[:2], h[:2]), (x[2:], h[2:])]
        starts = [[bz + sz, br + sr], [bh + sh]]
        weights = packing.packed(sweeps, starts, n, v, rest=rest)
    return Packed(
        weights,
        packing.groups_of(units, n, v),
        stepwise.unless_row_wise(
            partial(simd.gru.entry, n, v, reset_after, word),
            partial(stepwise.gru, kernel_FG, recurrent_UG, both, reset_after),
        ),
        partial(pack, kernel_FG, recurrent_UG, both, reset_after=reset_after),
        lane_vectors=2 if reset_after else 3,
        word=word,
    )
