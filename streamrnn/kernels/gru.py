"""GRU over a window of lanes. Gates in the order z, r, h (Keras)."""

from typing import Any, NamedTuple

import numpy as np

from streamrnn.kernels import plain


class Packed(NamedTuple):
    w: Any
    u: Any
    b: Any
    reset_after: bool


def pack(kernel_FG, recurrent_UG, bias=None, *, reset_after=True) -> Packed:
    both = np.zeros((2, kernel_FG.shape[1]), np.float32)
    if bias is not None:
        both[: bias.size // both.shape[1]] = np.reshape(bias, (-1, both.shape[1]))
    w, u = (np.ascontiguousarray(a, np.float32) for a in (kernel_FG, recurrent_UG))
    return Packed(w, u, both, reset_after)


def run(packed, x_BTF, lengths_B, mask_BT, states, y_BTU, *, activation="tanh",
        recurrent_activation="sigmoid", zero_masked=False) -> None:  # fmt: skip
    lengths_B, mask_BT, y_BTU = plain.whole(x_BTF, lengths_B, mask_BT, y_BTU)
    codes = plain.CODE[recurrent_activation], plain.CODE[activation]
    w, u, b, after = packed
    plain.gru(x_BTF, w, u, b, lengths_B, mask_BT, *states, y_BTU, *codes, zero_masked, after)
