"""What all losses share: the mean over samples, their weights, and checks of the truth."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from streamrnn.arrays import Array, Floats
from streamrnn.errors import ArgumentError, DataError, ShapeError
from streamrnn.kernels import losses as kernel


class Loss:
    """The base of losses: the mean over samples (and steps) of their values, or their sum.

    reduction: "sum_over_batch_size" or "sum".
    """

    own_name: ClassVar[str]

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        self.name = name or self.own_name
        if reduction not in ("sum_over_batch_size", "sum"):
            raise ArgumentError(
                f"loss {self.name!r}: reduction must be 'sum_over_batch_size' or 'sum', received "
                f"{reduction!r}"
            )
        if dtype not in (None, "float32"):
            raise ArgumentError(f"loss {self.name!r}: dtype must be 'float32', received {dtype!r}")
        self.reduction = reduction

    def __call__(
        self,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """Return the loss of predictions."""
        pred = np.ascontiguousarray(y_pred, np.float32)
        return self.with_slope(self.truth(y_true, pred), pred, sample_weight, None)[0]

    def truth(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        """Return the truth as an array of the shape of the predictions. Raises ShapeError."""
        return truth_array(f"loss {self.name!r}", y_true, y_pred)

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        """Return the value of each sample, the derivatives of terms, and terms in a value."""
        raise NotImplementedError(f"{type(self).__name__} must implement `values`")

    def with_slope(
        self, t: Floats, p: Floats, sample_weight: npt.ArrayLike | None, mask: Array | None
    ) -> tuple[float, Floats]:
        """Return the loss and its derivative by each prediction.

        mask: False where a step is left out; a mean is then over the steps that are not.
        """
        value, slope, terms = self.values(t, p)
        if sample_weight is None and mask is None:
            divisor = 1.0 if self.reduction == "sum" else float(max(value.size, 1))
            slope *= np.float32(1) / np.float32(divisor * terms)
            return kernel.total(value) / divisor, slope
        weight = weights_of(f"loss {self.name!r}", value.shape, sample_weight)
        count = value.size
        if mask is not None:
            weight = weight * mask.reshape(mask.shape + (1,) * (value.ndim - mask.ndim))
            count = int(np.broadcast_to(mask, value.shape).sum()) if value.size else 0
        divisor = 1.0 if self.reduction == "sum" else float(max(count, 1))
        # Where the weight is 0 a step may hold anything, NaN too.
        value = np.where(weight == 0, np.float32(0), value)
        factor = weight / np.float32(divisor * terms)
        slope = np.where(weight[..., None] == 0, np.float32(0), slope * factor[..., None])
        return kernel.dot(value, weight) / divisor, slope


def weights_of(owner: str, shape: tuple[int, ...], sample_weight: npt.ArrayLike | None) -> Floats:
    """Return a weight for each value: those of samples, (B,) or the shape of the values."""
    if sample_weight is None:
        return np.ones(shape, np.float32)
    given = np.asarray(sample_weight, np.float32)
    if given.ndim == len(shape) + 1 and given.shape[-1] == 1:
        given = given[..., 0]
    if given.shape != shape[: given.ndim]:
        raise ShapeError(
            f"{owner}: sample_weight must have shape {shape[:1]} or {shape}, received {given.shape}"
        )
    spread = given.reshape(given.shape + (1,) * (len(shape) - given.ndim))
    return np.ascontiguousarray(np.broadcast_to(spread, shape))


def truth_array(owner: str, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
    """Return the truth as float32 in the shape of the predictions. Raises ShapeError."""
    t = np.asarray(y_true)
    if t.dtype.kind not in "fiub":
        raise DataError(f"{owner}: expected numbers as y, received {t.dtype}")
    if t.ndim == y_pred.ndim - 1 and y_pred.shape[-1] == 1:
        t = t[..., None]
    elif t.ndim == y_pred.ndim + 1 and t.shape[-1] == 1:
        t = t[..., 0]
    if t.shape != y_pred.shape:
        raise ShapeError(f"{owner}: y must have shape {y_pred.shape}, received {t.shape}")
    return np.ascontiguousarray(t, np.float32)


def categories(owner: str, y_true: npt.ArrayLike, y_pred: Floats) -> Array:
    """Return the number of the category of each sample. Raises ShapeError, DataError."""
    found = np.asarray(y_true)
    if found.ndim == y_pred.ndim and found.shape[-1] == 1:
        found = found[..., 0]
    if found.shape != y_pred.shape[:-1]:
        raise ShapeError(f"{owner}: y must have shape {y_pred.shape[:-1]}, received {found.shape}")
    ids = found.astype(np.int64)
    if found.dtype.kind not in "iub" and not (ids == found).all():
        raise DataError(f"{owner}: y must be whole numbers, received {found.dtype}")
    if ids.size and not 0 <= ids.min() <= ids.max() < y_pred.shape[-1]:
        raise DataError(
            f"{owner}: y must lie in 0…{y_pred.shape[-1] - 1}, received {ids.min()}…{ids.max()}"
        )
    return ids


def one_hot(ids: Array, units: int) -> Floats:
    """Return 1 at each category, else 0."""
    chosen: Floats = (ids[..., None] == np.arange(units)).astype(np.float32)
    return chosen


class Elementwise(Loss):
    """A loss of each element; the value of a sample is the mean over the last axis."""

    kernel_name: ClassVar[str]

    def parameters(self) -> tuple[float, ...]:
        """Return the parameters of the kernel."""
        return ()

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        value, slope = kernel.elementwise(self.kernel_name, p, t, *self.parameters())
        return kernel.means_of_rows(value), slope, float(p.shape[-1])


class RowLoss(Loss):
    """A loss of whole rows: one value for all elements of the last axis."""

    kernel_name: ClassVar[str]

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        value, slope = kernel.of_rows(self.kernel_name, p, t)
        return value, slope, 1.0


def check_axis(name: str, axis: int) -> None:
    """Raise ArgumentError unless the axis is the last one."""
    if axis != -1:
        raise ArgumentError(f"loss {name!r}: axis must be -1, received {axis}")
