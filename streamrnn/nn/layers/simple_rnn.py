"""SimpleRNN: h' = activation(x K + b + h R)."""

from typing import ClassVar

from streamrnn.nn.kernels.simple_rnn import SIMPLE_RNN
from streamrnn.nn.layers.gated import GatedArguments, GatedCell, GatedRNN
from streamrnn.nn.layers.registry import builtin_layer


@builtin_layer
class SimpleRNNCell(GatedCell):
    """One step of SimpleRNN. Weights: kernel (F, U), recurrent_kernel (U, U), bias (U,)."""

    kind = SIMPLE_RNN
    drops_at_one: ClassVar[bool] = True


@builtin_layer
class SimpleRNN(GatedRNN, GatedArguments):
    """SimpleRNN: x (B, T, F) -> the last output (B, units), or with return_sequences (B, T, units).

    State: [h], (B, units). Arguments: see SimpleRNNCell, then RNN.
    """

    cell_class = SimpleRNNCell
    after: ClassVar = {"seed": "unroll"}
