"""Layers around a layer: Bidirectional and TimeDistributed."""

from collections.abc import Mapping
from dataclasses import InitVar, replace
from typing import Any, Self

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.errors import ArgumentError, ShapeError, StateError
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.built_in import BuiltIn
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Argument
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.masks import Masks
from streamrnn.nn.layers.registry import ConfigDict, StoredConfig, builtin_layer
from streamrnn.nn.layers.rnn import RNN, reverse
from streamrnn.nn.layers.structure import Nested, Shape, Shapes, T, leaves

_MERGES = ("concat", "sum", "mul", "ave", None)


@builtin_layer
class Bidirectional(BuiltIn):
    """One recurrent layer forwards, one backwards, and their outputs merged.

    merge_mode: concat, sum, mul, ave, or None for two outputs. backward_layer: the layer that runs
    backwards; by default a reversed copy of `layer`. With return_state the outputs are followed by
    the forward states, then the backward states, in the order of initial_state. Masked steps of a
    returned sequence are zeros, as in Keras.

    With stateful=True the backward layer carries its state from the first step of a call into the
    last step of the next, as in Keras; this is of little use if a stream is cut into pieces.
    """

    sequence_input = True

    takes_state = True

    layer: InitVar[RNN]
    merge_mode: str | None = "concat"
    backward_layer: Argument[RNN | None, RNN] = Argument(default=None, inner=True)

    def set_arguments(self, values: dict[str, Any]) -> None:
        layer, backward_layer = values["layer"], values["backward_layer"]
        for wrapped in (layer, layer if backward_layer is None else backward_layer):
            if not isinstance(wrapped, RNN):
                raise ArgumentError(
                    f"{self}: expected a recurrent layer, received {type(wrapped).__name__}"
                )
        self.merge_mode = values["merge_mode"]
        if self.merge_mode not in _MERGES:
            raise ArgumentError(
                f"{self}: merge_mode must be one of {_MERGES}, received {self.merge_mode!r}"
            )
        self.forward_layer = _copy(layer, "forward_")
        self.backward_layer = (
            _copy(layer, "backward_", go_backwards=True)
            if backward_layer is None
            else backward_layer
        )
        self.complete()
        self.return_sequences: bool = layer.return_sequences
        self.return_state: bool = layer.return_state
        self.stateful: bool = layer.stateful
        for child in self._pair():
            child.zero_output_for_mask = self.return_sequences
            self.adopt(child)

    def complete(self) -> None:
        forward, backward = self.forward_layer, self.backward_layer
        if forward.go_backwards == backward.go_backwards:
            raise ArgumentError(
                f"{self}: one layer must have go_backwards=True and the other False, received "
                f"{forward.go_backwards} for both"
            )
        for attribute in ("return_sequences", "return_state", "stateful"):
            values = getattr(forward, attribute), getattr(backward, attribute)
            if values[0] != values[1]:
                raise ArgumentError(
                    f"{self}: {attribute} must be the same in both layers, received {values[0]} "
                    f"forward and {values[1]} backward"
                )
        if self.merge_mode in ("sum", "mul", "ave"):
            sizes = forward.runner.output_features(), backward.runner.output_features()
            if sizes[0] != sizes[1]:
                raise ArgumentError(
                    f"{self}: merge_mode={self.merge_mode!r} needs layers of equal size, received "
                    f"{sizes[0]} and {sizes[1]} units"
                )

    def _pair(self) -> tuple[RNN, RNN]:
        return self.forward_layer, self.backward_layer

    # ---- shapes

    def children(self) -> dict[str, Layer]:
        return {"forward_layer": self.forward_layer, "backward_layer": self.backward_layer}

    def build(self, input_shape: Shape) -> None:
        for child in self._pair():
            child.ensure_built(input_shape)

    def check_input(self, shape: Shapes) -> None:
        if isinstance(shape, list):
            raise ShapeError(f"{self}: expected one array, received {len(shape)}")
        self.expect_features(shape, self.forward_layer.features, rank=3)

    def compute_output_shape(self, input_shape: Shape) -> Nested[Shape]:
        one, forward_states = _split(self.forward_layer.compute_output_shape(input_shape))
        other, backward_states = _split(self.backward_layer.compute_output_shape(input_shape))
        outputs: list[Nested[Shape]] = [one, other] if self.merge_mode is None else [one]
        if self.merge_mode == "concat":
            units = [child.runner.output_features() for child in self._pair()]
            outputs = [(*one[:-1], sum(units))]
        if self.return_state:
            return [*outputs, *forward_states, *backward_states]
        return outputs if self.merge_mode is None else outputs[0]

    def compute_mask(self, inputs: Array, mask: Bools | None = None) -> Masks:
        passed = mask if self.return_sequences else None
        outputs: list[Bools | None] = [passed] * (2 if self.merge_mode is None else 1)
        if self.return_state:
            outputs += [None] * sum(len(child.runner.state_shapes()) for child in self._pair())
        return outputs if len(outputs) > 1 else outputs[0]

    # ---- computing

    def apply(self, inputs: Floats, context: CallContext) -> Nested[Floats]:
        (y, states), (y_back, states_back) = (
            _split(child.apply(inputs, replace(context, initial_state=half)))
            for child, half in zip(self._pair(), self.halves(context.initial_state), strict=True)
        )
        if self.return_sequences:
            y_back = reverse(y_back, context.lengths)
        merged: list[Nested[Floats]] = [*self.merge(y, y_back)]
        if self.return_state:
            return [*merged, *states, *states_back]
        return merged if self.merge_mode is None else merged[0]

    def merge(self, y: Floats, y_back: Floats) -> list[Floats]:
        """Return the outputs of both directions as one array, or as two if merge_mode is None."""
        if self.merge_mode is None:
            return [y, y_back]
        if self.merge_mode == "concat":
            return [np.concatenate([y, y_back], axis=-1)]
        if self.merge_mode == "mul":
            return [y * y_back]
        total = y + y_back
        return [total if self.merge_mode == "sum" else total / np.float32(2)]

    def halves(self, states: object) -> tuple[list[Any] | None, list[Any] | None]:
        """Return the states of the forward and of the backward layer; for None, (None, None)."""
        if states is None:
            return None, None
        flat = list(leaves(states))
        forward = len(self.forward_layer.runner.state_shapes())
        expected = forward + len(self.backward_layer.runner.state_shapes())
        if len(flat) != expected:
            raise ShapeError(
                f"{self}: expected {expected} states, the forward layer's {forward} first, "
                f"received {len(flat)}"
            )
        return flat[:forward], flat[forward:]

    def check_initial(self, states: object) -> None:
        for child, half in zip(self._pair(), self.halves(states), strict=True):
            child.check_initial(half)

    # ---- state from call to call

    @property
    def states(self) -> list[Any] | None:
        """Copies of the carried states, forward then backward; None if none are carried yet."""
        forward, backward = (child.states for child in self._pair())
        return None if forward is None or backward is None else [*forward, *backward]

    def get_state(self) -> list[Any] | None:
        """Return copies of [the forward layer's state, the backward layer's state], or None."""
        states = [child.get_state() for child in self._pair()]
        return None if None in states else states

    def set_state(self, state: Any) -> None:
        """Carry the states that get_state returned; None: no state."""
        is_list = isinstance(state, list | tuple)
        if state is not None and (not is_list or len(state) != 2):
            received = f"a list of {len(state)}" if is_list else f"type {type(state).__name__}"
            raise StateError(
                f"{self}: expected [forward state, backward state], received {received}"
            )
        states = (None, None) if state is None else state
        for child, own in zip(self._pair(), states, strict=True):
            child.set_state(own)

    def reset_state(self, states: object = None) -> None:
        """Reset both layers: see RNN.reset_state."""
        for child, half in zip(self._pair(), self.halves(states), strict=True):
            child.reset_state(half)

    reset_states = reset_state

    # ---- as part of a stream, and config

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        return "it reads the sequence from its end as well"

    def get_config(self) -> ConfigDict:
        return {**super().get_config(), "layer": registry.serialize(self.forward_layer)}

    @classmethod
    def from_config(cls, config: StoredConfig) -> Self:
        config = dict(config)
        if isinstance(config.get("layer"), Mapping):
            config["layer"] = registry.deserialize(config["layer"])
        return super().from_config(config)


