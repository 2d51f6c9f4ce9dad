"""A hash of the content of rows that does not depend on their order or on how they are cut.

The hash of row n is h[n] = sum over columns c of word[n, c] * factor[c] (mod 2**64, factors odd),
the multilinear hash of Lemire and Kaser (https://arxiv.org/abs/1202.4961); the hash of all rows is
the sum of the mixed h[n]. It uses only integers, so it is the same on every machine.
"""

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Ints, Words
from streamrnn.nn import simd


def add_words(h_N: Words, word_N: Words | npt.NDArray[np.uint32], factor: int) -> None:
    """Add a column of N words (uint32 or uint64, contiguous) to `h_N` (N,) uint64, in place."""
    kernel = simd.digest.entry("words" if word_N.dtype == np.uint64 else "halves")
    kernel(h_N, word_N, np.uint64(factor))


def add_strings(h_N: Words, words: Words, start_N: Ints, size_N: Ints, factor: int) -> None:
    """Add a column of N byte strings, given as for `keys.StringIndex.find`, in place."""
    simd.digest.entry("strings")(h_N, words, start_N, size_N, np.uint64(factor))


def total(h_N: Words) -> int:
    """Return the digest of N rows (mod 2**64); the digests of parts of the rows add up to it."""
    return int(simd.digest.entry("total")(h_N))
