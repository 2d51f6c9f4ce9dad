"""GRU (Cho et al. 2014), gates in the order z, r, h.

z = f(x Kz + bz + h Rz); r = f(x Kr + br + h Rr); h' = z h + (1 - z) hh, where
hh = g(x Kh + bh + r (h Rh + ch)) with reset_after=True (two rows of bias, b and c), and
hh = g(x Kh + bh + (r h) Rh) without.
"""

from typing import ClassVar

from streamrnn.base.arrays import Floats
from streamrnn.nn.kernels import gru
from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.kernels.packing import Packed, WeightsLike
from streamrnn.nn.layers.declared import declared
from streamrnn.nn.layers.gated import GateArguments, GatedCell, GatedRNN
from streamrnn.nn.layers.registry import builtin_layer


@declared
class GRUArguments(GateArguments):
    """The arguments of GRUCell and GRU."""

    reset_after: bool = True


@builtin_layer
class GRUCell(GatedCell, GRUArguments):
    """One step of GRU. Weights: kernel (F, 3U), recurrent_kernel (U, 3U), bias (2, 3U) or (3U,)."""

    kind = gru.AFTER
    after: ClassVar = {"reset_after": "recurrent_dropout"}

    def complete(self) -> None:
        self.kind = gru.AFTER if self.reset_after else gru.BEFORE
        super().complete()

    def add_bias(self) -> None:
        columns = 3 * self.units
        shape = (2, columns) if self.reset_after else (columns,)
        self.add_weight("bias", shape, self.bias_initializer)

    def pack(self, kernel: WeightsLike, recurrent: WeightsLike, bias: Floats | None) -> Packed:
        return gru.pack(kernel, recurrent, bias, reset_after=self.reset_after)

    def activations(self) -> tuple[Spec, ...]:
        return self.recurrent_activation, self.activation


@builtin_layer
class GRU(GatedRNN, GRUArguments):
    """GRU: x (B, T, F) -> the last output (B, units), or with return_sequences (B, T, units).

    State: [h], (B, units). Arguments: see GRUCell, then RNN.
    """

    cell_class = GRUCell
    after: ClassVar = {"reset_after": "unroll"}
