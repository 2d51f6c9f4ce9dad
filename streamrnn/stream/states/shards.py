"""Assign streams to shards by a hash of the key, equal in every process and on every machine."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Ints, Words
from streamrnn.stream.sources import hashes_of

_FACTOR = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT, _HALF = np.uint64(33), np.uint64(32)


def key_hashes(keys: Sequence[pa.Array]) -> Words:
    """Return a hash (N,) uint64 of each of N keys, which depends on all of their bits.

    `keys` are the key columns, in the types of the state table.
    """
    hashes = hashes_of(keys)
    mixed = (hashes ^ (hashes >> _SHIFT)) * _FACTOR
    mixed ^= mixed >> _SHIFT
    return mixed


def shard_of(hash_N: Words, shards: int) -> Ints:
    """Return the shard (N,) int64 of each of N hashes of keys, from 0 to `shards` - 1.

    Outputs rely on this assignment: each shard's state has its own files.

    >>> shard_of(key_hashes([pa.array(["a", "b", "c", "d"])]), 3).tolist()
    [2, 1, 2, 2]
    """
    return (((hash_N >> _HALF) * np.uint64(shards)) >> _HALF).astype(np.int64)


def by_shard(shard_N: Ints, shards: int) -> list[Ints]:
    """Return the rows of each shard, in their order."""
    kind = np.uint8 if shards <= 1 << 8 else np.uint16 if shards <= 1 << 16 else np.int64
    order = np.argsort(shard_N.astype(kind), kind="stable")  # radix sort for 16 bits
    ends = np.cumsum(np.bincount(shard_N, minlength=shards))
    return np.split(order, ends[:-1])
