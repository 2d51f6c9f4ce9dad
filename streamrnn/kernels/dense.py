"""Dense over rows."""

from typing import Any, NamedTuple

import numpy as np

from streamrnn.kernels import plain


class Packed(NamedTuple):
    w: Any
    b: Any


def pack(kernel_FU, bias_U=None) -> Packed:
    if bias_U is None:
        bias_U = np.zeros(kernel_FU.shape[1])
    return Packed(*(np.ascontiguousarray(a, np.float32) for a in (kernel_FU, bias_U)))


def run(packed, x_NF, y_NU, *, activation="linear") -> None:
    linear = activation == "softmax"
    plain.dense(x_NF, *packed, y_NU, 0 if linear else plain.CODE[activation])
    if linear:
        plain.softmax(y_NU, y_NU)
