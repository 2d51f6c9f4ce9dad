"""SimpleRNN, GRU and LSTM: their cells and layers, and what these share.

Names, arguments, weights and formulas of the LSTM cells with peepholes or layer normalization, for
`RNN(cell)`, are as in TensorFlow Addons (https://github.com/tensorflow/addons,
rnn/peephole_lstm_cell.py, rnn/layer_norm_lstm_cell.py).
"""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, InitVar
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import layer_norm_lstm, recurrent, swept
from streamrnn.nn.kernels.activation import ROW_WISE, Spec
from streamrnn.nn.kernels.normalization import Norm
from streamrnn.nn.kernels.packing import Packed, WeightsLike
from streamrnn.nn.kernels.swept import SweptKind
from streamrnn.nn.layers.activations import Activated
from streamrnn.nn.layers.arguments import Rate, Seed, Size, positive_integer
from streamrnn.nn.layers.cell import Cell, CellRun
from streamrnn.nn.layers.declared import Accepted, Argument, arguments_of, declared
from streamrnn.nn.layers.initializers import Initial, Seeded
from streamrnn.nn.layers.precision import Packable
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.rnn import RNN
from streamrnn.nn.layers.structure import Nested, Shape, T


@declared
class GatedArguments:
    """The arguments that all cells of this module and their layers have.

    dropout, recurrent_dropout: rates for inputs and states, applied only with training=True. Each
    call draws one mask of each kind per row, the same for all steps, scaled by 1 / (1 - rate); if
    recurrent_dropout > 0, it draws one of each kind per row and gate (as in Keras from 3.8 on). As
    in Keras, a rate of 1 drops everything in SimpleRNN, but nothing in GRU and LSTM. seed: for
    these masks; cells with the same seed draw the same masks.
    """

    units: Size
    activation: Activated = Activated("tanh")
    _: KW_ONLY
    use_bias: bool = True
    kernel_initializer: Initial = Initial("glorot_uniform")
    recurrent_initializer: Initial = Initial("orthogonal")
    bias_initializer: Initial = Initial("zeros")
    kernel_regularizer: InitVar[object] = None
    recurrent_regularizer: InitVar[object] = None
    bias_regularizer: InitVar[object] = None
    kernel_constraint: InitVar[object] = None
    recurrent_constraint: InitVar[object] = None
    bias_constraint: InitVar[object] = None
    dropout: Rate = Rate(0.0)
    recurrent_dropout: Rate = Rate(0.0)
    seed: Seed = Seed(None)
    implementation: Accepted = Accepted(2)
    among_kwargs: ClassVar = ("implementation",)


@declared
class GateArguments(GatedArguments):
    """The arguments of GatedArguments, and the activation of the gates."""

    recurrent_activation: Activated = Activated("sigmoid")


