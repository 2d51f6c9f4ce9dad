"""LayerNormalization, and BatchNormalization in inference."""

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from streamrnn.arrays import Array, Floats
from streamrnn.errors import ArgumentError
from streamrnn.kernels import normalization
from streamrnn.layers import initializers
from streamrnn.layers.arguments import LayerOptions
from streamrnn.layers.context import CallContext
from streamrnn.layers.initializers import InitializerLike
from streamrnn.layers.layer import Layer
from streamrnn.layers.registry import ConfigDict, builtin_layer
from streamrnn.layers.symbol import Shape


class _OnFeatures(Layer):
    """The arguments and weights of both: gamma and beta, one value per feature."""

    stepwise = True

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)

    def build(self, input_shape: Shape) -> None:
        axes, rank = np.atleast_1d(self.axis), len(input_shape)
        if len(axes) != 1 or axes[0] % rank != rank - 1:
            raise ArgumentError(
                f"{self}: only the last axis (features) is supported, received axis={self.axis}"
            )
        shape = (self.known_features(input_shape),)
        if self.scale:
            self.add_weight("gamma", shape, self.gamma_initializer)
        if self.center:
            self.add_weight("beta", shape, self.beta_initializer)
        self.features = shape[0]
        self.built = True

    def check_input(self, shape: Shape) -> None:
        self.expect_features(shape, self.features)

    def get_config(self) -> ConfigDict:
        return {
            **super().get_config(),
            "axis": list(self.axis) if isinstance(self.axis, list | tuple) else self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
        }


@builtin_layer
class LayerNormalization(_OnFeatures):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, over the features of each step.

    Ba et al. 2016. Weights: gamma (F,), beta (F,).
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        rms_scaling: bool = False,
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            axis, epsilon, center, scale, beta_initializer, gamma_initializer, **kwargs
        )
        if rms_scaling:
            raise ArgumentError(f"{self}: rms_scaling is refused: Keras itself calls it incorrect")

    def apply(self, inputs: Array, context: CallContext) -> Array:
        features = self.features
        gamma = self._weights["gamma"] if self.scale else np.ones(features, np.float32)
        beta = self._weights["beta"] if self.center else np.zeros(features, np.float32)
        y = np.empty_like(inputs)
        rows = (-1, features)
        normalization.layer_norm(inputs.reshape(rows), gamma, beta, self.epsilon, y.reshape(rows))
        return y


@builtin_layer
class BatchNormalization(_OnFeatures):
    """gamma (x - moving_mean) / sqrt(moving_variance + epsilon) + beta.

    Always the moving statistics, also with training=True: Monte Carlo dropout needs them. In a
    model that is trained it must be frozen (trainable=False). Weights: gamma, beta, moving_mean,
    moving_variance, (F,) each.
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        *,
        moving_mean_initializer: InitializerLike = "zeros",
        moving_variance_initializer: InitializerLike = "ones",
        synchronized: bool = False,
        renorm: bool = False,
        renorm_clipping: object = None,
        renorm_momentum: float = 0.99,
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(axis, epsilon, center, scale, **kwargs)
        self.momentum = momentum
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        shape = (self.features,)
        self.add_weight("moving_mean", shape, self.moving_mean_initializer, trainable=False)
        self.add_weight("moving_variance", shape, self.moving_variance_initializer, trainable=False)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        w, factor = self._weights, self.factor()
        shift = -w["moving_mean"] * factor
        if self.center:
            shift = shift + w["beta"]
        y: Floats = inputs * factor + shift
        return y

    def factor(self) -> Floats:
        """Return what inputs are multiplied by (F,)."""
        w = self._weights
        factor: Floats = np.float32(1) / np.sqrt(w["moving_variance"] + np.float32(self.epsilon))
        return factor * w["gamma"] if self.scale else factor

    def get_config(self) -> ConfigDict:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
        }
