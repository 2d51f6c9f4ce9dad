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


def run(name: str, x: Floats, out: Floats, **parameters: float) -> None:
    """Write the activation of every element of `x` (float32, C-contiguous) to `out`.

    Activations in `ROW_WISE` are over the last axis. `out` may be `x`.
    """
    if name in ROW_WISE:
        if x.size:
            simd.activation.row_wise_entry(name)(x.reshape(-1), out.reshape(-1), x.shape[-1])
        return
    merged = {**parameters_of(name), **parameters}
    simd.activation.elementwise_entry((name, *merged.values()))(x.reshape(-1), out.reshape(-1))


def applied(spec: Spec, x: Floats) -> Floats:
    """Return the activation of every element of `x` (float32) in a new array."""
    name, numbers = split_spec(spec)
    x = np.ascontiguousarray(x)
    if name == "linear":
        return x.copy()
    out = np.empty_like(x)
    if x.size:
        run(name, x, out, **dict(zip(parameters_of(name), numbers, strict=True)))
    return out


ActivationFunction.on_arrays = staticmethod(applied)
