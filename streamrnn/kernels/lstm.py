"""LSTM over a window of lanes. Gates in the order i, f, c, o (Keras)."""

from typing import Any, NamedTuple

import numpy as np

from streamrnn.kernels import plain


class Packed(NamedTuple):
    w: Any
    u: Any
    b: Any


def pack(kernel_FG, recurrent_UG, bias=None) -> Packed:
    if bias is None:
        bias = np.zeros(kernel_FG.shape[1])
    return Packed(*(np.ascontiguousarray(a, np.float32) for a in (kernel_FG, recurrent_UG, bias)))


def run(packed, x_BTF, lengths_B, mask_BT, states, y_BTU, *, activation="tanh",
        recurrent_activation="sigmoid", zero_masked=False) -> None:  # fmt: skip
    lengths_B, mask_BT, y_BTU = plain.whole(x_BTF, lengths_B, mask_BT, y_BTU)
    codes = plain.CODE[recurrent_activation], plain.CODE[activation]
    plain.lstm(x_BTF, *packed, lengths_B, mask_BT, *states, y_BTU, *codes, zero_masked)
