"""Updates of weights by optimizers, element by element and in place. Formulas of Keras 3.

`decay` is the share of each weight that is subtracted from it; `new_m` is 1 - beta_1, `new_v` is
1 - beta_2, and `new` is 1 - rho.
"""

import functools
import math

from numba import types
from numba.core.typing.templates import Signature

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.jit import F1


def _signature(arrays: int, numbers: int) -> Signature:
    return types.void(*[F1] * arrays, *[types.float32] * numbers)


@functools.cache
def momentum(nesterov: bool) -> Kernel:
    """Return the kernel of SGD with momentum: (w, gradient, m, rate, momentum, decay)."""

    @jit.kernel
    def run(w, gradient, m, rate, momentum, decay):
        for i in range(w.size):
            step = rate * gradient[i]
            m[i] = momentum * m[i] - step
            before = w[i] - w[i] * decay
            if nesterov:
                w[i] = before + momentum * m[i] - step
            else:
                w[i] = before + m[i]

    name = "nesterov" if nesterov else "momentum"
    return jit.compiled(f"update_{name}", lambda: run, _signature(3, 3))


@functools.cache
def rmsprop(centered: bool) -> Kernel:
    """Return the kernel of RMSprop.

    (w, gradient, square, mean, m, rate, rho, new, momentum, epsilon, decay): `square` and `mean`
    are moving averages of the gradient's square and, if `centered`, of the gradient; `m` is the
    momentum.
    """

    @jit.kernel
    def run(w, gradient, square, mean, m, rate, rho, new, momentum, epsilon, decay):
        for i in range(w.size):
            g = gradient[i]
            square[i] = rho * square[i] + new * g * g
            spread = square[i] + epsilon
            if centered:
                mean[i] = rho * mean[i] + new * g
                spread = square[i] - mean[i] * mean[i] + epsilon
            m[i] = momentum * m[i] + rate * g / math.sqrt(spread)
            w[i] = w[i] - w[i] * decay - m[i]

    name = "rmsprop_centered" if centered else "rmsprop"
    return jit.compiled(f"update_{name}", lambda: run, _signature(5, 6))


@jit.on_demand("update_adam", _signature(4, 5))
def adam(w, gradient, m, v, rate, new_m, new_v, epsilon, decay):
    """Update by Adam."""
    for i in range(w.size):
        g = gradient[i]
        m[i] += (g - m[i]) * new_m
        v[i] += (g * g - v[i]) * new_v
        before = w[i] - w[i] * decay
        w[i] = before - m[i] * rate / (math.sqrt(v[i]) + epsilon)


@jit.on_demand("update_amsgrad", _signature(5, 5))
def amsgrad(w, gradient, m, v, top, rate, new_m, new_v, epsilon, decay):
    """Update by Adam with amsgrad: `top` is the largest v."""
    for i in range(w.size):
        g = gradient[i]
        m[i] += (g - m[i]) * new_m
        v[i] += (g * g - v[i]) * new_v
        if v[i] > top[i]:
            top[i] = v[i]
        before = w[i] - w[i] * decay
        w[i] = before - m[i] * rate / (math.sqrt(top[i]) + epsilon)


@jit.on_demand("update_nadam", _signature(4, 7))
def nadam(w, gradient, m, v, rate_m, rate_g, new_m, new_v, correction, epsilon, decay):
    """Update by Nadam.

    `rate_m` is the rate for m, `rate_g` the rate for the gradient; v is divided by `correction`.
    """
    for i in range(w.size):
        g = gradient[i]
        m[i] += (g - m[i]) * new_m
        v[i] += (g * g - v[i]) * new_v
        step = rate_m * m[i] + rate_g * g
        w[i] = w[i] - w[i] * decay - step / (math.sqrt(v[i] / correction) + epsilon)


@jit.on_demand("update_adamax", _signature(4, 5))
def adamax(w, gradient, m, norm, rate, new_m, beta_2, epsilon, decay):
    """Update by Adamax.

    `norm` is the largest |gradient|, where each update multiplies the earlier ones by beta_2.
    """
    for i in range(w.size):
        g = gradient[i]
        m[i] += (g - m[i]) * new_m
        norm[i] = max(beta_2 * norm[i], abs(g))
        w[i] = w[i] - w[i] * decay - rate * m[i] / (norm[i] + epsilon)


@jit.on_demand("update_adagrad", _signature(3, 3))
def adagrad(w, gradient, square, rate, epsilon, decay):
    """Update by Adagrad."""
    for i in range(w.size):
        g = gradient[i]
        square[i] += g * g
        w[i] = w[i] - w[i] * decay - rate * g / math.sqrt(square[i] + epsilon)


@jit.on_demand("update_adadelta", _signature(4, 5))
def adadelta(w, gradient, square, step, rate, rho, new, epsilon, decay):
    """Update by Adadelta: `square` and `step` average the squares of gradients and of steps."""
    for i in range(w.size):
        g = gradient[i]
        square[i] = rho * square[i] + new * (g * g)
        change = math.sqrt(step[i] + epsilon) * g / math.sqrt(square[i] + epsilon)
        step[i] = rho * step[i] + new * (change * change)
        w[i] = w[i] - w[i] * decay - rate * change


@jit.on_demand("update_lion", _signature(3, 6))
def lion(w, gradient, m, rate, beta_1, new_1, beta_2, new_2, decay):
    """Update by Lion: `new_1` is 1 - beta_1, `new_2` is 1 - beta_2."""
    for i in range(w.size):
        g = gradient[i]
        mixed = m[i] * beta_1 + g * new_1
        if mixed > 0:
            mixed = types.float32(1)
        elif mixed < 0:
            mixed = types.float32(-1)
        w[i] = w[i] - w[i] * decay - rate * mixed
        m[i] = m[i] * beta_2 + g * new_2
