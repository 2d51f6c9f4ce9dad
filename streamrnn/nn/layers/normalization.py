"""LayerNormalization and BatchNormalization.

On the last axis, features, they need one step only. On the time axis they cannot run on streams.
"""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import ClassVar

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.kernels import normalization
from streamrnn.nn.layers.axes import (
    as_rows,
    axes_from_end,
    checked_axis,
    from_rows,
    has_time,
    sizes_on,
)
from streamrnn.nn.layers.built_in import BuiltIn
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Accepted, declared
from streamrnn.nn.layers.initializers import Initial
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape

_INTEGERS = "Expected an int or a list/tuple of ints for the argument 'axis'"


@declared
class _OnAxes(BuiltIn):
    """The arguments and weights of both: gamma and beta, one value per place on the axes."""

    stepwise = True
    why: ClassVar[str]

    axis: int | Sequence[int] = -1
    _: KW_ONLY
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: Initial = Initial("zeros")
    gamma_initializer: Initial = Initial("ones")

    def complete(self) -> None:
        self.axis = checked_axis(self, self.axis, _INTEGERS)

    def build(self, input_shape: Shape) -> None:
        self.axes = axes_from_end(self, self.axis, len(input_shape))
        self.shape = sizes_on(self, self.axes, input_shape)
        self.features = math.prod(self.shape)
        self.on_time = has_time(self.axes, input_shape)
        if self.scale:
            self.add_weight("gamma", self.shape, self.gamma_initializer)
        if self.center:
            self.add_weight("beta", self.shape, self.beta_initializer)
        self.built = True

    def check_input(self, shape: Shape) -> None:
        if self.axes == (-1,):
            self.expect_features(shape, self.features)
        elif len(shape) < -self.axes[0] or sizes_on(self, self.axes, shape) != self.shape:
            raise ShapeError(
                f"{self}: expected sizes {self.shape} on axis {self.axis}, received shape {shape}"
            )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        axes_from_end(self, self.axis, len(input_shape))
        return input_shape

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        return self.why if self.on_time else None


@builtin_layer
class LayerNormalization(_OnAxes):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, over the features of each step.

    Ba et al. 2016. axis: others to take mean and variance over. Weights: gamma and beta, of the
    sizes of these axes, (F,).
    """

    why = "its mean is over the steps of a sequence; use axis=-1"

    _: KW_ONLY
    rms_scaling: Accepted = Accepted(False)

    def complete(self) -> None:
        super().complete()
        if self.rms_scaling:
            raise ArgumentError(f"{self}: rms_scaling is refused: Keras itself calls it incorrect")

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.ragged = not self.on_time

    def apply(self, inputs: Array, context: CallContext) -> Array:
        features = self.features
        w = self._weights
        gamma = w["gamma"].reshape(-1) if self.scale else np.ones(features, np.float32)
        beta = w["beta"].reshape(-1) if self.center else np.zeros(features, np.float32)
        x, shape = as_rows(inputs, self.axes)
        y = np.empty_like(x)
        normalization.layer_norm(x, gamma, beta, self.epsilon, y)
        return from_rows(y, self.axes, shape)


@builtin_layer
class BatchNormalization(_OnAxes):
    """gamma (x - moving_mean) / sqrt(moving_variance + epsilon) + beta.

    Called with training=True, unless it is frozen (trainable=False): with mean and variance of the
    batch, without masked steps; the moving ones change in place, to
    momentum * moving + (1 - momentum) * of the batch. In a model that is trained it must be frozen.
    axis: the one that has statistics of its own for each place. Weights: gamma, beta, moving_mean,
    moving_variance, (F,) each.
    """

    moves_in_training = True

    why = "it has statistics for each step of a sequence; use axis=-1"

    _: KW_ONLY
    momentum: float = 0.99
    moving_mean_initializer: Initial = Initial("zeros")
    moving_variance_initializer: Initial = Initial("ones")
    synchronized: Accepted = Accepted(False)
    renorm: Accepted = Accepted(False)
    renorm_clipping: Accepted = Accepted(None)
    renorm_momentum: Accepted = Accepted(0.99)
    after: ClassVar = {"momentum": "axis"}

    def complete(self) -> None:
        super().complete()
        if self.renorm:
            raise ArgumentError(
                f"{self}: renorm=True is refused: its moments are of training, and no layer here "
                "keeps them; train with renorm=False"
            )

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if len(self.axes) > 1:
            raise ArgumentError(f"{self}: axis must be a single one, received axis={self.axis}")
        shape = self.shape
        self.add_weight("moving_mean", shape, self.moving_mean_initializer, trainable=False)
        self.add_weight("moving_variance", shape, self.moving_variance_initializer, trainable=False)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        w = self._weights
        mean, variance = w["moving_mean"].value, w["moving_variance"].value
        if context.training and self.trainable:
            mean, variance = self._moments(inputs, context.mask)
            momentum = np.float32(self.momentum)
            for name, moment in (("moving_mean", mean), ("moving_variance", variance)):
                w[name].assign(w[name] * momentum + moment * (1 - momentum))
        factor = self.factor(variance)
        shift = -mean * factor
        if self.center:
            shift = shift + w["beta"]
        y: Floats = inputs * factor[self._beside()] + shift[self._beside()]
        return y

    def _beside(self) -> tuple[slice | None, ...]:
        """Return the index that puts numbers for each place beside the axes of the inputs."""
        return (slice(None), *(None,) * (-1 - self.axes[0]))

    def _moments(self, inputs: Floats, mask: Bools | None) -> tuple[Floats, Floats]:
        """Return mean and variance for each place on the axis, of the steps that are present."""
        others = tuple(axis for axis in range(-inputs.ndim, 0) if axis != self.axes[0])
        present = np.ones((1,) * inputs.ndim, np.bool_)
        if mask is not None:
            present = mask.reshape(*mask.shape, *(1,) * (inputs.ndim - mask.ndim))
        present = np.broadcast_to(present, inputs.shape)
        count = np.maximum(present.sum(others), 1)
        mean = inputs.sum(others, np.float64, where=present) / count
        squares = (inputs - mean[self._beside()]) ** 2
        variance = squares.sum(others, np.float64, where=present) / count
        return mean.astype(np.float32), variance.astype(np.float32)

    def factor(self, variance: Floats) -> Floats:
        """Return what inputs are multiplied by, one number for each place on the axis."""
        factor: Floats = np.float32(1) / np.sqrt(variance + np.float32(self.epsilon))
        return factor * self._weights["gamma"] if self.scale else factor
