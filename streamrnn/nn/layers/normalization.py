"""Layers that normalize: by layer, batch, root mean square, unit length and group.

On the last axis (features), all layers except GroupNormalization can run on streams. On the time
axis, none can.
"""

import math
from dataclasses import KW_ONLY
from typing import ClassVar

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.kernels import normalization
from streamrnn.nn.kernels.normalization import Root
from streamrnn.nn.layers import initializers
from streamrnn.nn.layers.axes import (
    AlongAxes,
    as_rows,
    axes_from_end,
    checked_axis,
    from_rows,
    sizes_on,
)
from streamrnn.nn.layers.built_in import Unmasked
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Accepted, declared
from streamrnn.nn.layers.initializers import Initial
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape
from streamrnn.nn.layers.weights import WeightAttribute

_INTEGERS = "Expected an int or a list/tuple of ints for the argument 'axis'"


@declared
class _OnAxes(AlongAxes):
    """The shared arguments and weights: gamma and beta, one value per position on the axes."""

    _: KW_ONLY
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: Initial = Initial("zeros")
    gamma_initializer: Initial = Initial("ones")

    def complete(self) -> None:
        self.axis = checked_axis(self, self.axis, _INTEGERS)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.shape = sizes_on(self, self.axes, input_shape)
        self.features = math.prod(self.shape)
        if self.scale:
            self.add_weight("gamma", self.shape, self.gamma_initializer)
        if self.center:
            self.add_weight("beta", self.shape, self.beta_initializer)

    def check_input(self, shape: Shape) -> None:
        if self.axes == (-1,):
            self.expect_features(shape, self.features)
        elif len(shape) <= -self.axes[0] or sizes_on(self, self.axes, shape) != self.shape:
            raise ShapeError(
                f"{self}: expected sizes {self.shape} on axis {self.axis}, received shape {shape}"
            )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        axes_from_end(self, self.axis, len(input_shape))
        return input_shape


@builtin_layer
class LayerNormalization(_OnAxes):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, over the features of each step.

    Ba et al. 2016. axis: the axes to take mean and variance over. Weights: gamma and beta, with
    the sizes of these axes, by default (F,).
    """

    why = "its mean is over the steps of a sequence; use axis=-1"

    _: KW_ONLY
    rms_scaling: Accepted = Accepted(False)

    def complete(self) -> None:
        super().complete()
        if self.rms_scaling:
            raise ArgumentError(
                f"{self}: rms_scaling is refused: Keras itself calls it incorrect; train with "
                "RMSNormalization"
            )

    def apply(self, inputs: Array, context: CallContext) -> Array:
        features = self.features
        w = self._weights
        gamma = w["gamma"].reshape(-1) if self.scale else np.ones(features, np.float32)
        beta = w["beta"].reshape(-1) if self.center else np.zeros(features, np.float32)
        x, shape = as_rows(inputs, self.axes)
        y = normalization.layer_norm(x, gamma, beta, self.epsilon)
        return from_rows(y, self.axes, shape)


@builtin_layer
class BatchNormalization(_OnAxes):
    """gamma (x - moving_mean) / sqrt(moving_variance + epsilon) + beta.

    Called with training=True, unless it is frozen (trainable=False), it uses mean and variance of
    the batch, without masked steps, and changes the moving mean and variance in place to
    momentum * moving + (1 - momentum) * batch. axis: the axis with separate statistics for each
    position. Weights: gamma, beta, moving_mean, moving_variance, by default (F,) each.
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
                f"{self}: renorm=True is refused: it needs moments of training, which no layer "
                "here keeps; train with renorm=False"
            )

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if len(self.axes) > 1:
            raise ArgumentError(f"{self}: axis must be a single axis, received axis={self.axis}")
        self.ragged = True  # also on the time axis, where each step has its own statistics
        shape = self.shape
        self.add_weight("moving_mean", shape, self.moving_mean_initializer, trainable=False)
        self.add_weight("moving_variance", shape, self.moving_variance_initializer, trainable=False)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        w = self._weights
        mean, variance = self.moving_moments()
        if context.training and self.trainable:
            mean, variance = self.moments(inputs, context.mask)
            momentum = np.float32(self.momentum)
            for name, moment in (("moving_mean", mean), ("moving_variance", variance)):
                w[name].assign(w[name] * momentum + moment * (1 - momentum))
        factor = self.factor(variance)
        shift = -mean * factor
        if self.center:
            shift = shift + w["beta"]
        y: Floats = inputs * factor[self.beside()] + shift[self.beside()]
        return y

    def moving_moments(self) -> tuple[Floats, Floats]:
        """Return the moving mean and variance."""
        return self._weights["moving_mean"].value, self._weights["moving_variance"].value

    def beside(self) -> tuple[slice | None, ...]:
        """Return the index that aligns one number per position with the axes of the inputs."""
        return (slice(None), *(None,) * (-1 - self.axes[0]))

    def moments(self, inputs: Floats, mask: Bools | None) -> tuple[Floats, Floats]:
        """Return mean and variance for each position on the axis, over unmasked steps."""
        others = self._others(inputs)
        present = self._present(inputs, mask)
        count = np.maximum(present.sum(others), 1)
        mean = inputs.sum(others, np.float64, where=present) / count
        squares = (inputs - mean[self.beside()]) ** 2
        variance = squares.sum(others, np.float64, where=present) / count
        return mean.astype(np.float32), variance.astype(np.float32)

    def shares(self, inputs: Floats, mask: Bools | None) -> Floats:
        """Return each input's weight in the moments of its position; 0 if it is masked."""
        present = self._present(inputs, mask)
        count = np.maximum(present.sum(self._others(inputs)), 1)
        shares: Floats = present / count.astype(np.float32)[self.beside()]
        return shares

    def _others(self, inputs: Floats) -> tuple[int, ...]:
        return tuple(axis for axis in range(-inputs.ndim, 0) if axis != self.axes[0])

    def _present(self, inputs: Floats, mask: Bools | None) -> Bools:
        present = np.ones((1,) * inputs.ndim, np.bool_)
        if mask is not None:
            present = mask.reshape(*mask.shape, *(1,) * (inputs.ndim - mask.ndim))
        return np.broadcast_to(present, inputs.shape)

    def factor(self, variance: Floats) -> Floats:
        """Return the factors of the inputs, one for each position on the axis."""
        factor: Floats = np.float32(1) / np.sqrt(variance + np.float32(self.epsilon))
        return factor * self._weights["gamma"] if self.scale else factor


