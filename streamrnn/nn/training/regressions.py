"""Losses of numbers: regressions and counts. Formulas of Keras 3; quantiles are not in Keras."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.kernels import losses as kernel
from streamrnn.nn.training.loss import Elementwise, Loss, RowLoss, check_axis, truth_array


class MeanSquaredError(Elementwise):
    """The squared error, (y_true - y_pred)**2."""

    own_name = "mean_squared_error"
    kernel_name = "squared"


class MeanAbsoluteError(Elementwise):
    """The absolute error, |y_true - y_pred|."""

    own_name = "mean_absolute_error"
    kernel_name = "absolute"


class Huber(Elementwise):
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


class MeanAbsolutePercentageError(Elementwise):
    """The error in percent of the truth, which counts as 1e-7 at least."""

    own_name = "mean_absolute_percentage_error"
    kernel_name = "percentage"


class MeanSquaredLogarithmicError(Elementwise):
    """(log(1 + y_true) - log(1 + y_pred))**2; values below 1e-7 count as that."""

    own_name = "mean_squared_logarithmic_error"
    kernel_name = "squared_logarithm"


class LogCosh(Elementwise):
    """The logarithm of cosh(y_pred - y_true): squared / 2 near 0, then linear."""

    own_name = "log_cosh"
    kernel_name = "log_cosh"


class Poisson(Elementwise):
    """y_pred - y_true * log(y_pred + 1e-7), of counts and their predicted mean, above 0."""

    own_name = "poisson"
    kernel_name = "poisson"


class CosineSimilarity(RowLoss):
    """Less the cosine of the angle between truth and prediction, over the last axis."""

    own_name = "cosine_similarity"
    kernel_name = "cosine"

    def __init__(
        self,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        check_axis(self.name, axis)


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
