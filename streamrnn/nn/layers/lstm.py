"""LSTM (Hochreiter & Schmidhuber 1997, with a forget gate), gates in the order i, f, c, o.

i, f, o = s(x K + b + h R); c' = f c + i g(x Kc + bc + h Rc); h' = o g(c').
"""

from typing import ClassVar

import numpy as np

from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.kernels.lstm import PLAIN
from streamrnn.nn.layers.declared import declared
from streamrnn.nn.layers.gated import GateArguments, GatedCell, GatedRNN
from streamrnn.nn.layers.initializers import Constant
from streamrnn.nn.layers.registry import builtin_layer


@declared
class LSTMArguments(GateArguments):
    """The arguments of LSTMCell and LSTM."""

    unit_forget_bias: bool = True
    after: ClassVar = {"unit_forget_bias": "bias_initializer"}


@builtin_layer
class LSTMCell(GatedCell, LSTMArguments):
    """One step of LSTM. Weights: kernel (F, 4U), recurrent_kernel (U, 4U), bias (4U,).

    unit_forget_bias: the forget gate's bias starts as 1.
    """

    kind = PLAIN

    def add_bias(self) -> None:
        start = self.bias_initializer((4 * self.units,))
        if self.unit_forget_bias:
            start = start.copy()
            start[self.units : 2 * self.units] = np.float32(1)
        self.add_weight("bias", start.shape, Constant(start))

    def activations(self) -> tuple[Spec, ...]:
        return self.recurrent_activation, self.activation


@builtin_layer
class LSTM(GatedRNN, LSTMArguments):
    """LSTM: x (B, T, F) -> the last output (B, units), or with return_sequences (B, T, units).

    States: [h, c], (B, units) each. Arguments: see LSTMCell, then RNN.
    """

    cell_class = LSTMCell
