"""Activations over whole arrays, with the same bits as inside the other kernels."""

from typing import Any

from streamrnn import simd
from streamrnn.simd.names import DEFAULTS, Spec, clipped, label, split_spec

__all__ = ["DEFAULTS", "Spec", "clipped", "label", "run", "split_spec"]


def run(name: str, x: Any, out: Any, **parameters: float) -> None:
    """The activation of every element of `x` (float32, C-contiguous) into `out`.

    `softmax` goes over the last axis. `out` may be `x`.
    """
    if name == "softmax":
        if x.size:
            simd.activation.softmax_entry()(x.reshape(-1), out.reshape(-1), x.shape[-1])
        return
    merged = {**DEFAULTS.get(name, {}), **parameters}
    simd.activation.elementwise_entry((name, *merged.values()))(x.reshape(-1), out.reshape(-1))
