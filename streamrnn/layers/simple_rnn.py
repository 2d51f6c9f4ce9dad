"""SimpleRNN: h' = activation(x K + b + h R)."""

from typing import Any, ClassVar

from streamrnn.kernels import simple_rnn
from streamrnn.kernels.activation import Spec
from streamrnn.layers.activations import ActivationLike
from streamrnn.layers.gated import GatedCell, GatedRNN
from streamrnn.layers.registry import builtin_layer


@builtin_layer
class SimpleRNNCell(GatedCell):
    """One step of SimpleRNN. Weights: kernel (F, U), recurrent_kernel (U, U), bias (U,)."""

    gates = 1
    kernel = simple_rnn
    drops_at_one: ClassVar[bool] = True

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        # There is no recurrent_activation: the next argument is use_bias.
        super().__init__(units, activation, "sigmoid", *args, **kwargs)

    def activations(self) -> tuple[Spec, ...]:
        return (self.activation,)


@builtin_layer
class SimpleRNN(GatedRNN):
    """SimpleRNN(units, activation="tanh", use_bias=True, …): (B, T, F) -> (B, U) or (B, T, U).

    Arguments: those of SimpleRNNCell and of RNN.
    """

    cell_class = SimpleRNNCell