class GatedCell(Seeded, Packable, Cell, GatedArguments):
    """A cell of G gates: kernel (F, G U), recurrent kernel (U, G U).

    Its `kind` says which sums of inputs and states it has, and which kernels compute it.
    """

    kind: SweptKind
    holds_output = False
    drops_at_one: ClassVar[bool] = False
    """Whether a rate of 1 drops everything (SimpleRNN) or nothing (GRU, LSTM), as in Keras."""
    computes_in_integers: ClassVar[bool] = True
    """Whether its kernel takes integers as weights. With dropout in training, floats are used."""
    _packed: Packed | None = None

    @property
    def gates(self) -> int:
        """Number of gates, each a block of columns in the weights."""
        return len(self.kind.gates)

    def complete(self) -> None:
        self.output_size = self.units
        states = len(self.kind.states)
        self.state_size = self.units if states == 1 else [self.units] * states

    # ---- weights

    def build(self, input_shape: Shape) -> None:
        features, columns = self.known_features(input_shape), self.gates * self.units
        self.add_weight("kernel", (features, columns), self.kernel_initializer)
        self.add_weight("recurrent_kernel", (self.units, columns), self.recurrent_initializer)
        if self.use_bias:
            self.add_bias()

    def add_bias(self) -> None:
        """Make the bias; GRU and LSTM override this."""
        self.add_weight("bias", (self.gates * self.units,), self.bias_initializer)

    def check_input(self, shape: Shape) -> None:
        self.expect_features(shape, self._weights["kernel"].shape[0])

    def packable(self) -> dict[str, bool]:
        row_wise = not ROW_WISE.isdisjoint(self.activations())
        if row_wise or not (self.computes_in_integers and self.built):
            return {}
        return {"kernel": True, "recurrent_kernel": False}

    def pack(self, kernel: WeightsLike, recurrent: WeightsLike, bias: Floats | None) -> Packed:
        """Return the weights in the layout that the compiled kernel reads."""
        return self.kind.pack(kernel, recurrent, bias)

    def packed(self) -> Packed:
        """Return the packed weights, made on first use. Two threads may safely both make them."""
        packed = self._packed
        if packed is None:
            w: dict[str, Any] = {**self._weights, **self.integers}
            packed = self._packed = self.pack(w["kernel"], w["recurrent_kernel"], w.get("bias"))
        return packed

    # ---- computing

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.kind.states, (self.units,))

    def output_features(self) -> int:
        return self.units

    def nest_in_stack(self, states: list[T]) -> Nested[T]:
        return [*states]

    def activations(self) -> tuple[Spec, ...]:
        """Return the activations that the kernel takes: the gates' first, then the others."""
        return (self.activation,)

    def run_window(self, window: CellRun) -> None:
        x_BTF, lengths_B, mask_BT, states, _, y_BTU, zero_masked, training = window
        names = self.activations()
        if not (training and (self.dropout or self.recurrent_dropout)):
            arrays = x_BTF, lengths_B, mask_BT, states, y_BTU
            recurrent.run(self.packed(), names, *arrays, zero_masked=zero_masked)
            return
        # (x * mask) @ K is x @ (mask * K): a row's masks are the same for all its steps, so each
        # row gets its own weights, and the kernel needs no dropout.
        x_masks, h_masks = self.draw_masks(*x_BTF.shape[::2])
        w = self._weights
        for b in range(len(x_BTF)):
            row = slice(b, b + 1)
            recurrent.run(
                self.pack(
                    self._scaled(w["kernel"], x_masks[b]),
                    self._scaled(w["recurrent_kernel"], h_masks[b]),
                    w.get("bias"),
                ),
                names,
                x_BTF[row],
                None if lengths_B is None else lengths_B[row],
                None if mask_BT is None else mask_BT[row],
                [state[row] for state in states],
                None if y_BTU is None else y_BTU[row],
                zero_masked=zero_masked,
            )

    def bind_window(self, window: CellRun) -> Callable[[], object]:
        names, y_BTU = self.activations(), window.y_BTU
        if y_BTU is None or not ROW_WISE.isdisjoint(names):
            return super().bind_window(window)
        return recurrent.bind(self.packed, names, window.x_BTF, window.states, y_BTU)

    def _scaled(self, kernel_FG: Floats, masks_GF: Floats) -> Floats:
        blocks = kernel_FG.reshape(len(kernel_FG), self.gates, self.units)
        return (blocks * masks_GF.T[:, :, None]).reshape(kernel_FG.shape)

    def draw_masks(self, rows: int, features: int) -> tuple[Floats, Floats]:
        """Draw the dropout masks of one call: (rows, 1 or gates, F) for x, (rows, …, U) for h."""
        copies = self.gates if self.recurrent_dropout else 1
        return (
            self._draw((rows, copies, features), self.dropout),
            self._draw((rows, copies, self.units), self.recurrent_dropout),
        )

    def _draw(self, shape: tuple[int, ...], rate: float) -> Floats:
        random = self._random  # made even if unused: without a seed, it takes a number of set_seed
        if rate == 0 or (rate == 1 and not self.drops_at_one):
            return np.ones(shape, np.float32)
        return dropout_mask(random, shape, rate)


