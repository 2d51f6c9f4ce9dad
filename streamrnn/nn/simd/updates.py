"""Updates of weights by optimizers, element by element and in place. Formulas of Keras 3."""

import functools
import math

from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel

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


@functools.cache
def amsgrad_entry() -> Kernel:
    """Return the kernel of Adam with amsgrad.

    (w, gradient, m, v, top, rate, 1 - beta_1, 1 - beta_2, epsilon, decay): `top` is the largest v.
    """

    def build() -> Kernel:
        @jit.kernel
        def run(w, gradient, m, v, top, rate, new_m, new_v, epsilon, decay):
            for i in range(w.size):
                g = gradient[i]
                m[i] += (g - m[i]) * new_m
                v[i] += (g * g - v[i]) * new_v
                if v[i] > top[i]:
                    top[i] = v[i]
                before = w[i] - w[i] * decay
                w[i] = before - m[i] * rate / (math.sqrt(top[i]) + epsilon)

        return run

    f = types.float32
    return jit.compiled("update_amsgrad", build, types.void(*[_FLOATS] * 5, *[f] * 5))


@functools.cache
def nadam_entry() -> Kernel:
    """Return the kernel of Nadam.

    (w, gradient, m, v, rate_of_m, rate_of_gradient, 1 - beta_1, 1 - beta_2, correction, epsilon,
    decay): `correction` is what v is divided by.
    """

    def build() -> Kernel:
        @jit.kernel
        def run(w, gradient, m, v, rate_m, rate_g, new_m, new_v, correction, epsilon, decay):
            for i in range(w.size):
                g = gradient[i]
                m[i] += (g - m[i]) * new_m
                v[i] += (g * g - v[i]) * new_v
                step = rate_m * m[i] + rate_g * g
                w[i] = w[i] - w[i] * decay - step / (math.sqrt(v[i] / correction) + epsilon)

        return run

    f = types.float32
    return jit.compiled("update_nadam", build, types.void(*[_FLOATS] * 4, *[f] * 7))


@functools.cache
def adamax_entry() -> Kernel:
    """Return the kernel of Adamax.

    (w, gradient, m, norm, rate, 1 - beta_1, beta_2, epsilon, decay): `norm` is the largest
    |gradient|, where each update multiplies the earlier ones by beta_2.
    """

    def build() -> Kernel:
        @jit.kernel
        def run(w, gradient, m, norm, rate, new_m, beta_2, epsilon, decay):
            for i in range(w.size):
                g = gradient[i]
                m[i] += (g - m[i]) * new_m
                norm[i] = max(beta_2 * norm[i], abs(g))
                w[i] = w[i] - w[i] * decay - rate * m[i] / (norm[i] + epsilon)

        return run

    f = types.float32
    return jit.compiled("update_adamax", build, types.void(*[_FLOATS] * 4, *[f] * 5))


@functools.cache
def adagrad_entry() -> Kernel:
    """Return the kernel of Adagrad: (w, gradient, square, rate, epsilon, decay)."""

    def build() -> Kernel:
        @jit.kernel
        def run(w, gradient, square, rate, epsilon, decay):
            for i in range(w.size):
                g = gradient[i]
                square[i] += g * g
                w[i] = w[i] - w[i] * decay - rate * g / math.sqrt(square[i] + epsilon)

        return run

    f = types.float32
    return jit.compiled("update_adagrad", build, types.void(*[_FLOATS] * 3, f, f, f))


@functools.cache
def adadelta_entry() -> Kernel:
    """Return the kernel of Adadelta.

    (w, gradient, square, step, rate, rho, 1 - rho, epsilon, decay): `square` and `step` are
    averages of the squares of gradients and of steps.
    """

    def build() -> Kernel:
        @jit.kernel
        def run(w, gradient, square, step, rate, rho, new, epsilon, decay):
            for i in range(w.size):
                g = gradient[i]
                square[i] = rho * square[i] + new * (g * g)
                change = math.sqrt(step[i] + epsilon) * g / math.sqrt(square[i] + epsilon)
                step[i] = rho * step[i] + new * (change * change)
                w[i] = w[i] - w[i] * decay - rate * change

        return run

    f = types.float32
    return jit.compiled("update_adadelta", build, types.void(*[_FLOATS] * 4, *[f] * 5))


@functools.cache
def lion_entry() -> Kernel:
    """Return the kernel of Lion.

    (w, gradient, m, rate, beta_1, 1 - beta_1, beta_2, 1 - beta_2, decay)
    """

    def build() -> Kernel:
        @jit.kernel
        def run(w, gradient, m, rate, beta_1, new_1, beta_2, new_2, decay):
            for i in range(w.size):
                g = gradient[i]
                mixed = m[i] * beta_1 + g * new_1
                if mixed > 0:
                    mixed = types.float32(1)
                elif mixed < 0:
                    mixed = types.float32(-1)
                w[i] = w[i] - w[i] * decay - rate * mixed
                m[i] = m[i] * beta_2 + g * new_2

        return run

    f = types.float32
    return jit.compiled("update_lion", build, types.void(*[_FLOATS] * 3, *[f] * 6))
