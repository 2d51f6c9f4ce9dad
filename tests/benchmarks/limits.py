"""What the cores of this machine can do: multiply-adds, and reading an array again and again.

Sides for `timing.in_turn`, so that a share of a limit compares two figures of the same moment.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from streamrnn.nn.kernels import team
from streamrnn.nn.kernels.packing import aligned
from streamrnn.nn.simd import jit
from streamrnn.nn.simd.vector import fma, load, splat, store

Limit = tuple[Callable[[], object], int]
"""A call, and how many multiply-adds it does or bytes it reads."""


def multiply_adds(count: int = 1, rounds: int = 2_000_000) -> Limit:
    """Nothing but multiply-adds, in as many independent sums as a core can want, on `count` threads
    at once: what two cores reach together may be less than twice what one does."""
    spin, out = _spin(), np.zeros((count, jit.width()), np.float32)

    def side() -> None:
        if count == 1:
            spin(out[0], rounds)
        elif not team.together(lambda thread: spin(out[thread], rounds), count, lambda: None):
            raise RuntimeError("expected idle threads")

    return side, 10 * jit.width() * rounds * count


def reading(size: int) -> Limit:
    """Read an array of so many bytes again and again."""
    read, n = _read(), jit.width()
    w, out = aligned(-(-size // 4) // (4 * n) * 4 * n), np.zeros(n, np.float32)
    rounds = max(1, 10_000_000 // w.nbytes)
    return (lambda: read(w, out, rounds)), w.nbytes * rounds


@functools.cache
def _spin() -> Any:
    n = jit.width()

    @jit.kernel
    def spin(out, rounds):
        a = b = c = d = e = f = g = h = i = j = splat(0.5, n)
        k = splat(0.25, n)
        for _ in range(rounds):
            a, b, c, d, e = fma(a, k, k), fma(b, k, k), fma(c, k, k), fma(d, k, k), fma(e, k, k)
            f, g, h, i, j = fma(f, k, k), fma(g, k, k), fma(h, k, k), fma(i, k, k), fma(j, k, k)
        store(out, 0, a + b + c + d + e + f + g + h + i + j)

    return spin


@functools.cache
def _read() -> Any:
    n = jit.width()

    @jit.kernel
    def read(w, out, rounds):
        a = b = c = d = splat(0.0, n)
        for _ in range(rounds):
            for i in range(0, w.size, 4 * n):
                a += load(w, i, n)
                b += load(w, i + n, n)
                c += load(w, i + 2 * n, n)
                d += load(w, i + 3 * n, n)
        store(out, 0, a + b + c + d)

    return read
