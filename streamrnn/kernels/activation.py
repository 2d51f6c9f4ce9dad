"""Activations over whole arrays, with the same bits as inside the other kernels."""

import functools
from typing import Any, TypeAlias

import numpy as np

from streamrnn.errors import UnsupportedError

Spec: TypeAlias = str | tuple[str | float, ...]
"""An activation: its name, or (name, parameter, ...) where its defaults are not meant."""

DEFAULTS: dict[str, dict[str, float]] = {
    "linear": {},
    "tanh": {},
    "sigmoid": {},
    "relu": {},
    "softplus": {},
    "softsign": {},
    "silu": {},
    "gelu": {},
    "mish": {},
    "exponential": {},
    "softmax": {},
    "relu6": {"max_value": 6.0},
    "leaky_relu": {"negative_slope": 0.2},
    "elu": {"alpha": 1.0, "scale": 1.0},
    "selu": {"alpha": 1.6732632423543772, "scale": 1.0507009873554805},
    "hard_sigmoid": {"alpha": 1 / 6, "beta": 0.5},
    "hard_sigmoid_02": {"alpha": 0.2, "beta": 0.5},
    "scaled_tanh": {"alpha": 1.0, "beta": 1.0},
    "affine": {"alpha": 1.0, "beta": 0.0},
    "thresholded_relu": {"alpha": 1.0},
}
"""Every activation, with its parameters in order."""


def split(spec: Spec) -> tuple[str, tuple[float, ...]]:
    """Name and all parameters of an activation."""
    name, *given = (spec,) if isinstance(spec, str) else spec
    if name not in DEFAULTS:
        known = ", ".join(DEFAULTS)
        raise UnsupportedError(f"activation {name!r} is not known; known are: {known}")
    defaults = tuple(DEFAULTS[str(name)].values())
    if len(given) > len(defaults):
        raise UnsupportedError(
            f"activation {name!r} has {len(defaults)} parameters, received {len(given)}"
        )
    return str(name), tuple(float(value) for value in given) + defaults[len(given) :]


def label(spec: Spec) -> str:
    """An activation as part of a file's name."""
    name, numbers = split(spec)
    return "_".join([name, *(repr(number) for number in numbers)])


def run(name: str, x: Any, out: Any, **parameters: float) -> None:
    """The activation of every element of `x` (float32, C-contiguous) into `out`.

    `softmax` goes over the last axis. `out` may be `x`.
    """
    if name == "softmax":
        if x.size:
            _softmax()(x.reshape(-1), out.reshape(-1), x.shape[-1])
        return
    merged = {**DEFAULTS.get(name, {}), **parameters}
    _elementwise((name, *merged.values()))(x.reshape(-1), out.reshape(-1))


@functools.cache
def _elementwise(spec: Spec) -> Any:
    from numba import types

    from streamrnn.kernels import jit
    from streamrnn.kernels.functions import activation
    from streamrnn.kernels.vector import copier, load, store

    n = jit.simd()

    def build() -> Any:
        g, copy = activation(spec), copier(n)

        @jit.kernel
        def elementwise(x, out):
            whole = x.size - x.size % n
            for i in range(0, whole, n):
                store(out, i, g(load(x, i, n)))
            if whole < x.size:
                rest = np.zeros(n, np.float32)
                copy(x, whole, rest, 0, x.size - whole)
                store(rest, 0, g(load(rest, 0, n)))
                copy(rest, 0, out, whole, x.size - whole)

        return elementwise

    f1 = types.Array(types.float32, 1, "C")
    return jit.compiled(f"elementwise-{n}-{label(spec)}", build, types.void(f1, f1))


@functools.cache
def _softmax() -> Any:
    from numba import types

    from streamrnn.kernels import jit
    from streamrnn.kernels.functions import exp
    from streamrnn.kernels.vector import copier, load, store

    n = jit.simd()

    def build() -> Any:
        copy = copier(n)

        @jit.kernel
        def softmax(x, out, units):
            row = np.zeros(-(-units // n) * n, np.float32)
            for begin in range(0, x.size, units):
                top = x[begin]
                for u in range(1, units):
                    top = max(top, x[begin + u])
                copy(x, begin, row, 0, units)
                for u in range(0, units, n):
                    store(row, u, exp(load(row, u, n) - top))
                total = np.float32(0)  # one after the other: the order must not depend on n
                for u in range(units):
                    total += row[u]
                for u in range(0, units, n):
                    store(row, u, load(row, u, n) / total)
                copy(row, 0, out, begin, units)

        return softmax

    f1 = types.Array(types.float32, 1, "C")
    signature = types.void(f1, f1, types.intp)
    return jit.compiled(f"softmax-{n}", build, signature)
