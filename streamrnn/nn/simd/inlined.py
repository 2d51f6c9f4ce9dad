"""Functions of vectors that are declared without the compiler.

`vector` tells Numba what they are, when a kernel calls one.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

Inlined: TypeAlias = Callable[..., Any]
"""A function that only kernels call: what it takes and returns is a matter of Numba's types."""


class Inline:
    """A function in Python, and Numba's dispatcher for it: None until a kernel calls it."""

    def __init__(self, function: Inlined) -> None:
        self.function = function
        self.dispatcher: Any = None


class Instruction:
    """The function of this name in `vector`."""

    def __init__(self, name: str) -> None:
        self.name = name


def inline(function: Inlined) -> Inlined:
    """Declare a building block of kernels."""
    block: Any = Inline(function)
    return block  # type: ignore[no-any-return]


def _instruction(name: str) -> Inlined:
    instruction: Any = Instruction(name)
    return instruction  # type: ignore[no-any-return]


absolute = _instruction("absolute")
exponent = _instruction("exponent")
fma = _instruction("fma")
mantissa = _instruction("mantissa")
power_of_two = _instruction("power_of_two")
square_root = _instruction("square_root")
where_at_most = _instruction("where_at_most")
where_less = _instruction("where_less")
