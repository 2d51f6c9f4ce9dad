"""GRU (Cho et al. 2014), gates in the order z, r, h.

z = f(x Kz + bz + h Rz); r = f(x Kr + br + h Rr); h' = z h + (1 - z) hh, where
hh = g(x Kh + bh + r (h Rh + ch)) with reset_after=True (two rows of bias, b and c), and
hh = g(x Kh + bh + (r h) Rh) without.
"""

from typing import ClassVar, Unpack

from streamrnn.base.arrays import Floats
from streamrnn.nn.kernels import gru
from streamrnn.nn.kernels.packed import Packed
from streamrnn.nn.kernels.packing import WeightsLike
from streamrnn.nn.layers.activations import ActivationLike
from streamrnn.nn.layers.gated import GatedCell, GatedOptions, GatedRNN, GatedRNNOptions, of_cell
from streamrnn.nn.layers.initializers import InitializerLike
from streamrnn.nn.layers.registry import builtin_layer


@builtin_layer
class GRUCell(GatedCell):
    """One step of GRU. Weights: kernel (F, 3U), recurrent_kernel (U, 3U), bias (2, 3U) or (3U,)."""

    gates = 3
    kernels = gru
    fields: ClassVar[tuple[str, ...]] = (
        "units",
        "activation",
        "recurrent_activation",
        "use_bias",
        "reset_after",
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
        kernel_regularizer: object = None,
        recurrent_regularizer: object = None,
        bias_regularizer: object = None,
        kernel_constraint: object = None,
        recurrent_constraint: object = None,
        bias_constraint: object = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
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
        self.reset_after = reset_after

    def add_bias(self) -> None:
        columns = 3 * self.units
        shape = (2, columns) if self.reset_after else (columns,)
        self.add_weight("bias", shape, self.bias_initializer)

    def pack(self, kernel: WeightsLike, recurrent: WeightsLike, bias: Floats | None) -> Packed:
        return gru.pack(kernel, recurrent, bias, reset_after=self.reset_after)


@builtin_layer
class GRU(GatedRNN):
    """GRU over (batch, time, features). State: [h].

    Arguments: those of GRUCell and of RNN.
    """

    cell_class = GRUCell
    recurrent_activation = of_cell("recurrent_activation")
    reset_after = of_cell("reset_after")

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
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
        reset_after: bool = True,
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
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            reset_after=reset_after,
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
