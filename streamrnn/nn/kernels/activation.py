"""Activations over whole arrays, with the same bits as inside the other kernels."""

import numpy as np

import streamrnn.nn.simd.activations  # noqa: F401 - fills ACTIVATIONS
from streamrnn.base.arrays import Floats
from streamrnn.nn import simd
from streamrnn.nn.simd.names import (
    ACTIVATIONS,
    ROW_WISE,
    ActivationFunction,
    Spec,
    clipped,
    derivative_source,
    label,
    parameters_of,
    split_spec,
)

__all__ = [
    "ACTIVATIONS", "ROW_WISE", "ActivationFunction", "Spec", "applied", "clipped",
    "derivative_source", "label", "parameters_of", "run", "split_spec",
]  # fmt: skip


def run(spec: Spec, x: Floats, out: Floats) -> None:
    """Write the activation of every element of `x` (float32, C-contiguous) to `out`.

    Activations in `ROW_WISE` are over the last axis. `out` may be `x`.
    """
    name, numbers = split_spec(spec)
    if name not in ROW_WISE:
        simd.activation.elementwise_kernel((name, *numbers))(x.reshape(-1), out.reshape(-1))
    elif x.size:
        simd.activation.OVER_ROWS[name]()(x.reshape(-1), out.reshape(-1), x.shape[-1])


def applied(spec: Spec, x: Floats) -> Floats:
    """Return the activation of every element of `x` (float32) in a new array."""
    name, _ = split_spec(spec)
    x = np.ascontiguousarray(x)
    if name == "linear":
        return x.copy()
    out = np.empty_like(x)
    if x.size:
        run(spec, x, out)
    return out


ActivationFunction.on_arrays = staticmethod(applied)
