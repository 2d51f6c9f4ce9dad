"""Hashes of rows, column by column (see `kernels.digest`)."""

import functools
from collections.abc import Callable

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.jit import kernel
from streamrnn.nn.simd.keys import string_word

_FACTOR, _OTHER = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT, _HALF = np.uint64(33), np.uint64(32)


def _add(h_N, word_N, factor):
    for n in range(len(word_N)):
        h_N[n] += np.uint64(word_N[n]) * factor


def _strings(h_N, words, start_N, size_N, factor):
    for n in range(len(start_N)):
        start, size = start_N[n], size_N[n]
        value = np.uint64(size) * _FACTOR
        for k in range((size + 7) // 8):
            value = (value ^ string_word(words, start, size, k)) * _FACTOR
            value ^= value >> _HALF
        h_N[n] += value * factor


def _total(h_N):
    total = np.uint64(0)
    for n in range(len(h_N)):
        value = h_N[n]
        value = (value ^ (value >> _SHIFT)) * _FACTOR
        value = (value ^ (value >> _SHIFT)) * _OTHER
        total += value ^ (value >> _SHIFT)
    return total


_KERNELS: dict[str, Callable[..., object]] = {
    "halves": _add,
    "words": _add,
    "strings": _strings,
    "total": _total,
}


@functools.cache
def entry(name: str) -> jit.EntryPoint:
    """Return a kernel by its name; "total" returns its result, the others work in place."""
    any_words = types.Array(types.uint64, 1, "A", aligned=False)
    half, word = types.Array(types.uint32, 1, "C"), types.Array(types.uint64, 1, "C")
    integers = types.Array(types.int64, 1, "C")
    signature = {
        "halves": types.void(word, half, types.uint64),
        "words": types.void(word, word, types.uint64),
        "strings": types.void(word, any_words, integers, integers, types.uint64),
        "total": types.uint64(word),
    }[name]
    return jit.compiled(f"digest-{name}", lambda: kernel(_KERNELS[name]), signature)
