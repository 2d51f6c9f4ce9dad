"""Losses of classes and of probabilities. Formulas of Keras 3."""

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.training.loss import (
    Elementwise,
    Loss,
    RowLoss,
    categories,
    check_axis,
    one_hot,
)


def _smoothed(t: Floats, smoothing: float, classes: int) -> Floats:
    """Return the truth, less a share that all classes receive alike."""
    if not smoothing:
        return t
    return t * np.float32(1 - smoothing) + np.float32(smoothing / classes)


class _Crossentropy(Loss):
    """The base of cross-entropies of probabilities or of logits."""

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
        check_axis(self.name, axis)
        self.from_logits = from_logits
        if not 0 <= label_smoothing <= 1:
            raise ArgumentError(
                f"loss {self.name!r}: label_smoothing must lie in 0…1, received {label_smoothing!r}"
            )
        self.label_smoothing = float(label_smoothing)


class BinaryCrossentropy(_Crossentropy, Elementwise):
    """-(y log p + (1 - y) log(1 - p)), p a probability or with from_logits its logit.

    label_smoothing: the share of y that is replaced by 1 / 2.
    """

    own_name = "binary_crossentropy"

    @property
    def kernel_name(self) -> str:  # type: ignore[override]
        """The kernel of probabilities, or of logits."""
        return "binary_of_logits" if self.from_logits else "binary"

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        return super().values(_smoothed(t, self.label_smoothing, 2), p)


class CategoricalCrossentropy(_Crossentropy, RowLoss):
    """-sum of y log p over the last axis; y one-hot, or the probabilities of categories.

    label_smoothing: the share of y that all categories receive alike.
    """

    own_name = "categorical_crossentropy"

    @property
    def kernel_name(self) -> str:  # type: ignore[override]
        """The kernel of probabilities, or of logits."""
        return "logits" if self.from_logits else "probabilities"

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        return super().values(_smoothed(t, self.label_smoothing, p.shape[-1]), p)


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


class KLDivergence(RowLoss):
    """The sum of y_true log(y_true / y_pred) over the last axis, limited to 1e-7…1."""

    own_name = "kl_divergence"
    kernel_name = "divergence"


class CategoricalHinge(RowLoss):
    """1 + the largest prediction of another class - that of the class; not below 0."""

    own_name = "categorical_hinge"
    kernel_name = "hinge"


class Hinge(Elementwise):
    """max(1 - y_true * y_pred, 0), y_true -1 or 1; if all are 0 or 1, 0 stands for -1."""

    own_name = "hinge"
    kernel_name = "hinge"

    def truth(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        t = super().truth(y_true, y_pred)
        binary = bool(((t == 0) | (t == 1)).all())
        return t * np.float32(2) - np.float32(1) if binary else t


class SquaredHinge(Hinge):
    """The square of the hinge."""

    own_name = "squared_hinge"
    kernel_name = "squared_hinge"
