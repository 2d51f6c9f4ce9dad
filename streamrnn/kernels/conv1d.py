"""Causal 1-D convolution over a window of lanes; the state is the last inputs of each lane."""

from typing import Any, NamedTuple

import numpy as np

from streamrnn.kernels import dense


class Packed(NamedTuple):
    inner: Any
    taps: int
    dilation: int


def pack(kernel_KFU, bias_U=None, *, dilation=1) -> Packed:
    taps, features, units = kernel_KFU.shape
    return Packed(dense.pack(kernel_KFU.reshape(taps * features, units), bias_U), taps, dilation)


def run(packed, x_BTF, lengths_B, mask_BT, state_BCF, y_BTU, *, activation="linear") -> None:
    taps, dilation = packed.taps, packed.dilation
    back = (taps - 1) * dilation
    for lane, x_TF in enumerate(x_BTF):
        steps = x_TF.shape[0] if lengths_B is None else int(lengths_B[lane])
        keep = np.ones(steps, np.bool_) if mask_BT is None else mask_BT[lane, :steps]
        live = np.concatenate([state_BCF[lane], x_TF[:steps][keep]])
        n = int(keep.sum())
        rows = [live[k * dilation : k * dilation + n] for k in range(taps)]
        out = np.empty((n, y_BTU.shape[2]), np.float32)
        dense.run(packed.inner, np.concatenate(rows, axis=1), out, activation=activation)
        y_BTU[lane, :steps][keep] = out
        state_BCF[lane] = live[len(live) - back :]
