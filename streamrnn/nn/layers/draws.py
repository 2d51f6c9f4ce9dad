"""Random values of initializers: NumPy's, but with the same bits on any CPU."""

from decimal import Context, Decimal

import numpy as np

from streamrnn.base.arrays import Array

_TAIL = Decimal("3.6541528853610087963519472518")
"""Limit beyond which NumPy draws normal values by logarithms."""

_EXACT = Context(prec=40)
_INVERSE = float(_EXACT.divide(1, _TAIL))


def uniform(
    generator: np.random.Generator, low: float, high: float, shape: tuple[int, ...]
) -> Array:
    """Return values that are uniform in [low, high)."""
    return low + (high - low) * generator.random(shape)


def normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return standard normal values.

    They are NumPy's, except for the logarithms of the tail: 3 in 10,000 values. (NumPy compares 1
    value in 100 with an exponential of the C library, whose last bit decides about once in 10**18
    values.)
    """
    again = np.random.Generator(type(generator.bit_generator)())
    again.bit_generator.state = generator.bit_generator.state
    values = generator.standard_normal(shape)
    flat = values.reshape(-1)
    drawn = 0
    for place in np.flatnonzero(np.abs(flat) > float(_TAIL)).tolist():
        again.standard_normal(place - drawn)
        flat[place] = np.copysign(_of_tail(again), flat[place])
        drawn = place + 1
    return values


def _of_tail(generator: np.random.Generator) -> float:
    """Draw a value beyond `_TAIL` (Marsaglia 1964), from the same bits as NumPy."""
    while int(generator.bit_generator.random_raw()) & 0xFF:  # 0 chooses the tail
        generator.random()  # which rejected a value
    while True:
        x, y = _INVERSE * _exponential(generator), _exponential(generator)
        if y + y > x * x:
            return float(_TAIL) + x


def _exponential(generator: np.random.Generator) -> float:
    """Return -log(1 - u) of a uniform u, rounded exactly."""
    return -float(_EXACT.ln(Decimal(1 - generator.random())))
