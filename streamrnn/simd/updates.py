"""Updates of weights by optimizers, element by element and in place. Formulas of Keras 3."""

import functools
import math

from numba import types

from streamrnn.simd import jit
from streamrnn.simd.arguments import Kernel

_FLOATS = types.Array(types.float32, 1, "C")


@functools.cache
def momentum_entry(nesterov: bool) -> Kernel:
    """Return the kernel of SGD with momentum: (w, gradient, m, rate, momentum, decay)."""

    def build() -> Kernel:
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

        return run

    f, name = types.float32, "nesterov" if nesterov else "momentum"
    return jit.compiled(f"update_{name}", build, types.void(_FLOATS, _FLOATS, _FLOATS, f, f, f))


@functools.cache
def adam_entry() -> Kernel:
    """Return the kernel of Adam.

    (w, gradient, m, v, rate, 1 - beta_1, 1 - beta_2, epsilon, decay)
    """

    def build() -> Kernel:
        @jit.kernel
        def run(w, gradient, m, v, rate, new_m, new_v, epsilon, decay):
            for i in range(w.size):
                g = gradient[i]
                m[i] += (g - m[i]) * new_m
                v[i] += (g * g - v[i]) * new_v
                before = w[i] - w[i] * decay
                w[i] = before - m[i] * rate / (math.sqrt(v[i]) + epsilon)

        return run

    f = types.float32
    signature = types.void(_FLOATS, _FLOATS, _FLOATS, _FLOATS, f, f, f, f, f)
    return jit.compiled("update_adam", build, signature)


@functools.cache
def rmsprop_entry(centered: bool) -> Kernel:
    """Return the kernel of RMSprop.

    (w, gradient, square, mean, m, rate, rho, 1 - rho, momentum, epsilon, decay): `square` and
    `mean` are averages of the gradient's square and of the gradient, `m` is the momentum.
    """

    def build() -> Kernel:
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

        return run

    f, name = types.float32, "rmsprop_centered" if centered else "rmsprop"
    return jit.compiled(f"update_{name}", build, types.void(*[_FLOATS] * 5, *[f] * 6))
