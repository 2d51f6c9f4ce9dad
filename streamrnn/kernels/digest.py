"""A number for the content of rows that does not depend on their order or on how they are cut.

Of row n: h[n] = sum over columns c of word[n, c] * factor[c] (mod 2**64, factors odd), the
multilinear hash of Lemire and Kaser (https://arxiv.org/abs/1202.4961); of all rows the sum of the
mixed h[n]. Integers alone: the same on every machine.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

_FACTOR, _OTHER = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT, _HALF = np.uint64(33), np.uint64(32)


def add_words(h_N: Any, word_N: Any, factor: int) -> None:
    """Add a column of N words (uint32 or uint64, contiguous) to `h_N` (N,) uint64, in place."""
    _entry("words" if word_N.dtype == np.uint64 else "halves")(h_N, word_N, np.uint64(factor))


def add_strings(h_N: Any, words: Any, start_N: Any, size_N: Any, factor: int) -> None:
    """Add a column of N byte strings, given as `keys.Table.find` takes them, in place."""
    _entry("strings")(h_N, words, start_N, size_N, np.uint64(factor))


def total(h_N: Any) -> int:
    """The digest of N rows (mod 2**64): those of several pieces add up."""
    return int(_entry("total")(h_N))


@functools.cache
def _entry(name: str) -> Callable[..., Any]:
    from numba import types

    from streamrnn.kernels import jit

    any_words = types.Array(types.uint64, 1, "A", aligned=False)
    half, word = types.Array(types.uint32, 1, "C"), types.Array(types.uint64, 1, "C")
    integers = types.Array(types.int64, 1, "C")
    signature = {
        "halves": types.void(word, half, types.uint64),
        "words": types.void(word, word, types.uint64),
        "strings": types.void(word, any_words, integers, integers, types.uint64),
        "total": types.uint64(word),
    }[name]
    return jit.compiled(f"digest-{name}", lambda: _kernels()[name], signature)


def _kernels() -> dict[str, Any]:
    from streamrnn.kernels.jit import kernel

    @kernel
    def add(h_N, word_N, factor):
        for n in range(len(word_N)):
            h_N[n] += np.uint64(word_N[n]) * factor

    @kernel
    def strings(h_N, words, start_N, size_N, factor):
        for n in range(len(start_N)):
            start, left = start_N[n], size_N[n]
            value = np.uint64(left) * _FACTOR
            while left > 0:
                word = words[start]
                if left < 8:
                    word &= ~np.uint64(0) >> np.uint64(64 - 8 * left)
                value = (value ^ word) * _FACTOR
                value ^= value >> _HALF
                start += 8
                left -= 8
            h_N[n] += value * factor

    @kernel
    def total(h_N):
        found = np.uint64(0)
        for n in range(len(h_N)):
            value = h_N[n]
            value = (value ^ (value >> _SHIFT)) * _FACTOR
            value = (value ^ (value >> _SHIFT)) * _OTHER
            found += value ^ (value >> _SHIFT)
        return found

    return {"halves": add, "words": add, "strings": strings, "total": total}
