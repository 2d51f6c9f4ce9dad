"""SimpleRNN over a window of lanes."""

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
        zero_masked=False) -> None:  # fmt: skip
    lengths_B, mask_BT, y_BTU = plain.whole(x_BTF, lengths_B, mask_BT, y_BTU)
    code = plain.CODE[activation]
    plain.simple_rnn(x_BTF, *packed, lengths_B, mask_BT, *states, y_BTU, code, zero_masked)
