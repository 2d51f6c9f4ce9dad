"""Optimizers, with the names, arguments, defaults and formulas of Keras 3."""

import math
from typing import Any, Unpack

from streamrnn.base.display import not_one_of
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import gradients as kernel
from streamrnn.nn.training.optimizer import Optimizer, Options
from streamrnn.nn.training.schedules import LearningRateSchedule

__all__ = [
    "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "Nadam", "Optimizer",
    "RMSprop", "optimizer_of",
]  # fmt: skip


class SGD(Optimizer):
    """Gradient descent: w -= learning_rate * g, or with (Nesterov) momentum."""

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        if not 0 <= momentum <= 1:
            raise ArgumentError(f"SGD: momentum must lie in 0…1, received {momentum!r}")
        self.momentum, self.nesterov = float(momentum), bool(nesterov)

    slots = ("momentum",)

    def update(self, rate: float, decay: float) -> kernel.Apply:
        return kernel.update("momentum", rate, self.momentum, decay, nesterov=self.nesterov)


class RMSprop(Optimizer):
    """Gradients divided by the root of their mean square, with momentum if `momentum` is above 0.

    centered: gradients are divided by the root of their variance instead.
    """

    slots = ("square", "mean", "momentum")

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho, self.momentum, self.epsilon = float(rho), float(momentum), float(epsilon)
        self.centered = bool(centered)

    def update(self, rate: float, decay: float) -> kernel.Apply:
        numbers = rate, self.rho, 1 - self.rho, self.momentum, self.epsilon, decay
        return kernel.update("rmsprop", *numbers, centered=self.centered)


class _Moments(Optimizer):
    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1, self.beta_2, self.epsilon = float(beta_1), float(beta_2), float(epsilon)


class Adam(_Moments):
    """Adam (Kingma & Ba 2014).

    amsgrad: steps are divided by the root of the largest mean square so far (Reddi et al. 2018).
    """

    slots: tuple[str, ...] = ("momentum", "velocity")

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **options)
        self.amsgrad = bool(amsgrad)
        if self.amsgrad:
            self.slots = (*self.slots, "velocity_hat")

    def update(self, rate: float, decay: float) -> kernel.Apply:
        step = self.iterations
        correction = math.sqrt(1 - kernel.power(self.beta_2, step))
        rate = rate * correction / (1 - kernel.power(self.beta_1, step))
        numbers = rate, 1 - self.beta_1, 1 - self.beta_2, self.epsilon, decay
        return kernel.update("amsgrad" if self.amsgrad else "adam", *numbers)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017)."""

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        weight_decay: float | None = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **options
        )


class Nadam(_Moments):
    """Adam with Nesterov momentum (Dozat 2015)."""

    slots = ("momentum", "velocity")

    _product = 0, 1.0  # number of steps, and the product of their momenta

    def update(self, rate: float, decay: float) -> kernel.Apply:
        step = self.iterations
        now, following = self._momentum(step), self._momentum(step + 1)
        done, product = self._product
        if done > step:  # iterations were set, as in a resumed fit
            done, product = 0, 1.0
        for number in range(done + 1, step + 1):
            product *= self._momentum(number)
        self._product = step, product
        rates = rate * following / (1 - product * following), rate * (1 - now) / (1 - product)
        numbers = 1 - self.beta_1, 1 - self.beta_2, 1 - kernel.power(self.beta_2, step)
        return kernel.update("nadam", *rates, *numbers, self.epsilon, decay)

    def _momentum(self, step: int) -> float:
        return self.beta_1 * (1 - 0.5 * kernel.power(0.96, step))


class Adamax(_Moments):
    """Adam with a decaying maximum of |g| in place of the root mean square (Kingma & Ba 2014)."""

    slots = ("momentum", "norm")

    def update(self, rate: float, decay: float) -> kernel.Apply:
        rate = rate / (1 - kernel.power(self.beta_1, self.iterations))
        numbers = rate, 1 - self.beta_1, self.beta_2, self.epsilon, decay
        return kernel.update("adamax", *numbers)


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of their squares (Duchi et al. 2011)."""

    slots = ("accumulator",)

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.initial_accumulator_value = self.initial = float(initial_accumulator_value)
        self.epsilon = float(epsilon)
        if self.initial_accumulator_value < 0:
            raise ArgumentError(
                "Adagrad: initial_accumulator_value must be 0 or more, received "
                f"{initial_accumulator_value!r}"
            )

    def update(self, rate: float, decay: float) -> kernel.Apply:
        return kernel.update("adagrad", rate, self.epsilon, decay)


class Adadelta(Optimizer):
    """Gradients scaled to the size of earlier steps (Zeiler 2012; there, learning_rate is 1)."""

    slots = ("accumulated_grad", "accumulated_delta_var")

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho, self.epsilon = float(rho), float(epsilon)

    def update(self, rate: float, decay: float) -> kernel.Apply:
        return kernel.update("adadelta", rate, self.rho, 1 - self.rho, self.epsilon, decay)


class Lion(Optimizer):
    """Steps by the sign of a mean of momentum and gradient (Chen et al. 2023)."""

    slots = ("momentum",)

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1, self.beta_2 = float(beta_1), float(beta_2)
        if not 0 < self.beta_1 <= 1:
            raise ArgumentError(f"Lion: beta_1 must lie in (0, 1], received {beta_1!r}")

    def update(self, rate: float, decay: float) -> kernel.Apply:
        moments = self.beta_1, 1 - self.beta_1, self.beta_2, 1 - self.beta_2
        return kernel.update("lion", rate, *moments, decay)


_NAMES: dict[str, type[Optimizer]] = {
    name.lower(): globals()[name] for name in __all__ if name not in ("Optimizer", "optimizer_of")
}


def optimizer_of(identifier: object) -> Optimizer:
    """Return the optimizer for a name or class; an optimizer as it is. Raises ArgumentError."""
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        return identifier()  # type: ignore[call-arg]
    if isinstance(identifier, str) and identifier.lower() in _NAMES:
        return _NAMES[identifier.lower()]()  # type: ignore[call-arg]
    raise ArgumentError(not_one_of(f"optimizer {identifier!r}", _NAMES, identifier))
