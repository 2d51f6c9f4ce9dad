"""The common part of metrics: names, sums that can be saved, weights and masks."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import losses as kernel
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.keras_call import require_constructor
from streamrnn.nn.layers.weights import Variable, WeightSet
from streamrnn.nn.training.loss import in_rank_of, name_of_function, returned_values, weights_of


class Metric(WeightSet):
    """The base of metrics.

    `direction`: "up" if larger values are better, "down" if smaller ones are; None if unknown.

    A metric of your own has `update_state` and `result`, as in Keras; `add_weight` makes variables
    for `update_state` to change. y_pred is a float32 NumPy array, (B, U) or (B, T, U). fit and
    evaluate pass y_true as they got it, but with as many axes as y_pred if only a last axis of size
    1 differs: where U is 1, y of shape (B,) becomes (B, 1), and (B, T) becomes (B, T, 1).
    sample_weight is None or the weights, (B,) or (B, T); steps that are masked, or have no label,
    have the weight 0.

    A function of such arrays is a metric, too: the mean of the values that it returns, for samples,
    steps or elements. `streamrnn guide custom` shows a metric.
    """

    own_name: ClassVar[str] = ""
    short_name: ClassVar[str] = ""
    direction: ClassVar[str | None] = None

    def __init_subclass__(
        cls, name: str = "", short: str = "", direction: str = "", **others: Any
    ) -> None:
        super().__init_subclass__(**others)
        cls.own_name, cls.short_name = name or cls.own_name, short
        if direction:
            cls.direction = direction

    def __init__(self, name: str | None = None, dtype: object = None) -> None:
        super().__init__(trainable=False)
        self.name = (
            name or self.own_name or registry.unique(registry.snake_case(type(self).__name__))
        )
        if dtype not in (None, "float32"):
            raise ArgumentError(f"{self}: dtype must be 'float32', received {dtype!r}")

    def __str__(self) -> str:
        return f"metric {self.name!r}"

    def add_weight(  # type: ignore[override]
        self,
        shape: Any = (),
        initializer: Any = None,
        dtype: object = None,
        name: str | None = None,
    ) -> Variable:
        """Make a variable and return it: float32, zeros by default; `assign` changes it."""
        return super().add_weight(
            shape=shape, initializer=initializer or "zeros", dtype=dtype, name=name
        )

    add_variable = add_weight

    def reset_state(self) -> None:
        """Set all variables to 0."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add samples: see the class."""
        raise NotImplementedError(f"{type(self).__name__} must implement `update_state`")

    def result(self) -> Any:
        """Return the metric of all samples since the last reset."""
        raise NotImplementedError(f"{type(self).__name__} must implement `result`")

    def add_batch(
        self, y_true: Any, y_pred: Floats, sample_weight: Floats | None, mask: Array | None
    ) -> None:
        """Add the samples of a batch; masked steps have the weight 0."""
        if mask is not None:
            sample_weight = weights_of(self, mask.shape, sample_weight, mask)
        weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.update_state(truth_beside(y_pred, y_true).copy(), y_pred.copy(), **weighted)


require_constructor(Metric, "name", "_weights")


class MeanMetric(Metric):
    """The weighted mean of values, one for each sample, step or element."""

    def __init__(self, name: str | None = None, dtype: object = None) -> None:
        super().__init__(name, dtype)
        self.reset_state()

    def reset_state(self) -> None:
        """Forget all samples."""
        self._sums = np.zeros(2)

    @property
    def sums(self) -> tuple[float, ...]:
        """The sums that the metric keeps: of weighted values, and of weights; others in a subclass.

        They may be set, to resume.
        """
        return tuple(self._sums.tolist())

    @sums.setter
    def sums(self, sums: tuple[float, ...]) -> None:
        self._sums = np.array(sums, np.float64)

    def result(self) -> Any:
        """Return the mean over all samples since the last reset, or 0 if there are none.

        Some metrics return an array.
        """
        total, weight = self.sums
        return total / weight if weight else 0.0

    def update_state(
        self,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        *,
        mask: Array | None = None,
    ) -> None:
        """Add samples; samples that are masked, or have the weight 0, do not count."""
        pred = np.ascontiguousarray(y_pred, np.float32)
        value = self.values(y_true, pred)
        weight = weights_of(self, value.shape, sample_weight, mask)
        value = np.where(weight == 0, np.float32(0), value)
        self._sums += kernel.dot(value, weight), kernel.dot(weight, np.ones_like(weight))

    def add_batch(
        self, y_true: Any, y_pred: Floats, sample_weight: Floats | None, mask: Array | None
    ) -> None:
        if mask is not None:  # not as mask=, which the update_state of a user need not take
            sample_weight = weights_of(self, mask.shape, sample_weight, mask)
        self.update_state(y_true, y_pred, sample_weight)

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        """Return the value of each sample, step or element."""
        raise NotImplementedError(f"{type(self).__name__} must implement `values`")


class FunctionMetric(MeanMetric):
    """The mean of the values of a function of y_true and y_pred."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(name_of_function(function))
        self.function = function

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        return returned_values(self, self.function, truth_beside(y_pred, y_true), y_pred)


def truth_beside(y_pred: Floats, y_true: npt.ArrayLike) -> Array:
    """Return the truth, with a last axis of size 1 added or removed if the predictions need it.

    Floats become float32, as in Keras.
    """
    t = in_rank_of(y_pred, np.asarray(y_true))
    return t.astype(np.float32) if t.dtype.kind == "f" else t
