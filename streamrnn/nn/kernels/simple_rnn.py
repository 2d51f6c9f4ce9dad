"""SimpleRNN over a window of lanes: h' = g(x K + b + h R)."""

from collections.abc import Sequence

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn.kernels.activation import Spec, applied
from streamrnn.nn.kernels.stepwise import CellStep, dense_product
from streamrnn.nn.kernels.swept import Ahead, Back, SweptKind


def _step(
    kernel: Floats, recurrent: Floats, bias: Floats, own: Sequence[Floats], g: Spec
) -> CellStep:
    both = dense_product(np.concatenate([kernel, recurrent]), bias)
    return lambda x, h: (applied(g, both(np.concatenate([x, h], axis=1))),)


SIMPLE_RNN = SweptKind(
    name="simple_rnn",
    module="simple_rnn",
    gates="h",
    ahead=(Ahead("h", "h", x_biases="h", h_biases="-"),),
    step=_step,
    kept=1,
    x_gates="h",
    back=(Back(first=0, gates="h"),),
)

pack = SIMPLE_RNN.pack
"""The activation is for h. The state is [h_BU]."""
