"""Updates of weights in place, by the formulas of optimizers. Weights may be read-only arrays."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn import simd

Apply: TypeAlias = Callable[..., None]
"""Called with a weight, its gradient and the arrays kept for it: contiguous, of one shape."""


def descend(rate: float, momentum: float, decay: float, *, nesterov: bool) -> Apply:
    """Return the update by SGD: (w, gradient, velocity). `decay`: the share that w loses first."""
    return _applied(simd.updates.momentum_entry(nesterov), rate, momentum, decay)


def adam(rate: float, beta_1: float, beta_2: float, epsilon: float, decay: float) -> Apply:
    """Return the update by Adam: (w, gradient, m, v).

    `rate` includes the correction of the bias of the moments; `decay`: the share that w loses
    first.
    """
    return _applied(simd.updates.adam_entry(), rate, 1 - beta_1, 1 - beta_2, epsilon, decay)


def rmsprop(
    rate: float, rho: float, momentum: float, epsilon: float, decay: float, *, centered: bool
) -> Apply:
    """Return the update by RMSprop: (w, gradient, square, mean, m)."""
    kernel = simd.updates.rmsprop_entry(centered)
    return _applied(kernel, rate, rho, 1 - rho, momentum, epsilon, decay)


def amsgrad(rate: float, beta_1: float, beta_2: float, epsilon: float, decay: float) -> Apply:
    """Return the update by Adam with amsgrad: (w, gradient, m, v, largest v)."""
    return _applied(simd.updates.amsgrad_entry(), rate, 1 - beta_1, 1 - beta_2, epsilon, decay)


def nadam(
    rates: tuple[float, float],
    beta_1: float,
    beta_2: float,
    correction: float,
    epsilon: float,
    decay: float,
) -> Apply:
    """Return the update by Nadam: (w, gradient, m, v). `rates`: of m and of the gradient."""
    kernel = simd.updates.nadam_entry()
    return _applied(kernel, *rates, 1 - beta_1, 1 - beta_2, correction, epsilon, decay)


def adamax(rate: float, beta_1: float, beta_2: float, epsilon: float, decay: float) -> Apply:
    """Return the update by Adamax: (w, gradient, m, norm). `rate` includes the correction."""
    return _applied(simd.updates.adamax_entry(), rate, 1 - beta_1, beta_2, epsilon, decay)


def adagrad(rate: float, epsilon: float, decay: float) -> Apply:
    """Return the update by Adagrad: (w, gradient, square)."""
    return _applied(simd.updates.adagrad_entry(), rate, epsilon, decay)


def adadelta(rate: float, rho: float, epsilon: float, decay: float) -> Apply:
    """Return the update by Adadelta: (w, gradient, square, step)."""
    return _applied(simd.updates.adadelta_entry(), rate, rho, 1 - rho, epsilon, decay)


def lion(rate: float, beta_1: float, beta_2: float, decay: float) -> Apply:
    """Return the update by Lion: (w, gradient, m)."""
    kernel = simd.updates.lion_entry()
    return _applied(kernel, rate, beta_1, 1 - beta_1, beta_2, 1 - beta_2, decay)


def _applied(kernel: Apply, *numbers: float) -> Apply:
    constants = [np.float32(number) for number in numbers]

    def apply(*arrays: Floats) -> None:
        kernel(*[array.reshape(-1) for array in arrays], *constants)

    return apply


def power(base: float, exponent: int) -> float:
    """Return base**exponent in float64 by squaring: the same bits on any CPU."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
