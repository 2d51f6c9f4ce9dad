"""LSTM over a window of lanes. Gates in the order i, f, c, o (Keras)."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn.kernels.activation import Spec, applied
from streamrnn.nn.kernels.packing import Packed
from streamrnn.nn.kernels.stepwise import CellStep, dense_product
from streamrnn.nn.kernels.swept import Ahead, Back, Peephole, SweptKind


def _step(
    kernel: Floats,
    recurrent: Floats,
    bias: Floats,
    own: Sequence[Floats],
    f: Spec,
    g: Spec,
    of_c: Spec | None = None,
    *,
    coupled: bool = False,
) -> CellStep:
    """Make the step. `own`: three peepholes, or none. `of_c`: the activation of c; None: `g`."""
    gates = dense_product(np.concatenate([kernel, recurrent]), bias)

    def step(x, h, c):
        i, forget, new, o = np.split(gates(np.concatenate([x, h], axis=1)), 4, axis=1)
        if own:
            i, forget = i + own[0] * c, forget + own[1] * c
        i = applied(f, i)
        c = (1 - i if coupled else applied(f, forget)) * c + i * applied(g, new)
        o = o + own[2] * c if own else o
        return applied(f, o) * applied(of_c or g, c), c

    return step


PLAIN = SweptKind(
    name="lstm",
    module="lstm",
    gates="ifco",
    ahead=(Ahead("ifco", "ifco", x_biases="ifco", h_biases="----"),),
    step=_step,
    states=("h", "c"),
    kept=4,
    x_gates="ifco",
    back=(Back(first=0, gates="ifco"),),
)
PEEPHOLE = PLAIN._replace(
    name="peephole_lstm",
    peepholes=(
        Peephole(kept=0, after=False),
        Peephole(kept=1, after=False),
        Peephole(kept=3, after=True),
    ),
)
_COUPLED = PEEPHOLE._replace(name="coupled_lstm", step=partial(_step, coupled=True))

pack = PLAIN.pack
"""The first activation is for the gates, the second for c. The states are [h_BU, c_BU]."""


def pack_peephole(
    kernel_FG: Floats,
    recurrent_UG: Floats,
    bias_G: Floats | None = None,
    peepholes_3U: Floats | Sequence[Floats] | None = None,
    *,
    coupled: bool = False,
) -> Packed:
    """Pack weights with peepholes (Gers and Schmidhuber 2000) of i, f and o; None: zeros.

    i and f use the c before the step, o the c after it. If `coupled`, f is 1 - i. The
    activations are for the gates, the candidate and c.
    """
    own = np.zeros((3, recurrent_UG.shape[0]), np.float32) if peepholes_3U is None else peepholes_3U
    kind = _COUPLED if coupled else PEEPHOLE
    return kind.pack(kernel_FG, recurrent_UG, bias_G, list(own))
