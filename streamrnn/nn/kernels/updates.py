"""Updates of weights in place, by the formulas of optimizers. Weights may be read-only arrays."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn import simd

Apply: TypeAlias = Callable[..., None]
"""Called with a weight, its gradient and the arrays kept for it: contiguous, of one shape."""


def update(kernel: str, *numbers: float, **form: bool) -> Apply:
    """Return the update by a kernel of `simd.updates`, which documents its arrays and numbers.

    kernel: its name, such as "adam" for adam_entry. form: the arguments of this entry, which choose
    the form that is compiled.
    """
    run = getattr(simd.updates, f"{kernel}_entry")(**form)
    constants = [np.float32(number) for number in numbers]

    def apply(*arrays: Floats) -> None:
        run(*[array.reshape(-1) for array in arrays], *constants)

    return apply


def power(base: float, exponent: int) -> float:
    """Return base**exponent in float64 by squaring: the same bits on any CPU."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
