"""Losses, with the names, arguments and formulas of Keras 3; also Quantile and GaussianNLL.

To add one, write its class here and its name in `__all__`.

A loss is called as loss(y_true, y_pred, sample_weight=None) and returns a number. Arrays are not
broadcast, but y_true may lack a last axis of size 1. Sums are added in a fixed order.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Floats
from streamrnn.base.display import not_one_of
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.kernels import losses as kernel
from streamrnn.nn.layers.activations import LEAST_DEVIATION
from streamrnn.nn.training.loss import (
    Elementwise,
    FunctionLoss,
    Loss,
    RowLoss,
    categories,
    check_axis,
    truth_array,
)

__all__ = [
    "BinaryCrossentropy", "CategoricalCrossentropy", "CategoricalHinge", "CosineSimilarity",
    "GaussianNLL", "Hinge", "Huber", "KLDivergence", "LogCosh", "Loss", "MeanAbsoluteError",
    "MeanAbsolutePercentageError", "MeanSquaredError", "MeanSquaredLogarithmicError", "Poisson",
    "Quantile", "SparseCategoricalCrossentropy", "SquaredHinge", "loss_of",
]  # fmt: skip


class MeanSquaredError(Elementwise, kernel="squared", short="mse"):
    """The squared error, (y_true - y_pred)**2."""


class MeanAbsoluteError(Elementwise, kernel="absolute", short="mae"):
    """The absolute error, |y_true - y_pred|."""


class Huber(Elementwise, kernel="huber", short="huber"):
    """The squared error / 2 up to an error of `delta`, then linear."""

    own_name = "huber_loss"

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


class MeanAbsolutePercentageError(Elementwise, kernel="percentage", short="mape"):
    """The absolute error in percent of |y_true|, which counts as at least 1e-7."""


class MeanSquaredLogarithmicError(Elementwise, kernel="squared_logarithm", short="msle"):
    """(log(1 + y_true) - log(1 + y_pred))**2; values below 1e-7 count as 1e-7."""


class LogCosh(Elementwise, kernel="log_cosh", short="logcosh"):
    """The logarithm of cosh(y_pred - y_true): near 0 the squared error / 2, then linear."""


class Poisson(Elementwise, kernel="poisson"):
    """y_pred - y_true * log(y_pred + 1e-7), of counts and their predicted mean (above 0)."""

    signed = True


class CosineSimilarity(RowLoss, kernel="cosine"):
    """The negative cosine of the angle between truth and prediction, over the last axis."""

    signed = True

    def __init__(
        self,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        check_axis(self, axis)


class Quantile(Loss):
    """The pinball loss of quantiles; the model has one unit for each quantile. Not in Keras."""

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
                f"{self}: expected one or more quantiles above 0 and below 1, received "
                f"{quantiles!r}"
            )

    def truth(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        units = len(self.quantiles)
        if y_pred.shape[-1] != units:
            raise ShapeError(
                f"{self}: the model must have one unit for each of {units} quantiles, "
                f"received predictions of shape {y_pred.shape}"
            )
        t = truth_array(self, y_true, y_pred[..., :1])
        return np.ascontiguousarray(np.broadcast_to(t, y_pred.shape))

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        value, slope = self.of_each(t, p)
        return kernel.means_of_rows(value), slope, float(p.shape[-1])

    def of_each(self, t: Floats, p: Floats) -> tuple[Floats, Floats]:
        """Return the pinball loss of each quantile and its derivative, in arrays of one shape."""
        q = np.ascontiguousarray(np.broadcast_to(np.array(self.quantiles, np.float32), p.shape))
        return kernel.elementwise("pinball", p, t, quantiles=q)


class GaussianNLL(Loss):
    """log d + ((y_true - m) / d)**2 / 2, of a mean m and a deviation d. Not in Keras.

    This is the negative logarithm of a normal density without its constant, log(2 pi) / 2 (Nix &
    Weigend 1994), as a mean over K labels. There are 2 K predictions: the means, then the
    deviations, as the layer `Gaussian` gives them. A deviation below 0.001 counts as 0.001.
    """

    signed = True

    def truth(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        units = y_pred.shape[-1]
        if units % 2:
            raise ShapeError(
                f"{self}: the model must have a mean and a deviation for each label, "
                f"received predictions of shape {y_pred.shape}. End it with the layer Gaussian"
            )
        return truth_array(self, y_true, y_pred[..., : units // 2])

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        labels = t.shape[-1]
        error = p[..., :labels] - t
        deviation = np.maximum(p[..., labels:], LEAST_DEVIATION)
        value, of_deviation = kernel.elementwise("gaussian", deviation, error)
        slope = np.concatenate([error / deviation / deviation, of_deviation], axis=-1)
        return kernel.means_of_rows(value), slope, float(labels)


def _smoothed(t: Floats, smoothing: float, classes: int) -> Floats:
    """Return the truth, with the share `smoothing` of it spread evenly over all classes."""
    if not smoothing:
        return t
    return t * np.float32(1 - smoothing) + np.float32(smoothing / classes)


class _Crossentropy(Loss):
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
        check_axis(self, axis)
        self.from_logits = from_logits
        if not 0 <= label_smoothing <= 1:
            raise ArgumentError(
                f"{self}: label_smoothing must lie in 0…1, received {label_smoothing!r}"
            )
        self.label_smoothing = float(label_smoothing)


class BinaryCrossentropy(_Crossentropy, Elementwise, short="bce"):
    """-(y log p + (1 - y) log(1 - p)), p a probability; with from_logits, y_pred is the logit of p.

    label_smoothing: the share of y that is replaced by 1 / 2.
    """

    @property
    def kernel_name(self) -> str:  # type: ignore[override]
        """The kernel of probabilities, or of logits."""
        return "binary_of_logits" if self.from_logits else "binary"

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        return super().values(_smoothed(t, self.label_smoothing, 2), p)


class CategoricalCrossentropy(_Crossentropy, RowLoss):
    """-sum of y log p over the last axis; y is one-hot, or has the probabilities of categories.

    label_smoothing: the share of y that is spread evenly over all categories.
    """

    @property
    def kernel_name(self) -> str:  # type: ignore[override]
        """The kernel of probabilities, or of logits."""
        return "logits" if self.from_logits else "probabilities"

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        return super().values(_smoothed(t, self.label_smoothing, p.shape[-1]), p)


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """-log p of the category whose id is y."""

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
                f"{self}: ignore_class={ignore_class} is not supported; give steps "
                "of this class the sample_weight 0"
            )

    def truth(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        ids = categories(self, y_true, y_pred)
        one_hot: Floats = (ids[..., None] == np.arange(y_pred.shape[-1])).astype(np.float32)
        return one_hot


class KLDivergence(RowLoss, kernel="divergence", short="kld"):
    """The sum of y_true log(y_true / y_pred) over the last axis, both clipped to 1e-7…1."""

    signed = True


class CategoricalHinge(RowLoss, kernel="hinge"):
    """max(1 + max((1 - y_true) * y_pred) - sum(y_true * y_pred), 0), over the last axis."""


class Hinge(Elementwise, kernel="hinge"):
    """max(1 - y_true * y_pred, 0), where y_true is -1 or 1; if all are 0 or 1, 0 stands for -1."""

    def truth(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        t = super().truth(y_true, y_pred)
        binary = bool(((t == 0) | (t == 1)).all())
        return t * np.float32(2) - np.float32(1) if binary else t


class SquaredHinge(Hinge, kernel="squared_hinge"):
    """The square of the hinge."""


_LOSSES: list[type[Loss]] = [globals()[name] for name in __all__ if name not in ("Loss", "loss_of")]
_SHORT = {cls.short_name: cls for cls in _LOSSES if cls.short_name}
_NAMES = _SHORT | {cls.own_name: cls for cls in _LOSSES}
_ALSO = {cls.__name__: cls for cls in _LOSSES} | {
    name.upper(): cls for name, cls in _SHORT.items() if len(name) <= 4
}
"""Other names that Keras accepts."""


def names_of_losses() -> frozenset[str]:
    """Return all names that `loss_of` accepts."""
    return frozenset({*_NAMES, *_ALSO})


def loss_of(identifier: Any) -> Loss:
    """Return the loss for a name, class or function; a loss as it is. Raises ArgumentError."""
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if callable(identifier):
        return FunctionLoss(identifier)
    if isinstance(identifier, str) and identifier in names_of_losses():
        return (_NAMES.get(identifier) or _ALSO[identifier])()
    raise ArgumentError(not_one_of(f"loss {identifier!r}", _NAMES, identifier))
