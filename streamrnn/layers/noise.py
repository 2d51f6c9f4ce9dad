"""Layers that act in training only, and return their input otherwise."""

from typing import ClassVar, Unpack

from streamrnn.arrays import Array
from streamrnn.errors import UnsupportedError
from streamrnn.layers.arguments import LayerOptions
from streamrnn.layers.context import CallContext
from streamrnn.layers.layer import Layer
from streamrnn.layers.registry import ConfigDict, builtin_layer


@builtin_layer
class Identity(Layer):
    """Returns its input."""

    stepwise = True

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return inputs


class _Noise(Layer):
    stepwise = True
    field: ClassVar[str] = "rate"

    def __init__(self, strength: float, seed: int | None, **kwargs: Unpack[LayerOptions]) -> None:
        super().__init__(**kwargs)
        self.strength = strength
        self.seed = seed

    def apply(self, inputs: Array, context: CallContext) -> Array:
        if context.training:
            raise UnsupportedError(f"{self}: training=True is not supported; use Dropout")
        return inputs

    def get_config(self) -> ConfigDict:
        return {**super().get_config(), self.field: self.strength, "seed": self.seed}


@builtin_layer
class GaussianNoise(_Noise):
    """Adds noise of standard deviation `stddev` in training, which is not supported."""

    field = "stddev"

    def __init__(
        self, stddev: float, seed: int | None = None, **kwargs: Unpack[LayerOptions]
    ) -> None:
        super().__init__(stddev, seed, **kwargs)


@builtin_layer
class GaussianDropout(_Noise):
    """Multiplies by noise in training, which is not supported."""

    def __init__(
        self, rate: float, seed: int | None = None, **kwargs: Unpack[LayerOptions]
    ) -> None:
        super().__init__(rate, seed, **kwargs)


@builtin_layer
class AlphaDropout(_Noise):
    """Dropout for SELU networks in training, which is not supported. noise_shape: not used."""

    def __init__(
        self,
        rate: float,
        noise_shape: object = None,
        seed: int | None = None,
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(rate, seed, **kwargs)