@builtin_layer
class TimeDistributed(BuiltIn):
    """(B, T, …) -> (B, T, …): `layer` gets each step of each row as a separate row.

    With training=True, `layer` is called step by step, as in Keras: a BatchNormalization inside
    takes the moments of one step at a time. Of a mask with more axes, such as (B, T, words),
    `layer` gets each step's part; if `layer` passes no mask on, a step is masked if all of its part
    is.
    """

    sequence_input = True
    stepwise = True

    layer: Argument[Layer, Any] = Argument(inner=True)

    def complete(self) -> None:
        if not isinstance(self.layer, Layer):
            received = type(self.layer).__name__
            raise ArgumentError(f"{self}: expected a layer, received {received}")
        if getattr(self.layer, "stateful", False):
            raise ArgumentError(
                f"{self}: the layer inside must not be stateful; make it with stateful=False"
            )
        self.adopt(self.layer)
        self.input_dtype = self.layer.input_dtype

    def build(self, input_shape: Shape) -> None:
        self._check_rank(input_shape)
        self.layer.ensure_built((input_shape[0], *input_shape[2:]))

    def check_input(self, shape: Shape) -> None:
        self._check_rank(shape)
        self.layer.check_input((shape[0], *shape[2:]))

    def _check_rank(self, shape: Shapes) -> None:
        if isinstance(shape, list) or len(shape) < 3:
            raise ShapeError(f"{self}: expected (batch, time, …), received shape {shape}")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        inner = self.layer.compute_output_shape((input_shape[0], *input_shape[2:]))
        if isinstance(inner, list):
            raise ShapeError(f"{self}: the layer inside must have one output")
        return (*input_shape[:2], *inner[1:])

    def apply(self, inputs: Array, context: CallContext) -> Array:
        y: Array
        if context.training and inputs.shape[1]:
            one_each = context.mask is not None and context.mask.ndim == inputs.ndim - 1
            masks = context.mask.swapaxes(0, 1) if one_each else [None] * inputs.shape[1]
            by_step = np.ascontiguousarray(inputs.swapaxes(0, 1))
            steps = [
                self.layer.forward(x, CallContext(mask, training=True, kind="whole"))[0]
                for x, mask in zip(by_step, masks, strict=True)
            ]
            return np.stack(steps, axis=1)
        rows, mask = self.rows(inputs, context.mask)
        y, _ = self.layer.forward(rows, CallContext(mask, kind="whole"))
        return y.reshape(*inputs.shape[:2], *y.shape[1:])

    def rows(self, inputs: Array, mask: Bools | None) -> tuple[Array, Bools | None]:
        """Return each step as a row, and the mask within these rows, or None."""
        inner = None if mask is None or mask.ndim < 3 else mask.reshape(-1, *mask.shape[2:])
        return inputs.reshape(-1, *inputs.shape[2:]), inner

    def compute_mask(self, inputs: Array, mask: Bools | None = None) -> Bools | None:
        rows, inner = self.rows(inputs, mask)
        if mask is None or inner is None:
            return mask
        if len(self.layer.compute_output_shape(rows.shape)) > 2:
            passed: Bools | None = self.layer.compute_mask(rows, inner)
            if passed is not None:
                return passed.reshape(*inputs.shape[:2], *passed.shape[1:])
        steps: Bools = np.logical_or.reduce(mask, axis=tuple(range(2, mask.ndim)))
        return steps


def _split(outputs: Nested[T]) -> tuple[T, list[Nested[T]]]:
    """Return the output of a recurrent layer, and the states after it (or their shapes)."""
    if not isinstance(outputs, list):
        return outputs, []
    first = outputs[0]
    assert not isinstance(first, list)
    return first, outputs[1:]


def _copy(layer: RNN, prefix: str, **changes: object) -> RNN:
    """Return a new layer with the config of `layer` and `changes`, named as in Keras."""
    name = prefix + layer.name.removeprefix(prefix)
    return type(layer).from_config({**layer.get_config(), "name": name, **changes})
