"""SimpleRNN: h' = activation(x K + b + h R)."""

from typing import ClassVar, Unpack

from streamrnn.nn.kernels import simple_rnn
from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.layers.activations import ActivationLike
from streamrnn.nn.layers.gated import GatedCell, GatedOptions, GatedRNN, GatedRNNOptions
from streamrnn.nn.layers.initializers import InitializerLike
from streamrnn.nn.layers.registry import builtin_layer


@builtin_layer
class SimpleRNNCell(GatedCell):
    """One step of SimpleRNN. Weights: kernel (F, U), recurrent_kernel (U, U), bias (U,)."""

    gates = 1
    kernels = simple_rnn
    drops_at_one: ClassVar[bool] = True

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
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
        seed: int | None = None,
        **kwargs: Unpack[GatedOptions],
    ) -> None:
        super().__init__(
            units,
            activation,
            "sigmoid",  # of no gate
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **kwargs,
        )

    def activations(self) -> tuple[Spec, ...]:
        return (self.activation,)


@builtin_layer
class SimpleRNN(GatedRNN):
    """SimpleRNN over (batch, time, features). State: [h].

    Arguments: those of SimpleRNNCell and of RNN.
    """

    cell_class = SimpleRNNCell

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
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
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        **kwargs: Unpack[GatedRNNOptions],
    ) -> None:
        cell = self._make_cell(
            kwargs,
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
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
