"""Activations as layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamrnn.layers import activations, initializers
from streamrnn.layers.arguments import ArgumentError
from streamrnn.layers.context import CallContext
from streamrnn.layers.layer import Layer
from streamrnn.layers.registry import builtin_layer


@builtin_layer
class Activation(Layer):
    """Any activation by name: Activation("tanh")."""

    stepwise = True

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation, str(self))

    def apply(self, inputs: Any, context: CallContext) -> Any:
        return activations.compute(self.activation, inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "activation": self.activation}


@builtin_layer
class ReLU(Layer):
    """max(x, 0), or: max_value where x >= max_value, negative_slope (x - threshold) below it."""

    stepwise = True

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_value = max_value
        self.negative_slope = negative_slope or 0.0
        self.threshold = threshold or 0.0

    def apply(self, inputs: Any, context: CallContext) -> Any:
        threshold, slope = np.float32(self.threshold), np.float32(self.negative_slope)
        y = np.where(inputs < threshold, slope * (inputs - threshold), inputs)
        return y if self.max_value is None else np.minimum(y, np.float32(self.max_value))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
            "threshold": self.threshold,
        }


@builtin_layer
class LeakyReLU(Layer):
    """x where x >= 0, else negative_slope x. `alpha` is its name in Keras 2."""

    stepwise = True

    def __init__(
        self, negative_slope: float = 0.3, *, alpha: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.negative_slope = negative_slope if alpha is None else alpha

    def apply(self, inputs: Any, context: CallContext) -> Any:
        return np.where(inputs < 0, np.float32(self.negative_slope) * inputs, inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "negative_slope": self.negative_slope}


@builtin_layer
class ELU(Layer):
    """x where x > 0, else alpha (exp(x) - 1)."""

    stepwise = True

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha

    def apply(self, inputs: Any, context: CallContext) -> Any:
        y = activations.compute("elu", inputs)
        return np.where(inputs > 0, y, np.float32(self.alpha) * y)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}


@builtin_layer
class PReLU(Layer):
    """x where x >= 0, else alpha x, with a learnt alpha. Weight: alpha, the shape of one input.

    shared_axes: axes (from 1) that share an alpha; time has to be one of them, as its length is
    not known.
    """

    stepwise = True

    def __init__(
        self,
        alpha_initializer: Any = "zeros",
        shared_axes: Sequence[int] | int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.shared_axes = [shared_axes] if isinstance(shared_axes, int) else shared_axes

    def build(self, input_shape: Any) -> None:
        shape = list(input_shape[1:])
        for axis in self.shared_axes or ():
            shape[axis - 1] = 1
        if None in shape:
            raise ArgumentError(
                f"{self}: an alpha for each step needs a known number of steps, received "
                f"{input_shape}; share it over time with shared_axes=[1]"
            )
        self.add_weight("alpha", shape, self.alpha_initializer)
        self.built = True

    def why_not_stepwise(self, input_shape: Any) -> str | None:
        alpha = self._weights["alpha"].shape
        return "it has an alpha for each step" if len(alpha) > 1 and alpha[0] != 1 else None

    def check_input(self, shape: Any) -> None:
        self.expect_features(
            shape, self._weights["alpha"].shape[-1] if self._own_alphas() else shape[-1]
        )

    def _own_alphas(self) -> bool:
        return bool(self._weights["alpha"].shape[-1] != 1)

    def apply(self, inputs: Any, context: CallContext) -> Any:
        return np.where(inputs < 0, self._weights["alpha"] * inputs, inputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha_initializer": initializers.serialize(self.alpha_initializer),
            "shared_axes": None if self.shared_axes is None else list(self.shared_axes),
        }


@builtin_layer
class Softmax(Layer):
    """exp(x) / sum of exp(x) over the last axis."""

    stepwise = True

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def build(self, input_shape: Any) -> None:
        if self.axis % len(input_shape) != len(input_shape) - 1:
            raise ArgumentError(
                f"{self}: only the last axis is supported, received axis={self.axis}"
            )
        self.built = True

    def apply(self, inputs: Any, context: CallContext) -> Any:
        return activations.compute("softmax", inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}
