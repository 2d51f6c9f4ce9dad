"""Normalization and Rescaling: fixed scaling of features, as a part of the model.

A mask passes through both, as in Keras 3.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array, Floats
from streamrnn.base.display import count as counted
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers.built_in import Stepwise
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Argument
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape

_EPSILON = np.float32(1e-7)


@builtin_layer
class Normalization(Stepwise):
    """(x - mean) / max(sqrt(variance), 1e-7) for each feature; invert=True undoes it.

    mean, variance: arguments, or learned by `adapt(data)`, or set as weights (mean (F,), variance
    (F,), count (), as in Keras). Only the last axis (-1), or None for one mean and
    variance over all features, is supported.
    """

    axis: int | Sequence[int] | None = -1
    mean: Argument[npt.ArrayLike | None, Floats | None] = Argument(default=None)
    variance: Argument[npt.ArrayLike | None, Floats | None] = Argument(default=None)
    invert: bool = False

    def complete(self) -> None:
        self.axis = tuple(self.axis) if isinstance(self.axis, list | tuple) else self.axis
        if (self.mean is None) != (self.variance is None):
            raise ArgumentError(
                f"{self}: both `mean` and `variance` must be set, or neither, received "
                f"mean={self.mean!r}, variance={self.variance!r}"
            )
        self.mean = None if self.mean is None else np.array(self.mean, dtype=np.float32)
        self.variance = None if self.variance is None else np.array(self.variance, dtype=np.float32)

    def build(self, input_shape: Shape) -> None:
        rank = len(input_shape)
        axes = () if self.axis is None else np.atleast_1d(self.axis)
        if any(not -rank <= axis < rank for axis in axes):
            raise ArgumentError(
                f"{self}: All `axis` values must be in the range [-ndim, ndim), received "
                f"axis={self.axis!r} for an input of {rank} axes"
            )
        if any(axis % rank != rank - 1 for axis in axes):
            raise ArgumentError(
                f"{self}: axis must be -1 (features) or None, received {self.axis!r}"
            )
        if len(axes) and input_shape[-1] is None:
            raise ShapeError(
                f"{self}: All `axis` values to be kept must have a known shape: the features of "
                f"{input_shape} are unknown"
            )
        shape = (self.known_features(input_shape),) if len(axes) else ()
        if self.mean is None:
            self.add_weight("mean", shape, "zeros", trainable=False)
            self.add_weight("variance", shape, "ones", trainable=False)
            self.add_weight("count", (), "zeros", trainable=False)
        else:
            for value in (self.mean, self.variance):
                assert value is not None
                if value.size not in (1, *shape):
                    raise ShapeError(
                        f"{self}: expected a mean and variance of shape {shape}, or one number for "
                        f"all, received shape {value.shape}"
                    )
        self.features = shape[0] if shape else None

    def check_input(self, shape: Shape) -> None:
        if self.features is not None:
            self.expect_features(shape, self.features)

    def adapt(self, data: npt.ArrayLike | Iterable[Any]) -> None:
        """Learn mean and variance from data (…, F), or from batches of it, in float64.

        data: an array, or an iterable of arrays, which is read once; from tuples (x, y, …), x is
        used. Raises ArgumentError for data without rows, or if mean and variance were passed;
        ShapeError for another number of features.
        """
        if self.mean is not None:
            raise ArgumentError(
                f"{self}: mean and variance were passed, so adapt has nothing to learn; make the "
                "layer without them to adapt it"
            )
        mean, variance, rows, count = np.float64(0), np.float64(0), 0, 0
        for x in _batches(self, data):
            self.ensure_built((None, *x.shape[1:]))
            if self.features is not None and x.shape[-1] != self.features:
                raise ShapeError(
                    f"{self}: adapt received data of an incompatible shape {x.shape}: the layer "
                    f"was built for {counted(self.features, 'feature')}"
                )
            axes = tuple(range(x.ndim if self.features is None else x.ndim - 1))
            of_batch = x.mean(axis=axes), x.var(axis=axes), math.prod(x.shape[: len(axes)])
            mean, variance = _joined((mean, variance, count), of_batch) if rows else of_batch[:2]
            rows, count = rows + len(x), count + of_batch[2]
        if not rows:
            raise ArgumentError(f"{self}: adapt received an empty iterable; pass one batch or more")
        self.set_weights([mean, variance, np.float32(rows)])

    def deviation(self) -> Floats:
        """Return the divisor of the inputs."""
        variance = self._weights["variance"] if self.variance is None else self.variance.reshape(-1)
        scale: Floats = np.maximum(np.sqrt(variance), _EPSILON)
        return scale

    def apply(self, inputs: Array, context: CallContext) -> Array:
        mean = self._weights["mean"] if self.mean is None else self.mean.reshape(-1)
        scale = self.deviation()
        return mean + inputs * scale if self.invert else (inputs - mean) / scale


class Numbers(Argument[npt.ArrayLike, Floats]):
    """A number, or a list with a number for each feature."""

    def take(self, owner: object, name: str, value: Any) -> Floats:
        try:
            return np.array(value, dtype=np.float32)
        except (TypeError, ValueError):
            raise ArgumentError(
                f"{owner}: {name} must be a number or a list of numbers, received {value!r}"
            ) from None


@builtin_layer
class Rescaling(Stepwise):
    """x * scale + offset; scale and offset are each a number, or one value per feature."""

    scale: Numbers
    offset: Numbers = Numbers(0.0)

    def check_input(self, shape: Shape) -> None:
        for value in (self.scale, self.offset):
            if value.ndim and value.shape[-1] not in (1, shape[-1]):
                raise ShapeError(
                    f"{self}: its scale or offset is for {value.shape[-1]} features, received "
                    f"shape {shape}"
                )

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return inputs * self.scale + self.offset


def _batches(layer: Layer, data: Any) -> Iterator[Array]:
    """Yield the batches of an iterable; an array or nested list is one. Raises ArgumentError."""
    several = isinstance(data, list | tuple)
    nested = several and len(data) > 0 and not any(hasattr(_of_batch(x), "shape") for x in data)
    if nested or hasattr(data, "__array__"):
        yield np.asarray(data, dtype=np.float64)
        return
    if not isinstance(data, Iterable):
        raise ArgumentError(
            f"{layer}: adapt expects an array, or an iterable of batches, received {data!r:.80}"
        )
    for item in data:
        batch = _of_batch(item)
        if not hasattr(batch, "shape"):
            raise ArgumentError(
                f"{layer}: adapt expects batches that are arrays, with a `.shape`, received "
                f"{batch!r:.80}"
            )
        if len(batch):
            yield np.asarray(batch, dtype=np.float64)


def _of_batch(item: Any) -> Any:
    return item[0] if isinstance(item, tuple) and item else item


def _joined(one: tuple[Any, Any, int], other: tuple[Any, Any, int]) -> tuple[Any, Any]:
    """Return mean and variance of the union of two sets (Chan, Golub and LeVeque 1979)."""
    (mean, variance, n), (new_mean, new_variance, m) = one, other
    share, apart = m / (n + m), new_mean - mean
    joined = variance * (1 - share) + new_variance * share + apart * apart * (share * (1 - share))
    return mean + apart * share, joined
