"""The common part of optimizers: learning rate, weight decay, clips, and arrays of each weight."""

import math
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple, TypedDict

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.base.display import count
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.kernels import losses as sums
from streamrnn.nn.kernels.gradients import Apply
from streamrnn.nn.layers.weights import Variable
from streamrnn.nn.training.schedules import LearningRateSchedule


class Options(TypedDict, total=False):
    """The arguments of every optimizer.

    weight_decay: each update first takes this share, times the learning rate, from the weights. At
    most one of clipnorm (of each weight's gradient), clipvalue and global_clipnorm (of all
    gradients) may be set.
    """

    weight_decay: float | None
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    name: str | None
    # The following are refused, unless their value has no effect.
    use_ema: object
    ema_momentum: object
    ema_overwrite_frequency: object
    loss_scale_factor: object
    gradient_accumulation_steps: object


_REFUSED: dict[str, tuple[object, ...]] = {
    "use_ema": (False, None),
    "ema_momentum": (0.99, None),
    "ema_overwrite_frequency": (None,),
    "loss_scale_factor": (None,),
    "gradient_accumulation_steps": (None,),
}


class WeightUpdate(NamedTuple):
    """A weight and its gradient; an optimizer finds its arrays for the weight by the name."""

    name: str
    weight: Floats
    gradient: Floats


class LearningRate(float):
    """The learning rate of an optimizer: a number with a method `assign`, as in Keras."""

    optimizer: "Optimizer"

    def assign(self, value: float) -> None:
        """Set the optimizer's rate. Raises ArgumentError for a rate below 0, or with a schedule."""
        self.optimizer.learning_rate = value


