"""LSTM cells with more weights: peepholes, layer normalisation. For `RNN(cell)`.

Names, arguments, weights and formulas are as in TensorFlow Addons
(https://github.com/tensorflow/addons, rnn/peephole_lstm_cell.py, rnn/layer_norm_lstm_cell.py).
"""

import math
from dataclasses import KW_ONLY
from typing import Any, ClassVar

from streamrnn.base.arrays import Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import layer_norm_lstm, lstm
from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.kernels.normalization import Norm
from streamrnn.nn.kernels.packing import Packed
from streamrnn.nn.layers.declared import Argument
from streamrnn.nn.layers.gated import LSTMCell
from streamrnn.nn.layers.initializers import Initial
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape


@builtin_layer
class PeepholeLSTMCell(LSTMCell):
    """One step of LSTM whose gates see c (Gers and Schmidhuber 2000).

    i, f = s(x K + b + h R + p c); c' = f c + i g(…); o = s(x Ko + bo + h Ro + po c'); h' = o g(c').
    Weights: as LSTMCell, then input_gate_, forget_gate_ and output_gate_peephole_weights, (U,)
    each, initialized by `kernel_initializer`.
    """

    GATES: ClassVar[tuple[str, ...]] = ("input", "forget", "output")
    kind = lstm.PEEPHOLE
    computes_in_integers: ClassVar[bool] = False

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        for gate in self.GATES:
            name = f"{gate}_gate_peephole_weights"
            self.add_weight(name, (self.units,), self.kernel_initializer)

    def activations(self) -> tuple[Spec, ...]:
        return self.recurrent_activation, self.activation, self.activation

    def state_classes(self) -> dict[str, str]:
        """Return LSTM's classes: with peepholes of 0 this cell is an LSTM."""
        return dict.fromkeys(self.state_shapes(), LSTMCell.__name__)

    def pack(self, kernel: Any, recurrent: Any, bias: Floats | None) -> Packed:
        own = [self._weights[f"{gate}_gate_peephole_weights"] for gate in self.GATES]
        return lstm.pack_peephole(kernel, recurrent, bias, own)


def _checked_epsilon(owner: object, name: str, epsilon: object) -> float:
    """Return the term added to a variance. Raises ArgumentError that names the layer."""
    number = math.nan
    if isinstance(epsilon, int | float) and not isinstance(epsilon, bool):
        number = float(epsilon)
    if not math.isfinite(number) or number < 0:
        raise ArgumentError(f"{owner}: {name} must be 0 or more, received {epsilon!r}")
    return number


@builtin_layer
class LayerNormLSTMCell(LSTMCell):
    """One step of LSTM with layer normalisation (Ba, Kiros and Hinton 2016).

    z = norm(x K) + norm(h R) + b; c' = norm(f c + i g(zc)); h' = o g(c'). Weights: as LSTMCell,
    then gamma and beta of each norm: of the input and of the state, (4U,), and of c, (U,).
    norm_gamma_initializer, norm_beta_initializer, norm_epsilon: of all three norms.
    """

    NORMS: ClassVar[tuple[str, ...]] = ("kernel_norm", "recurrent_norm", "state_norm")
    computes_in_integers: ClassVar[bool] = False

    _: KW_ONLY
    norm_gamma_initializer: Initial = Initial("ones")
    norm_beta_initializer: Initial = Initial("zeros")
    norm_epsilon: Argument[float, float] = Argument(default=1e-3, check=_checked_epsilon)
    after: ClassVar = {"seed": "norm_epsilon", "norm_gamma_initializer": "recurrent_dropout"}

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        for norm in self.NORMS:
            size = self.units if norm == "state_norm" else 4 * self.units
            self.add_weight(f"{norm}_gamma", (size,), self.norm_gamma_initializer)
            self.add_weight(f"{norm}_beta", (size,), self.norm_beta_initializer)

    def pack(self, kernel: Any, recurrent: Any, bias: Floats | None) -> Packed:
        w = self._weights
        of_x, of_h, of_c = (Norm(w[f"{norm}_gamma"], w[f"{norm}_beta"]) for norm in self.NORMS)
        return layer_norm_lstm.pack(kernel, recurrent, bias, (of_x, of_h, of_c), self.norm_epsilon)
