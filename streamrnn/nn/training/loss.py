"""The common part of losses: the mean over samples, their weights, and checks of the truth."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError, DataError, ShapeError, UnsupportedError
from streamrnn.nn.kernels import losses as kernel
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.keras_call import require_constructor
from streamrnn.nn.layers.registry import is_own
from streamrnn.nn.training.gradient_check import check_gradient


class Loss:
    """The base of losses: the mean of the values of all samples (or steps), or their sum.

    reduction: "sum_over_batch_size" or "sum".

    A loss of your own has `call(y_true, y_pred)`, as in Keras. It returns the value of each sample
    (B,), of each step (B, T), or of each element; weights, masks and the reduction follow. For
    training, it also needs `gradient(y_true, y_pred)`: the derivative of the sum of its values
    by each prediction, in the shape of y_pred. Both get float32 NumPy arrays: y_pred (B, U) or
    (B, T, U) as the model returns it, y_true as it was passed to fit, but with as many axes as
    y_pred if only a last axis of size 1 differs. Where U is 1, y of shape (B,) becomes (B, 1), and
    (B, T) becomes (B, T, 1); Keras passes y unchanged, and `y_pred - y_true` is then (B, B). The
    first rows are also passed as float64, to compare the gradient with differences of the values.

    A loss with a static method `step(y_true, y_pred)` in place of `call` is compiled, as a custom
    cell is: step takes one row of each, (K,) and (U,), and returns the value; gradient, which is
    also static, takes the same and returns the derivative (U,).

    A function of such arrays is a loss, too: `model.compile("adam", loss=function)`. The
    function has its gradient as an attribute: `function.gradient = another_function`. As in Keras,
    where only one of a function's two arrays has a further last axis of size 1, the other array
    gets such an axis if it is (B,); if not, the further axis is removed (even from y_pred).

    `streamrnn guide custom` shows losses of both kinds.
    """

    own_name: ClassVar[str] = ""
    short_name: ClassVar[str] = ""
    signed: ClassVar[bool] = False
    """Whether values of the loss may be negative."""
    kernel_name: str
    _is_compared = False

    def __init_subclass__(cls, kernel: str = "", short: str = "", **others: Any) -> None:
        super().__init_subclass__(**others)
        if kernel:
            cls.kernel_name = kernel
        if is_own(cls):
            cls.short_name = short
            cls.own_name = vars(cls).get("own_name", registry.snake_case(cls.__name__))
        elif cls.call is not Loss.call:  # it replaces the formula of a loss of this package
            cls.values = Loss.values  # type: ignore[method-assign]

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str | None = None, dtype: object = None
    ) -> None:
        self.name = (
            name or self.own_name or registry.unique(registry.snake_case(type(self).__name__))
        )
        if reduction not in ("sum_over_batch_size", "sum"):
            raise ArgumentError(
                f"{self}: reduction must be 'sum_over_batch_size' or 'sum', received {reduction!r}"
            )
        if dtype not in (None, "float32"):
            raise ArgumentError(f"{self}: dtype must be 'float32', received {dtype!r}")
        self.reduction = reduction

    def __str__(self) -> str:
        return f"loss {self.name!r}"

    def __call__(
        self,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """Return the loss of predictions."""
        pred = np.ascontiguousarray(y_pred, np.float32)
        return self.with_slope(self.truth(y_true, pred), pred, sample_weight, None)[0]

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the values of predictions: see the class."""
        raise NotImplementedError(f"{type(self).__name__} must implement `call`")

    def require_gradient(self) -> None:
        """Raise UnsupportedError if the loss has no gradient, which training needs."""
        if type(self).values is Loss.values and not hasattr(self, "gradient"):
            raise UnsupportedError(
                f"{self} has no gradient, so no weight can be trained with it "
                f"(evaluate needs none). {self.where_to_write} gradient(y_true, y_pred): the "
                "derivative of the sum of its values by each prediction, an array of the shape of "
                "y_pred"
            )

    where_to_write: ClassVar[str] = "Give its class a method"

    def truth(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        """Return the truth as float32; a last axis of size 1 may be added or removed.

        Raises DataError unless the truth has numbers; some losses raise ShapeError, too.
        """
        return in_rank_of(y_pred, numbers_of(self, y_true)).astype(np.float32)

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        """Return the values, the derivatives of their terms, and the number of terms in a value.

        A value is the mean of its terms. Without `gradient`, the derivatives are NaN. Raises
        ShapeError for a result of another shape, DataError for one that has no numbers,
        ArgumentError for a gradient that is not the derivative of the values.
        """
        call: Callable[..., Any] = self.call
        gradient: Callable[..., Any] | None = getattr(self, "gradient", None)
        if type(self).call is Loss.call and hasattr(self, "step"):
            call = kernel.over_rows(self._static("step"))
            if gradient is not None:
                gradient = kernel.over_rows(self._static("gradient"), gradient=True)
        value = returned_values(self, call, t, p)
        slope = np.full_like(p, np.nan)
        if gradient is not None:
            slope = np.array(gradient(t.copy(), p.copy()), np.float32)
            if slope.shape != p.shape:
                raise ShapeError(
                    f"{self}: gradient must return an array of the shape of y_pred, "
                    f"{p.shape}, received {slope.shape}"
                )
            if not self._is_compared:
                check_gradient(self, call, gradient, t, p)
                self._is_compared = True
        return value, slope, 1.0

    def _static(self, name: str) -> Callable[..., Any]:
        """Return a function of one row, by name. Raises ArgumentError if it is not static."""
        function: Callable[..., Any] = getattr(self, name)
        if not inspect.isfunction(inspect.unwrap(getattr(function, "py_func", function))):
            raise ArgumentError(
                f"{self}: its class has step in place of call, so {name} must be a "
                "@staticmethod of (y_true, y_pred)"
            )
        return function

    def with_slope(
        self, t: Floats, p: Floats, sample_weight: npt.ArrayLike | None, mask: Array | None
    ) -> tuple[float, Floats]:
        """Return the loss, and the derivative of the loss by each prediction.

        mask: False where a step is left out; a mean is then over the remaining steps.
        """
        value, slope, terms = self.values(t, p)
        if sample_weight is None and mask is None:
            divisor = 1.0 if self.reduction == "sum" else float(max(value.size, 1))
            slope *= np.float32(1) / np.float32(divisor * terms)
            return kernel.total(value) / divisor, slope
        if value.ndim < max(1, 0 if mask is None else mask.ndim):
            raise ShapeError(
                f"{self}: with weights, a mask or lengths, a value is needed for each "
                f"sample or step; `call` returned shape {value.shape} for predictions {p.shape}"
            )
        weight = weights_of(self, value.shape, sample_weight, mask)
        count = value.size
        if mask is not None and count:
            count = int(mask.sum()) * (count // mask.size)
        divisor = 1.0 if self.reduction == "sum" else float(max(count, 1))
        # Where the weight is 0, a step may hold anything, even NaN.
        value = np.where(weight == 0, np.float32(0), value)
        factor = weight / np.float32(divisor * terms)
        of_each = (..., *(None,) * (p.ndim - value.ndim))
        slope = np.where(weight[of_each] == 0, np.float32(0), slope * factor[of_each])
        return kernel.dot(value, weight) / divisor, slope


require_constructor(Loss, "name", "reduction")


class FunctionLoss(Loss):
    """A function of y_true and y_pred, as a loss."""

    where_to_write = "Set the attribute `gradient` of the function to a function"

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(name=name_of_function(function))
        self.function = function
        if hasattr(function, "gradient"):
            self.gradient = self._gradient

    def truth(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        """Return the truth as float32, in its own shape. Raises DataError."""
        return numbers_of(self, y_true).astype(np.float32)

    def call(self, y_true: Floats, y_pred: Floats) -> Any:
        return self.function(*of_same_rank(y_true, y_pred))

    def _gradient(self, y_true: Floats, y_pred: Floats) -> Floats:
        t, p = of_same_rank(y_true, y_pred)
        slope = np.asarray(self.function.gradient(t, p))  # type: ignore[attr-defined]
        return slope.reshape(y_pred.shape) if slope.shape == p.shape else slope


def name_of_function(function: Callable[..., Any]) -> str:
    """Return the name of a function, or of the class of another callable."""
    return getattr(function, "__name__", None) or registry.snake_case(type(function).__name__)


def of_same_rank(y_true: Floats, y_pred: Floats) -> tuple[Floats, Floats]:
    """Return both arrays, with a last axis of size 1 added or removed where only one has it."""
    if y_pred.ndim == y_true.ndim + 1 and y_pred.shape[-1] == 1:
        return (y_true[:, None], y_pred) if y_true.ndim == 1 else (y_true, y_pred[..., 0])
    if y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
        return (y_true, y_pred[:, None]) if y_pred.ndim == 1 else (y_true[..., 0], y_pred)
    return y_true, y_pred


def in_rank_of(y_pred: Floats, y_true: Array) -> Array:
    """Return the truth with a last axis of size 1 added or removed, if the predictions need it."""
    if y_true.ndim == y_pred.ndim - 1 and y_pred.shape[-1] == 1:
        return y_true[..., None]
    if y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
        return y_true[..., 0]
    return y_true


def numbers_of(owner: object, values: npt.ArrayLike, argument: str = "y") -> Array:
    """Return an argument as an array of numbers. Raises DataError."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{owner}: expected numbers as {argument}, received {array.dtype}")
    return array


def returned_values(owner: object, call: Callable[..., Any], t: Any, p: Floats) -> Floats:
    """Return the checked result of a user's function on copies. Raises ShapeError, DataError."""
    returned = np.asarray(call(t.copy(), p.copy()))
    if returned.dtype.kind not in "fiub":
        raise DataError(f"{owner}: expected an array of numbers, received {returned.dtype}")
    value = np.array(returned, np.float32)
    if value.shape != p.shape[: value.ndim]:
        raise ShapeError(
            f"{owner}: expected a value for each sample, step or element of the predictions "
            f"{p.shape}, received values of shape {value.shape} (y_true has shape {t.shape})"
        )
    return value


def weights_of(
    owner: object, shape: tuple[int, ...], sample_weight: npt.ArrayLike | None, mask: Array | None
) -> Floats:
    """Return a weight for each value of an array, 0 where it is masked.

    shape: the shape of the array. sample_weight, mask: of this shape, or of its first axes only;
    sample_weight may have a further last axis of size 1. Raises ShapeError, DataError.
    """
    if sample_weight is None:
        weights = np.ones(shape, np.float32)
    else:
        own = np.asarray(numbers_of(owner, sample_weight, "sample_weight"), np.float32)
        if own.ndim == len(shape) + 1 and own.shape[-1] == 1:
            own = own[..., 0]
        if own.shape != shape[: own.ndim]:
            allowed = " or ".join(map(str, dict.fromkeys((shape[:1], shape))))
            raise ShapeError(
                f"{owner}: sample_weight must have shape {allowed}, received {own.shape}"
            )
        spread = own.reshape(own.shape + (1,) * (len(shape) - own.ndim))
        weights = np.ascontiguousarray(np.broadcast_to(spread, shape))
    if mask is None:
        return weights
    return weights * mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))


def truth_array(owner: object, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
    """Return the truth as float32, shaped like the predictions. Raises DataError, ShapeError."""
    t = in_rank_of(y_pred, numbers_of(owner, y_true))
    if t.shape != y_pred.shape:
        raise ShapeError(f"{owner}: y must have shape {y_pred.shape}, received {t.shape}")
    return np.ascontiguousarray(t, np.float32)


def categories(owner: object, y_true: npt.ArrayLike, y_pred: Floats) -> Array:
    """Return the category id of each sample or step. Raises ShapeError, DataError."""
    truth = numbers_of(owner, y_true)
    if truth.ndim == y_pred.ndim and truth.shape[-1] == 1:
        truth = truth[..., 0]
    if truth.shape != y_pred.shape[:-1]:
        raise ShapeError(f"{owner}: y must have shape {y_pred.shape[:-1]}, received {truth.shape}")
    ids = truth.astype(np.int64)
    if truth.dtype.kind not in "iub" and not (ids == truth).all():
        raise DataError(f"{owner}: y must be whole numbers, received fractions in {truth.dtype}")
    if ids.size and not 0 <= ids.min() <= ids.max() < y_pred.shape[-1]:
        raise DataError(
            f"{owner}: y must lie in 0…{y_pred.shape[-1] - 1}, received {ids.min()}…{ids.max()}"
        )
    return ids


class FittedLoss(Loss):
    """A loss whose truth has the shape of the predictions."""

    def truth(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        """Return the truth as an array of the shape of the predictions. Raises ShapeError."""
        return truth_array(self, y_true, y_pred)


class Elementwise(FittedLoss):
    """A loss of each element; the value of a sample is the mean over the last axis."""

    def parameters(self) -> tuple[float, ...]:
        """Return the parameters of the kernel."""
        return ()

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        value, slope = kernel.elementwise(self.kernel_name, p, t, *self.parameters())
        return kernel.means_of_rows(value), slope, float(p.shape[-1])


class RowLoss(FittedLoss):
    """A loss of whole rows: one value for all elements of the last axis."""

    def values(self, t: Floats, p: Floats) -> tuple[Floats, Floats, float]:
        value, slope = kernel.of_rows(self.kernel_name, p, t)
        return value, slope, 1.0


def check_axis(owner: object, axis: int) -> None:
    """Raise ArgumentError unless the axis is the last one."""
    if axis != -1:
        raise ArgumentError(f"{owner}: axis must be -1, received {axis}")
