"""GRU (Cho et al. 2014), gates in the order z, r, h.

z = f(x Kz + bz + h Rz); r = f(x Kr + br + h Rr); h' = z h + (1 - z) hh, where
hh = g(x Kh + bh + r (h Rh + ch)) with reset_after=True (two rows of bias, b and c), and
hh = g(x Kh + bh + (r h) Rh) without.
"""

from typing import Any, ClassVar

from streamrnn.arrays import Floats
from streamrnn.kernels import gru
from streamrnn.kernels.packed import Packed
from streamrnn.layers.gated import GatedCell, GatedRNN
from streamrnn.layers.registry import builtin_layer


@builtin_layer
class GRUCell(GatedCell):
    """One step of GRU. Weights: kernel (F, 3U), recurrent_kernel (U, 3U), bias (2, 3U) or (3U,)."""

    gates = 3
    kernel = gru
    fields: ClassVar[tuple[str, ...]] = (
        "units",
        "activation",
        "recurrent_activation",
        "use_bias",
        "reset_after",
    )

    def __init__(self, units: int, *args: Any, reset_after: bool = True, **kwargs: Any) -> None:
        super().__init__(units, *args, **kwargs)
        self.reset_after = reset_after

    def add_bias(self) -> None:
        columns = 3 * self.units
        shape = (2, columns) if self.reset_after else (columns,)
        self.add_weight("bias", shape, self.bias_initializer)

    def pack(self, kernel: Floats, recurrent: Floats, bias: Floats | None) -> Packed:
        return gru.pack(kernel, recurrent, bias, reset_after=self.reset_after)


@builtin_layer
class GRU(GatedRNN):
    """GRU(units, activation="tanh", recurrent_activation="sigmoid", use_bias=True, …).

    Arguments: those of GRUCell (reset_after=True among them) and of RNN. State: [h].
    """

    cell_class = GRUCell
