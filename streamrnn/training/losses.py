"""Losses, with the names, arguments and formulas of Keras 3, and the quantile loss.

A loss is called as loss(y_true, y_pred, sample_weight=None) and returns a number. Shapes must fit:
nothing is broadcast, but y_true may lack a last axis of size 1. Sums are in one order.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from streamrnn.arrays import Array, Floats
from streamrnn.display import closest
from streamrnn.errors import ArgumentError, DataError, ShapeError
from streamrnn.kernels import losses as kernel

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Quantile",
    "SparseCategoricalCrossentropy",
    "loss_of",
]


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


class _Elementwise(Loss):
    """A loss of each element; the value of a sample is the mean over the last axis."""

    kernel_name: ClassVar[str]

    def parameters(self) -> tuple[float, ...]:
        """Return the parameters of the kernel."""
        return ()

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        value, slope = kernel.elementwise(self.kernel_name, p, t, *self.parameters())
        return kernel.means_of_rows(value), slope, float(p.shape[-1])


class MeanSquaredError(_Elementwise):
    """The squared error, (y_true - y_pred)**2."""

    own_name = "mean_squared_error"
    kernel_name = "squared"


class MeanAbsoluteError(_Elementwise):
    """The absolute error, |y_true - y_pred|."""

    own_name = "mean_absolute_error"
    kernel_name = "absolute"


class Huber(_Elementwise):
    """Squared / 2 up to an error of `delta`, then linear."""

    own_name = "huber_loss"
    kernel_name = "huber"

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        self.delta = float(delta)

    def parameters(self) -> tuple[float, ...]:
        return (self.delta,)


def _refuse_smoothing(name: str, label_smoothing: float, axis: int) -> None:
    if label_smoothing:
        raise ArgumentError(f"loss {name!r}: label_smoothing={label_smoothing} is not supported")
    if axis != -1:
        raise ArgumentError(f"loss {name!r}: axis must be -1, received {axis}")


class BinaryCrossentropy(_Elementwise):
    """-(y log p + (1 - y) log(1 - p)), p a probability or with from_logits its logit."""

    own_name = "binary_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        _refuse_smoothing(self.name, label_smoothing, axis)
        self.from_logits = from_logits

    @property
    def kernel_name(self) -> str:  # type: ignore[override]
        """The kernel of probabilities, or of logits."""
        return "binary_of_logits" if self.from_logits else "binary"


class CategoricalCrossentropy(Loss):
    """-sum of y log p over the last axis; y one-hot, or the probabilities of categories."""

    own_name = "categorical_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        _refuse_smoothing(self.name, label_smoothing, axis)
        self.from_logits = from_logits

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        value, slope = kernel.categorical(p, t, logits=self.from_logits)
        return value, slope, 1.0


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """-log p of the category y, a whole number."""

    own_name = "sparse_categorical_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(from_logits, 0.0, axis, reduction, name, dtype)
        if ignore_class is not None:
            raise ArgumentError(
                f"loss {self.name!r}: ignore_class={ignore_class} is not supported; give such "
                "steps the sample_weight 0"
            )

    def truth(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        owner = f"loss {self.name!r}"
        return one_hot(categories(owner, y_true, y_pred), y_pred.shape[-1])


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


class Quantile(Loss):
    """The pinball loss of quantiles: the model has one unit for each. Not in Keras."""

    own_name = "quantile"

    def __init__(
        self,
        quantiles: float | Sequence[float] = 0.5,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        self.quantiles = [quantiles] if isinstance(quantiles, int | float) else list(quantiles)
        if not self.quantiles or not all(0 < q < 1 for q in self.quantiles):
            raise ArgumentError(
                f"loss {self.name!r}: quantiles must lie between 0 and 1, received {quantiles!r}"
            )

    def truth(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        units = len(self.quantiles)
        if y_pred.shape[-1] != units:
            raise ShapeError(
                f"loss {self.name!r}: the model must have one unit for each of {units} quantiles, "
                f"received predictions of shape {y_pred.shape}"
            )
        t = truth_array(f"loss {self.name!r}", y_true, y_pred[..., :1])
        return np.ascontiguousarray(np.broadcast_to(t, y_pred.shape))

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        q = np.ascontiguousarray(np.broadcast_to(np.array(self.quantiles, np.float32), p.shape))
        value, slope = kernel.elementwise("pinball", p, t, quantiles=q)
        return kernel.means_of_rows(value), slope, float(p.shape[-1])


_NAMES: dict[str, type[Loss]] = {
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "huber": Huber,
} | {
    cls.own_name: cls
    for cls in (
        MeanSquaredError,
        MeanAbsoluteError,
        Huber,
        BinaryCrossentropy,
        CategoricalCrossentropy,
        SparseCategoricalCrossentropy,
        Quantile,
    )
}


def loss_of(identifier: Any) -> Loss:
    """Return the loss of a name or class, or itself. Raises ArgumentError."""
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    found = _NAMES.get(identifier) if isinstance(identifier, str) else None
    if found is not None:
        return found()
    near = closest(identifier, _NAMES) if isinstance(identifier, str) else None
    raise ArgumentError(
        f"loss {identifier!r} is not supported{f'; did you mean {near!r}' if near else ''}"
        f"{'? Supported' if near else '; supported'}: {', '.join(sorted(_NAMES))}"
    )
