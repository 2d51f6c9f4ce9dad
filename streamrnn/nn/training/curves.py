"""Elementary functions in float64 that have the same bits on any machine.

They are computed by series, because C libraries differ in the last bit.
"""

import math

_TERMS = 12
_LN2 = 0.6931471805599453


def cosine(done: float) -> float:
    """Return (1 + cos(pi * done)) / 2, from 1 at 0 to 0 at 1 (Loshchilov & Hutter 2016).

    >>> [round(cosine(done), 6) for done in (0, 0.25, 0.5, 1)]
    [1.0, 0.853553, 0.5, 0.0]
    """
    # cos(pi x) = -cos(pi (1 - x)) = 1 - 2 sin(pi x / 2)**2: the series of sin up to pi / 2.
    angle = math.pi * min(max(done, 0.0), 1.0) / 2
    term = total = angle
    for n in range(1, _TERMS):
        term = -term * angle * angle / ((2 * n) * (2 * n + 1))
        total += term
    return max(0.0, 1.0 - total * total)


def real_power(base: float, exponent: float) -> float:
    """Return base**exponent for a base of 0 or more, with an error of about 1e-15.

    >>> round(real_power(0.5, 1.5), 12), real_power(0.0, 2.0), real_power(0.0, 0.0)
    (0.353553390593, 0.0, 1.0)
    """
    if exponent == 0 or base == 1:
        return 1.0
    if base == 0:
        return 0.0 if exponent > 0 else math.inf
    return _exp(exponent * logarithm(base))


def logarithm(x: float) -> float:
    """Return the natural logarithm of a number above 0, with an error of about 1e-16."""
    mantissa, exponent = math.frexp(x)
    if mantissa < math.sqrt(0.5):
        mantissa, exponent = 2 * mantissa, exponent - 1
    s = (mantissa - 1) / (mantissa + 1)
    total, term = 0.0, s
    for n in range(_TERMS + 2):
        total += term / (2 * n + 1)
        term *= s * s
    return exponent * _LN2 + 2 * total


def _exp(x: float) -> float:
    if not -745.0 < x < 709.0:
        return 0.0 if x < 0 else math.inf
    whole = math.floor(x / _LN2 + 0.5)
    rest = x - whole * _LN2
    term = total = 1.0
    for n in range(1, _TERMS + 6):
        term *= rest / n
        total += term
    return math.ldexp(total, whole)
