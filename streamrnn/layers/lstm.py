"""LSTM (Hochreiter & Schmidhuber 1997, with a forget gate), gates in the order i, f, c, o.

i, f, o = s(x K + b + h R); c' = f c + i g(x Kc + bc + h Rc); h' = o g(c').
"""

from typing import Any, ClassVar

import numpy as np

from streamrnn.kernels import lstm
from streamrnn.layers.gated import GatedCell, GatedRNN
from streamrnn.layers.initializers import Constant
from streamrnn.layers.registry import builtin_layer


@builtin_layer
class LSTMCell(GatedCell):
    """One step of LSTM. Weights: kernel (F, 4U), recurrent_kernel (U, 4U), bias (4U,).

    unit_forget_bias: the forget gate's bias starts as 1.
    """

    gates = 4
    kernel = lstm
    state_names = ("h", "c")
    fields: ClassVar[tuple[str, ...]] = (
        "units",
        "activation",
        "recurrent_activation",
        "use_bias",
        "unit_forget_bias",
    )

    def __init__(
        self, units: int, *args: Any, unit_forget_bias: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(units, *args, **kwargs)
        self.state_size = [self.units, self.units]
        self.unit_forget_bias = unit_forget_bias

    def add_bias(self) -> None:
        start = self.bias_initializer((4 * self.units,))
        if self.unit_forget_bias:
            start = start.copy()
            start[self.units : 2 * self.units] = np.float32(1)
        self.add_weight("bias", start.shape, Constant(start))


@builtin_layer
class LSTM(GatedRNN):
    """LSTM(units, activation="tanh", recurrent_activation="sigmoid", use_bias=True, …).

    Arguments: those of LSTMCell (unit_forget_bias=True among them) and of RNN. States: [h, c].
    """

    cell_class = LSTMCell
