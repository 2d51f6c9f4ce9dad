"""Schedules of the learning rate, over the share of training that is done."""

import math

_TERMS = 12


def constant(done: float) -> float:
    """Return 1: the learning rate does not change.

    >>> constant(0.5)
    1.0
    """
    return 1.0


def cosine(done: float) -> float:
    """Return (1 + cos(pi * done)) / 2, from 1 at 0 to 0 at 1 (Loshchilov & Hutter 2016).

    By its series, with the same bits on any machine: libraries of C differ in the last one.

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


SCHEDULES = {"constant": constant, "cosine": cosine}
