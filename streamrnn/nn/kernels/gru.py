"""GRU over a window of lanes. Gates in the order z, r, h (Keras)."""

from collections.abc import Sequence

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn.kernels.activation import Spec, applied
from streamrnn.nn.kernels.packing import Packed, WeightsLike
from streamrnn.nn.kernels.stepwise import CellStep, dense_product
from streamrnn.nn.kernels.swept import Ahead, Back, SweptKind


def _step(
    kernel: Floats, recurrent: Floats, bias: Floats, own: Sequence[Floats], f: Spec, g: Spec
) -> CellStep:
    """Make the step; the number of rows of the bias decides the form."""
    cut = 2 * recurrent.shape[0]
    weights = np.concatenate([kernel, recurrent])
    of_x, of_h = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    gates = dense_product(weights[:, :cut], of_x[:cut] + of_h[:cut])
    x_part = dense_product(kernel[:, cut:], of_x[cut:])
    h_part = dense_product(recurrent[:, cut:], of_h[cut:])
    last = dense_product(weights[:, cut:], of_x[cut:])

    def step(x, h):
        both = np.split(gates(np.concatenate([x, h], axis=1)), 2, axis=1)
        update, reset = (applied(f, gate) for gate in both)
        if bias.ndim == 2:
            candidate = x_part(x) + reset * h_part(h)
        else:
            candidate = last(np.concatenate([x, reset * h], axis=1))
        return (update * h + (1 - update) * applied(g, candidate),)

    return step


AFTER = SweptKind(
    name="gru",
    module="gru",
    gates="zrh",
    ahead=(Ahead("zrh", "zrh", x_biases="zrh-", h_biases="zr-h"),),
    step=_step,
    biases=2,
    kept=4,
    x_gates="hzr",
    back=(Back(first=1, gates="zrh"),),
)
BEFORE = SweptKind(
    name="gru_before",
    module="gru",
    gates="zrh",
    ahead=(
        Ahead("zr", "zr", x_biases="zr", h_biases="--"),
        Ahead("h", "h", x_biases="h", h_biases="-"),
    ),
    step=_step,
    kept=4,
    x_gates="zrh",
    back=(Back(first=0, gates="zr"), Back(first=2, gates="h", operand=3)),
    keeps_fed=True,
)


def pack(
    kernel_FG: WeightsLike,
    recurrent_UG: WeightsLike,
    bias: Floats | None = None,
    *,
    reset_after: bool = True,
) -> Packed:
    """Pack weights in Keras's layout for `recurrent.run`.

    `kernel_FG` (F, 3U), `recurrent_UG` (U, 3U), `bias` None, (3U,), or with `reset_after` (2, 3U):
    first of the input, then of the state. The first activation is for the gates, the second for h;
    the state is [h_BU]. Kernels may be integers.
    """
    both = np.zeros((2, 3 * recurrent_UG.shape[0]), np.float32)
    if bias is not None:
        both[: np.size(bias) // both.shape[1]] = np.reshape(bias, (-1, both.shape[1]))
    if reset_after:
        return AFTER.pack(kernel_FG, recurrent_UG, both)
    return BEFORE.pack(kernel_FG, recurrent_UG, both[0] + both[1])