class Optimizer:
    """The base of optimizers. `iterations` counts the updates so far."""

    slots: tuple[str, ...] = ()
    """The names of the arrays that are kept for each weight, with the weight's shape."""
    initial = 0.0
    """The initial value of the slots."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "update_step"):
            raise ArgumentError(
                f"{cls.__name__}: an optimizer does not run an update_step, as its updates are "
                "compiled. Change the weights in a loop of your own: model.gradients(x, y) returns "
                "a gradient for each of model.trainable_weights, which have a method assign_sub"
            )

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        *,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
        **others: object,
    ) -> None:
        self.name = name or type(self).__name__.lower()
        self._learning_rate: float | LearningRateSchedule = 0.0
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clipnorm, self.clipvalue = clipnorm, clipvalue
        self.global_clipnorm = global_clipnorm
        self.iterations = 0
        self.compiled: Any = None  # the Trainer
        self.kept: dict[str, list[Floats]] = {}
        clips = ("clipnorm", "clipvalue", "global_clipnorm")
        chosen = {name: value for name in clips if (value := getattr(self, name)) is not None}
        if len(chosen) > 1:
            raise ArgumentError(
                f"{type(self).__name__}: only one of {', '.join(clips)} can be given, received "
                f"{chosen}"
            )
        if any(value <= 0 for value in chosen.values()):
            raise ArgumentError(f"{type(self).__name__}: clips must be above 0, received {chosen}")
        for argument, value in others.items():
            if argument not in _REFUSED:
                own = [name for name in signature(type(self)).parameters if name != "options"]
                names = ", ".join(dict.fromkeys([*own, *Options.__annotations__]))
                raise ArgumentError(
                    f"{type(self).__name__}: unknown argument {argument!r} (known here: {names})"
                )
            if value not in _REFUSED[argument]:
                raise ArgumentError(f"{type(self).__name__}: {argument}={value!r} is not supported")

    @property
    def learning_rate(self) -> "LearningRate":
        """The rate of the next update: the number, or the current value of the schedule.

        A number may be set between updates, or assigned, as in `learning_rate.assign(0.01)`; a
        schedule can only be replaced by another schedule.
        """
        rate = LearningRate(self._rate())
        rate.optimizer = self
        return rate

    @learning_rate.setter
    def learning_rate(self, rate: float | LearningRateSchedule) -> None:
        if isinstance(rate, LearningRateSchedule):
            self._learning_rate = rate
            return
        if isinstance(self._learning_rate, LearningRateSchedule):
            raise ArgumentError(
                f"{type(self).__name__}: learning_rate is {type(self._learning_rate).__name__}, a "
                "schedule, and cannot be set to a number; make an optimizer with a number"
            )
        if isinstance(rate, bool) or not isinstance(rate, int | float | np.floating):
            raise ArgumentError(
                f"{type(self).__name__}: learning_rate must be a number or a schedule, received "
                f"{rate!r}"
            )
        self._learning_rate = self._checked(float(rate))

    def _rate(self) -> float:
        schedule = self._learning_rate
        if not isinstance(schedule, LearningRateSchedule):
            return schedule
        rate = schedule(self.iterations)
        if np.ndim(rate) or np.asarray(rate).dtype.kind not in "fiu":
            raise ArgumentError(
                f"{type(self).__name__}: the schedule {type(schedule).__name__} must return a "
                f"number, received {rate!r} for update {self.iterations}"
            )
        return self._checked(float(rate))

    def _checked(self, rate: float) -> float:
        if not rate >= 0:
            raise ArgumentError(
                f"{type(self).__name__}: learning_rate must be 0 or more, received {rate!r}"
            )
        return rate

    def bind(self, trainer: Any) -> None:
        """Serve a trainer. Raises ArgumentError if the optimizer has updated another model."""
        if self.iterations and self.compiled is not None:
            self._require_same(self.compiled.model is trainer.model)
        self.compiled = trainer

    def _require_same(self, same: bool) -> None:
        if not same:
            raise ArgumentError(
                f"{type(self).__name__}: this optimizer has made "
                f"{count(self.iterations, 'update')} of other weights, for which it keeps arrays; "
                "make an optimizer for each model"
            )

    def apply(
        self,
        grads: Mapping[str, Floats | None] | Sequence[Floats | None],
        trainable_variables: Sequence[Variable] | None = None,
    ) -> None:
        """Change weights of the model that was compiled with this optimizer, by one update.

        grads: what `Model.gradients` returns, arrays by the names of weights; or a list of arrays,
        one for each of trainable_variables (by default, for each trained weight of the model). A
        weight whose gradient is None does not change. Raises ArgumentError, ShapeError; then no
        weight has changed.

        >>> model.optimizer.apply(model.gradients(x, y))  # doctest: +SKIP
        """
        if self.compiled is None:
            raise ArgumentError(
                f"{type(self).__name__}: no model is compiled with this optimizer; call "
                "model.compile(optimizer, loss) before apply"
            )
        weights = self.compiled.plan.weights
        if isinstance(grads, Mapping):
            named = dict(grads)
        else:
            names = list(weights)
            if trainable_variables is not None:
                numbers = {id(holder._weights[key]): n for n, (holder, key, _) in weights.items()}
                names = [numbers.get(id(v), str(v)) for v in trainable_variables]
            if len(names) != len(grads):
                raise ArgumentError(
                    f"{type(self).__name__}: expected {len(names)} gradients, one for each weight, "
                    f"received {len(grads)}"
                )
            named = dict(zip(names, grads, strict=True))
        if unknown := [name for name in named if name not in weights]:
            raise ArgumentError(
                f"{type(self).__name__}: the compiled model trains no weight {unknown[0]!r}, only "
                f"{', '.join(weights)}"
            )
        for name, grad in named.items():
            if grad is not None and np.shape(grad) != weights[name][2].shape:
                raise ShapeError(
                    f"{type(self).__name__}: weight {name!r} has shape {weights[name][2].shape}, "
                    f"but its gradient has {np.shape(grad)}"
                )
        present = {name: grad for name, grad in named.items() if grad is not None}
        self.change(
            [
                WeightUpdate(name, weights[name][2], np.ascontiguousarray(grad, np.float32))
                for name, grad in present.items()
            ]
        )
        for name in present:
            weights[name][0].weights_changed()

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Floats | None, Variable]]) -> None:
        """Call `apply` with pairs of a gradient and its weight."""
        pairs = list(grads_and_vars)
        self.apply([grad for grad, _ in pairs], [variable for _, variable in pairs])

    def change(self, changes: Sequence[WeightUpdate]) -> None:
        """Change weights in place, even read-only ones, by one update; do not notify layers."""
        rate = self._rate()
        self._require_same(
            all(
                kept.shape == weight.shape
                for name, weight, _ in changes
                for kept in self.kept.get(name, ())
            )
        )
        self.iterations += 1
        update = self.update(rate, (self.weight_decay or 0.0) * rate)
        for (name, weight, _), gradient in zip(changes, self._clipped(changes), strict=True):
            if name not in self.kept:
                self.kept[name] = [np.full_like(weight, self.initial) for _ in self.slots]
            update(weight, gradient, *self.kept[name])

    def update(self, rate: float, decay: float) -> Apply:
        """Return a function of (weight, gradient, *slots) that changes the weight in place.

        decay: the share of each weight that an update first subtracts.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `update`")

    def _clipped(self, changes: Sequence[WeightUpdate]) -> list[Floats]:
        gradients = [change.gradient for change in changes]
        if self.clipvalue is not None:
            limit = np.float32(self.clipvalue)
            return [np.clip(gradient, -limit, limit) for gradient in gradients]
        if self.clipnorm is not None:
            return [
                gradient * np.float32(_scale(sums.dot(gradient, gradient), self.clipnorm))
                for gradient in gradients
            ]
        if self.global_clipnorm is not None:
            square = 0.0
            for gradient in gradients:
                square += sums.dot(gradient, gradient)
            scale = np.float32(_scale(square, self.global_clipnorm))
            return [gradient * scale for gradient in gradients]
        return gradients


def _scale(square: float, limit: float) -> float:
    """Return the factor that limits the norm of gradients with this squared norm."""
    norm = math.sqrt(square)
    return limit / norm if norm > limit else 1.0 if norm <= limit else math.nan
