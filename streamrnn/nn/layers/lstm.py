"""LSTM (Hochreiter & Schmidhuber 1997, with a forget gate), gates in the order i, f, c, o.

i, f, o = s(x K + b + h R); c' = f c + i g(x Kc + bc + h Rc); h' = o g(c').
"""

from typing import ClassVar, Unpack

import numpy as np

from streamrnn.nn.kernels import lstm
from streamrnn.nn.layers.activations import ActivationLike
from streamrnn.nn.layers.gated import GatedCell, GatedOptions, GatedRNN, GatedRNNOptions, of_cell
from streamrnn.nn.layers.initializers import Constant, InitializerLike
from streamrnn.nn.layers.registry import builtin_layer


@builtin_layer
class LSTMCell(GatedCell):
    """One step of LSTM. Weights: kernel (F, 4U), recurrent_kernel (U, 4U), bias (4U,).

    unit_forget_bias: the forget gate's bias starts as 1.
    """

    gates = 4
    kernels = lstm
    state_names = ("h", "c")
    fields: ClassVar[tuple[str, ...]] = (
        "units",
        "activation",
        "recurrent_activation",
        "use_bias",
        "unit_forget_bias",
    )

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: object = None,
        recurrent_regularizer: object = None,
        bias_regularizer: object = None,
        kernel_constraint: object = None,
        recurrent_constraint: object = None,
        bias_constraint: object = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Unpack[GatedOptions],
    ) -> None:
        super().__init__(
            units,
            activation,
            recurrent_activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **kwargs,
        )
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
    """LSTM over (batch, time, features). States: [h, c].

    Arguments: those of LSTMCell and of RNN.
    """

    cell_class = LSTMCell
    recurrent_activation = of_cell("recurrent_activation")
    unit_forget_bias = of_cell("unit_forget_bias")

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: object = None,
        recurrent_regularizer: object = None,
        bias_regularizer: object = None,
        activity_regularizer: object = None,
        kernel_constraint: object = None,
        recurrent_constraint: object = None,
        bias_constraint: object = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        **kwargs: Unpack[GatedRNNOptions],
    ) -> None:
        cell = self._make_cell(
            kwargs,
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            unit_forget_bias=unit_forget_bias,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            **kwargs,
        )
