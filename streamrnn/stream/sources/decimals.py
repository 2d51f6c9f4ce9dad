"""Decimals: the integers that they store, and the floats that are nearest to them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Array, Bools, Ints, Words

WIDEST = 76
"""Digits of the widest decimal."""

_SHORT = 9  # all numbers with this many digits are below 2**32
_HALF = np.uint64(32)
_POWERS = 22  # powers of ten up to here are exact in float64
_POWER = np.array([float(10**exponent) for exponent in range(_POWERS + 1)])
_STEPS = (64, 32, 16, 8, 4, 2, 1)  # their sums are all possible counts of zeros


def nearest_floats(array: pa.Array, digits: int) -> tuple[Array, Bools]:
    """Return the nearest float64 (N,) of decimals, and which (N,) have at most `digits` digits.

    Trailing zeros do not count: 0.50 has one digit. Values of other decimals, and of nulls, are
    undefined. (Arrow's cast multiplies by 0.1, and turns 0.3 into 0.30000000000000004.)
    """
    unscaled, fits = _unscaled(array)
    limit = 10**digits
    scale = array.type.scale
    fits &= (unscaled < limit) & (unscaled > -limit) & (abs(scale) <= _POWERS)
    values = np.zeros(len(array))
    values[fits] = _scaled(unscaled[fits], np.full(int(fits.sum()), -scale))
    others = np.flatnonzero(~fits & array.is_valid().to_numpy(zero_copy_only=False))
    if len(others):
        unscaled, exponent, short = _without_zeros(array.take(pa.array(others)), limit)
        short &= np.abs(exponent) <= _POWERS
        rows = others[short]
        values[rows] = _scaled(unscaled[short], exponent[short])
        fits[rows] = True
    return values, fits


def integer_limbs(array: pa.Array) -> tuple[Words, Bools]:
    """Return the absolute values of the integers that K decimals store; which (K,) are negative.

    The values are limbs (8, K) of 32 bits each, highest first. No decimal may be null.
    """
    wide = array.cast(pa.decimal256(WIDEST, array.type.scale))
    size = pc.abs(wide)
    limbs = np.frombuffer(size.buffers()[1], "<u4").reshape(-1, 8)[size.offset :][: len(size)]
    negative: Bools = pc.not_equal(wide, size).to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(limbs.T[::-1], np.uint64), negative


def joined_limbs(limbs: Words) -> tuple[Words, Words]:
    """Return integers below 2**128, of limbs (8, K), as high (K,) * 2**64 + low (K,)."""
    high, low = ((limbs[i] << _HALF) | limbs[i + 1] for i in (4, 6))
    return high, low


def _without_zeros(array: pa.Array, limit: int) -> tuple[Ints, Ints, Bools]:
    """Return integers and exponents of ten (K,) of decimals, without trailing zeros.

    Also return which (K,) integers are below `limit`; the others are undefined.
    """
    limbs, negative = integer_limbs(array)
    exponent = np.full(len(array), -array.type.scale)
    nonzero = limbs.any(axis=0)
    exponent[~nonzero] = 0
    for step in _STEPS:
        quotient = limbs.copy()
        zeros = _divide(quotient, step) & nonzero
        limbs[:, zeros] = quotient[:, zeros]
        exponent[zeros] += step
    _, low = joined_limbs(limbs)
    short: Bools = ~limbs[:6].any(axis=0) & (low < np.uint64(limit))
    signed = np.where(short, low, 0).astype(np.int64)
    return np.where(negative, -signed, signed), exponent, short


def _divide(limbs: Words, digits: int) -> Bools:
    """Divide K integers by 10**digits in place; return which (K,) had no remainder.

    `limbs` (8, K): 32 bits each, highest first. Arrow's division (and `trunc`) gives some wrong
    quotients near 2**64.
    """
    whole = np.ones(limbs.shape[1], bool)
    for done in range(0, digits, _SHORT):
        unit = np.uint64(10 ** min(_SHORT, digits - done))
        rest = np.zeros(limbs.shape[1], np.uint64)
        for limb in limbs:
            value = (rest << _HALF) | limb
            limb[:], rest = value // unit, value % unit
        whole &= rest == 0
    return whole


def _scaled(unscaled: Ints, exponent: Ints) -> Array:
    """Return unscaled * 10**exponent (K,), rounded once: both are exact in float64."""
    power = _POWER[np.abs(exponent)]
    values: Array = np.where(exponent < 0, unscaled / power, unscaled * power)
    return values


def _unscaled(array: pa.Array) -> tuple[Ints, Bools]:
    """Return the integers (N,) that decimals store, and which of them int64 can hold."""
    width = array.type.byte_width
    limb = min(width, 8)
    if not len(array):
        return np.zeros(0, np.int64), np.zeros(0, bool)
    stored = np.frombuffer(array.buffers()[1], f"<i{limb}").reshape(-1, width // limb)
    stored = stored[array.offset :][: len(array)]
    low: Ints = stored[:, 0].astype(np.int64)
    whole: Bools = (stored[:, 1:] == (low >> 63)[:, np.newaxis]).all(axis=1)
    return low, whole