@declared
class RootNormalization(AlongAxes):
    """Divides by a root of the sum of squares over axes: see `root` and `factors`."""

    def complete(self) -> None:
        self.axis = checked_axis(self, self.axis)

    def check_input(self, shape: Shape) -> None:
        if len(shape) <= -self.axes[0]:
            raise ShapeError(f"{self}: axis={self.axis} is out of range for shape {shape}")

    def root(self, size: int) -> Root:
        """Return the divisor for rows of this size."""
        raise NotImplementedError

    def factors(self, size: int) -> Floats:
        """Return the factors for rows of this size."""
        raise NotImplementedError

    def apply(self, inputs: Array, context: CallContext) -> Array:
        x, shape = as_rows(inputs, self.axes)
        y = normalization.root_norm(x, self.factors(x.shape[1]), self.root(x.shape[1]))
        return from_rows(y, self.axes, shape)


@builtin_layer
class UnitNormalization(RootNormalization):
    """x / sqrt(sum of squares over the axis): vectors of length 1. Zeros stay zeros."""

    def root(self, size: int) -> Root:
        return Root(1.0, 0.0, 1e12)

    def factors(self, size: int) -> Floats:
        return np.ones(size, np.float32)


@builtin_layer
class RMSNormalization(Unmasked, RootNormalization):
    """scale x / sqrt(mean of squares + epsilon), over the features of each step.

    Zhang and Sennrich 2019. axis: the axes to take the mean over. Weight: scale, with the sizes of
    these axes, by default (F,). As in Keras, and unlike other normalizations, it passes no mask on.
    """

    scale = WeightAttribute()

    epsilon: float = 1e-6

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.shape = sizes_on(self, self.axes, input_shape)
        self.add_weight("scale", self.shape, initializers.get("ones"))

    def check_input(self, shape: Shape) -> None:
        super().check_input(shape)
        if sizes_on(self, self.axes, shape) != self.shape:
            raise ShapeError(
                f"{self}: expected sizes {self.shape} on axis {self.axis}, received shape {shape}"
            )

    def root(self, size: int) -> Root:
        return Root(float(size), self.epsilon, math.inf)

    def factors(self, size: int) -> Floats:
        return self._weights["scale"].reshape(-1)


@builtin_layer
class GroupNormalization(_OnAxes):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, over all steps and a group of features.

    Wu and He 2018. groups: the number of groups; -1: each feature is a group. Weights: gamma and
    beta, (F,). With sequences it needs the whole time axis.
    """

    axis: int = -1
    groups: int = 32
    after: ClassVar = {"axis": "groups"}

    def complete(self) -> None:
        groups = self.groups
        if isinstance(groups, bool) or not isinstance(groups, int) or groups < -1 or groups == 0:
            raise ArgumentError(
                f"{self}: the argument `groups` must be a positive integer, or -1, received "
                f"{self.groups!r}"
            )

    def build(self, input_shape: Shape) -> None:
        features = input_shape[axes_from_end(self, self.axis, len(input_shape))[0]]
        if features is None:
            raise ShapeError(
                f"{self}: axis={self.axis} of the input tensor should have a defined dimension but "
                f"the layer received an input with shape {input_shape}"
            )
        if self.groups > features:
            raise ArgumentError(
                f"{self}: groups={self.groups} cannot be more than the number of channels "
                f"({features})"
            )
        if features % self.groups:
            raise ArgumentError(
                f"{self}: the number of channels, {features}, must be a multiple of groups="
                f"{self.groups}"
            )
        super().build(input_shape)
        self.ragged = len(input_shape) < 3

    def check_input(self, shape: Shape) -> None:
        if len(shape) <= -self.axes[0] or shape[self.axes[0]] != self.features:
            raise ShapeError(
                f"{self}: expected size {self.features} on axis {self.axis}, received shape {shape}"
            )

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        why = "its mean is over the steps of a sequence; use LayerNormalization"
        return why if len(input_shape) > 2 else None

    def apply(self, inputs: Array, context: CallContext) -> Array:
        # With vectors on a stream, each step is a separate row.
        lead = inputs.shape[:2] if self.ragged and inputs.ndim > 2 else inputs.shape[:1]
        axis = self.axes[0] % inputs.ndim
        moved = np.moveaxis(inputs, axis, len(lead))
        groups = self.features if self.groups == -1 else self.groups
        size = math.prod(moved.shape[len(lead) :]) // groups
        rows = np.ascontiguousarray(moved).reshape(-1, size)
        ones = np.ones(size, np.float32)
        y = normalization.layer_norm(rows, ones, np.zeros_like(ones), self.epsilon)
        normalized = y.reshape(moved.shape)
        beside = (slice(None), *(None,) * (moved.ndim - len(lead) - 1))
        if self.scale:
            normalized = normalized * self._weights["gamma"][beside]
        if self.center:
            normalized = normalized + self._weights["beta"][beside]
        return np.ascontiguousarray(np.moveaxis(normalized, len(lead), axis))
