"""The common part of SimpleRNN, GRU and LSTM: weights, packing, dropout, and their layer."""

from contextlib import suppress
from operator import index
from types import ModuleType
from typing import Any, ClassVar, Self, SupportsIndex, Unpack

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import recurrent
from streamrnn.nn.kernels.activation import ROW_WISE, Spec
from streamrnn.nn.kernels.packed import Packed
from streamrnn.nn.kernels.packing import WeightsLike
from streamrnn.nn.layers import activations, initializers, naming
from streamrnn.nn.layers.activations import ActivationLike
from streamrnn.nn.layers.arguments import CommonOptions, positive_integer
from streamrnn.nn.layers.cell import Cell
from streamrnn.nn.layers.initializers import InitializerLike
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.packable import Packable
from streamrnn.nn.layers.registry import ConfigDict, StoredConfig
from streamrnn.nn.layers.rnn import RNN
from streamrnn.nn.layers.structure import Nested, Shape, T


class GatedOptions(CommonOptions, total=False):
    """The further arguments of a cell."""

    activity_regularizer: object
    implementation: int


class GatedRNNOptions(CommonOptions, total=False):
    """The further arguments of a layer of such cells."""

    implementation: int
    zero_output_for_mask: bool


class GatedCell(Packable, Cell):
    """A cell of `gates` blocks of units: kernel (F, gates*U), recurrent kernel (U, gates*U).

    dropout, recurrent_dropout: only with training=True; one mask per call and row, the same for all
    steps, scaled by 1 / (1 - rate); one mask per gate where recurrent_dropout > 0 (as in Keras
    from 3.8 on). seed: of these masks; cells with the same seed draw the same masks.
    """

    gates: int
    kernels: ModuleType
    state_names: ClassVar[tuple[str, ...]] = ("h",)
    fields: ClassVar[tuple[str, ...]] = ("units", "activation", "use_bias")
    drops_at_one: ClassVar[bool] = False
    """Whether a rate of 1 drops everything (SimpleRNN) or nothing (GRU, LSTM), as in Keras."""
    computes_in_integers: ClassVar[bool] = True
    """Whether its kernel takes integers as weights. With dropout, in training, it gets floats."""

    def __init__(
        self,
        units: int,
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        recurrent_initializer: InitializerLike = "orthogonal",
        bias_initializer: InitializerLike = "zeros",
        *,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        implementation: int = 2,
        activity_regularizer: object = None,
        **kwargs: Unpack[CommonOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.units = positive_integer(str(self), "units", units)
        self.state_size = self.output_size = self.units
        self.activation = activations.get(activation, str(self))
        self.recurrent_activation = activations.get(recurrent_activation, str(self))
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.dropout = checked_rate(str(self), "dropout", dropout)
        self.recurrent_dropout = checked_rate(str(self), "recurrent_dropout", recurrent_dropout)
        self.seed = checked_seed(str(self), seed)
        self.implementation = implementation
        self._random: np.random.Generator | None = None
        self._packed: Packed | None = None

    # ---- weights

    def build(self, input_shape: Shape) -> None:
        features, columns = self.known_features(input_shape), self.gates * self.units
        self.add_weight("kernel", (features, columns), self.kernel_initializer)
        self.add_weight("recurrent_kernel", (self.units, columns), self.recurrent_initializer)
        if self.use_bias:
            self.add_bias()
        self.built = True

    def add_bias(self) -> None:
        """Make the bias; GRU and LSTM have their own form."""
        self.add_weight("bias", (self.gates * self.units,), self.bias_initializer)

    def check_input(self, shape: Shape) -> None:
        self.expect_features(shape, self._weights["kernel"].shape[0])

    def packable(self) -> dict[str, bool]:
        row_wise = not ROW_WISE.isdisjoint(self.activations())
        if row_wise or not (self.computes_in_integers and self.built):
            return {}
        return {"kernel": True, "recurrent_kernel": False}

    def pack(self, kernel: WeightsLike, recurrent: WeightsLike, bias: Floats | None) -> Packed:
        """Return the weights in the layout of the kernel."""
        packed: Packed = self.kernels.pack(kernel, recurrent, bias)
        return packed

    def packed(self) -> Packed:
        """Return the packed weights, made on first use. Two threads may both make them safely."""
        packed = self._packed
        if packed is None:
            w: dict[str, Any] = {**self._weights, **self.integers}
            packed = self.pack(w["kernel"], w["recurrent_kernel"], w.get("bias"))
            self._packed = packed
        return packed

    # ---- computing

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.state_names, (self.units,))

    def output_features(self) -> int:
        return self.units

    def nest_in_stack(self, states: list[T]) -> Nested[T]:
        return [*states]

    @property
    def holds_output(self) -> bool:
        return False

    def activations(self) -> tuple[Spec, ...]:
        """Return the activations of the kernel: that of the gates, then the others."""
        return self.recurrent_activation, self.activation

    def run_window(
        self,
        x_BTF: Floats,
        lengths_B: Array | None,
        mask_BT: Array | None,
        states: list[Floats],
        held_BU: Floats | None,
        y_BTU: Floats | None,
        *,
        zero_masked: bool = False,
        training: bool = False,
    ) -> None:
        names = self.activations()
        if not (training and (self.dropout or self.recurrent_dropout)):
            recurrent.run(
                self.packed(),
                names,
                x_BTF,
                lengths_B,
                mask_BT,
                states,
                y_BTU,
                zero_masked=zero_masked,
            )
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

    def _scaled(self, kernel_FG: Floats, masks_GF: Floats) -> Floats:
        blocks = kernel_FG.reshape(len(kernel_FG), self.gates, self.units)
        return (blocks * masks_GF.T[:, :, None]).reshape(kernel_FG.shape)

    def draw_masks(self, rows: int, features: int) -> tuple[Floats, Floats]:
        """Draw the dropout masks of one call: (rows, 1 or gates, F) for x, (rows, …, U) for h."""
        if self._random is None:
            self._random = np.random.default_rng(self.seed)
        copies = self.gates if self.recurrent_dropout else 1
        return (
            self._draw((rows, copies, features), self.dropout),
            self._draw((rows, copies, self.units), self.recurrent_dropout),
        )

    def _draw(self, shape: tuple[int, ...], rate: float) -> Floats:
        if rate == 0 or (rate == 1 and not self.drops_at_one):
            return np.ones(shape, np.float32)
        assert self._random is not None
        return dropout_mask(self._random, shape, rate)

    def get_config(self) -> ConfigDict:
        return {
            **super().get_config(),
            **{field: getattr(self, field) for field in self.fields},
            **{
                key: initializers.serialize(getattr(self, key))
                for key in ("kernel_initializer", "recurrent_initializer", "bias_initializer")
            },
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "seed": self.seed,
        }


def of_cell(name: str) -> property:
    """Return an attribute of a layer that is its cell's."""
    return property(lambda self: getattr(self.cell, name), doc=f"The cell's {name}.")


class GatedRNN(RNN):
    """RNN with one of these cells; its constructor has the arguments of the cell and of RNN."""

    cell_class: ClassVar[type[GatedCell]]
    cell: GatedCell

    def _make_cell(self, kwargs: GatedRNNOptions, units: int, **options: Any) -> GatedCell:
        """Make the cell, with the name of the layer."""
        name = kwargs.get("name") or naming.snake_case(type(self).__name__)
        units = positive_integer(f"layer {name!r} ({type(self).__name__})", "units", units)
        return self.cell_class(units, **options, name=name)

    @property
    def units(self) -> int:
        """The size of h, and of the output."""
        return self.cell.units

    activation = of_cell("activation")
    use_bias = of_cell("use_bias")
    kernel_initializer = of_cell("kernel_initializer")
    recurrent_initializer = of_cell("recurrent_initializer")
    bias_initializer = of_cell("bias_initializer")
    dropout = of_cell("dropout")
    recurrent_dropout = of_cell("recurrent_dropout")
    seed = of_cell("seed")

    def get_config(self) -> ConfigDict:
        return {**self.cell.get_config(), **Layer.get_config(self)}

    @classmethod
    def from_config(cls, config: StoredConfig) -> Self:
        return cls(**config)


def checked_rate(owner: str, argument: str, rate: object) -> float:
    """Return a dropout rate, 0…1. Raises ArgumentError that names the layer."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise ArgumentError(
            f"{owner}: Invalid value received for argument `{argument}`. Expected a float value "
            f"between 0 and 1. Received: {argument}={rate!r}"
        )
    return float(rate)


def checked_seed(owner: str, seed: object) -> int | None:
    """Return a seed: None or an integer, 0 or more. Raises ArgumentError that names the layer."""
    if seed is None:
        return None
    number = -1
    if isinstance(seed, SupportsIndex):
        with suppress(TypeError):  # an array with several values
            number = index(seed)
    if number < 0:
        raise ArgumentError(f"{owner}: seed must be a whole number, 0 or more, received {seed!r}")
    return number


def dropout_mask(random: np.random.Generator, shape: tuple[int, ...], rate: float) -> Floats:
    """Draw an inverted dropout mask: 1 / (1 - rate) where an element is kept, else 0."""
    if rate == 1:
        return np.zeros(shape, np.float32)
    keep = random.random(shape, dtype=np.float32) >= rate
    return keep.astype(np.float32) / np.float32(1 - rate)