@declared
class GatedRNN(RNN):
    """RNN with a cell of this module; its arguments are the cell's, followed by RNN's."""

    cell: Argument[Any, Any] = Argument(init=False)
    activity_regularizer: InitVar[object] = None
    after: ClassVar = {"activity_regularizer": "bias_regularizer"}
    among_kwargs: ClassVar = ("zero_output_for_mask",)
    cell_class: ClassVar[type[GatedCell]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "cell_class" in vars(cls):
            for name, argument in arguments_of(cls.cell_class).items():
                if argument.is_attribute:
                    doc = f"The cell's {name}."
                    setattr(cls, name, property(attrgetter(f"cell.{name}"), doc=doc))

    def set_arguments(self, values: dict[str, Any]) -> None:
        """Make the cell from its arguments and the layer's name; set the rest as RNN does."""
        positive_integer(self, "units", values["units"])  # the message names the layer
        of_cell = arguments_of(self.cell_class)
        arguments = {name: values[name] for name, each in of_cell.items() if each.is_attribute}
        self.cell = self.cell_class(**arguments, name=self.name)
        super().set_arguments({name: values[name] for name in values if name not in of_cell})


def dropout_mask(random: np.random.Generator, shape: tuple[int, ...], rate: float) -> Floats:
    """Draw an inverted dropout mask: 1 / (1 - rate) where an element is kept, else 0."""
    if rate == 1:
        return np.zeros(shape, np.float32)
    keep = random.random(shape, dtype=np.float32) >= rate
    return keep.astype(np.float32) / np.float32(1 - rate)


@builtin_layer
class SimpleRNNCell(GatedCell):
    """One step of SimpleRNN: h' = activation(x K + b + h R).

    Weights: kernel (F, U), recurrent_kernel (U, U), bias (U,).
    """

    kind = swept.SIMPLE_RNN
    drops_at_one: ClassVar[bool] = True


@builtin_layer
class SimpleRNN(GatedRNN, GatedArguments):
    """SimpleRNN: x (B, T, F) -> the last output (B, units), or with return_sequences (B, T, units).

    State: [h], (B, units). Arguments: see SimpleRNNCell, then RNN.
    """

    cell_class = SimpleRNNCell
    after: ClassVar = {"seed": "unroll"}


@declared
class GRUArguments(GateArguments):
    """The arguments of GRUCell and GRU."""

    reset_after: bool = True


@builtin_layer
class GRUCell(GatedCell, GRUArguments):
    """One step of GRU (Cho et al. 2014), gates in the order z, r, h.

    z = f(x Kz + bz + h Rz); r = f(x Kr + br + h Rr); h' = z h + (1 - z) hh. With reset_after=True,
    the bias has two rows, b and c: hh = g(x Kh + bh + r (h Rh + ch)), and z and r add cz and cr in
    their sums. With reset_after=False, hh = g(x Kh + bh + (r h) Rh).

    Weights: kernel (F, 3U), recurrent_kernel (U, 3U), bias (2, 3U) or (3U,).
    """

    kind = swept.GRU_AFTER
    after: ClassVar = {"reset_after": "recurrent_dropout"}

    def complete(self) -> None:
        self.kind = swept.GRU_AFTER if self.reset_after else swept.GRU_BEFORE
        super().complete()

    def add_bias(self) -> None:
        columns = 3 * self.units
        shape = (2, columns) if self.reset_after else (columns,)
        self.add_weight("bias", shape, self.bias_initializer)

    def pack(self, kernel: WeightsLike, recurrent: WeightsLike, bias: Floats | None) -> Packed:
        return swept.pack_gru(kernel, recurrent, bias, reset_after=self.reset_after)

    def activations(self) -> tuple[Spec, ...]:
        return self.recurrent_activation, self.activation


@builtin_layer
class GRU(GatedRNN, GRUArguments):
    """GRU: x (B, T, F) -> the last output (B, units), or with return_sequences (B, T, units).

    State: [h], (B, units). Arguments: see GRUCell, then RNN.
    """

    cell_class = GRUCell
    after: ClassVar = {"reset_after": "unroll"}


@declared
class LSTMArguments(GateArguments):
    """The arguments of LSTMCell and LSTM."""

    unit_forget_bias: bool = True
    after: ClassVar = {"unit_forget_bias": "bias_initializer"}


@builtin_layer
class LSTMCell(GatedCell, LSTMArguments):
    """One step of LSTM (Hochreiter & Schmidhuber 1997, with a forget gate).

    i, f, o = s(x K + b + h R); c' = f c + i g(x Kc + bc + h Rc); h' = o g(c'). Weights, with gates
    in the order i, f, c, o: kernel (F, 4U), recurrent_kernel (U, 4U), bias (4U,).
    unit_forget_bias: the forget gate's bias starts as 1.
    """

    kind = swept.PLAIN_LSTM

    def add_bias(self) -> None:
        bias = self.add_weight("bias", (4 * self.units,), self.bias_initializer)
        if self.unit_forget_bias:
            start = bias.numpy()
            start[self.units : 2 * self.units] = 1
            bias.write(start)

    def activations(self) -> tuple[Spec, ...]:
        return self.recurrent_activation, self.activation


@builtin_layer
class LSTM(GatedRNN, LSTMArguments):
    """LSTM: x (B, T, F) -> the last output (B, units), or with return_sequences (B, T, units).

    States: [h, c], (B, units) each. Arguments: see LSTMCell, then RNN.
    """

    cell_class = LSTMCell


@builtin_layer
class PeepholeLSTMCell(LSTMCell):
    """One step of LSTM whose gates see c (Gers and Schmidhuber 2000).

    i, f = s(x K + b + h R + p c); c' = f c + i g(…); o = s(x Ko + bo + h Ro + po c'); h' = o g(c').
    Weights: as in LSTMCell, then input_gate_, forget_gate_ and output_gate_peephole_weights, (U,)
    each, initialized by `kernel_initializer`.
    """

    GATES: ClassVar[tuple[str, ...]] = ("input", "forget", "output")
    kind = swept.PEEPHOLE
    computes_in_integers: ClassVar[bool] = False

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        for gate in self.GATES:
            name = f"{gate}_gate_peephole_weights"
            self.add_weight(name, (self.units,), self.kernel_initializer)

    def activations(self) -> tuple[Spec, ...]:
        return self.recurrent_activation, self.activation, self.activation

    def state_classes(self) -> dict[str, str]:
        """Return LSTMCell for each state: with peepholes of 0 this cell is an LSTMCell."""
        return dict.fromkeys(self.state_shapes(), LSTMCell.__name__)

    def pack(self, kernel: Any, recurrent: Any, bias: Floats | None) -> Packed:
        own = [self._weights[f"{gate}_gate_peephole_weights"] for gate in self.GATES]
        return swept.pack_peephole(kernel, recurrent, bias, own)


@builtin_layer
class LayerNormLSTMCell(LSTMCell):
    """One step of LSTM with layer normalization (Ba, Kiros and Hinton 2016).

    z = norm(x K) + norm(h R) + b; c' = norm(f c + i g(zc)); h' = o g(c'). Weights: as in LSTMCell,
    then gamma and beta of each norm: (4U,) for x K and for h R, (U,) for c.
    norm_gamma_initializer, norm_beta_initializer, norm_epsilon: for all three norms.
    """

    NORMS: ClassVar[tuple[str, ...]] = ("kernel_norm", "recurrent_norm", "state_norm")
    computes_in_integers: ClassVar[bool] = False

    _: KW_ONLY
    norm_gamma_initializer: Initial = Initial("ones")
    norm_beta_initializer: Initial = Initial("zeros")
    norm_epsilon: Argument[float, float] = Argument(default=1e-3)
    after: ClassVar = {"seed": "norm_epsilon", "norm_gamma_initializer": "recurrent_dropout"}

    def complete(self) -> None:
        super().complete()
        epsilon = self.norm_epsilon
        number = isinstance(epsilon, int | float) and not isinstance(epsilon, bool)
        if not number or not 0 <= epsilon < math.inf:
            raise ArgumentError(
                f"{self}: norm_epsilon must be a finite number, 0 or more, received {epsilon!r}"
            )
        self.norm_epsilon = float(epsilon)

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
