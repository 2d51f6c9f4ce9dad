"""Weights in the order in which a sweep reads them, initial sums, and units' own weights."""

from collections.abc import Sequence

import numpy as np

from streamrnn.arrays import Floats
from streamrnn.simd.arguments import Weights

Gates = Sequence[Floats]


def aligned(size: int) -> Floats:
    """Return zeros (float32), aligned to 64 bytes so that no vector spans two cache lines."""
    raw = np.zeros(size + 16, np.float32)
    skip = -raw.ctypes.data % 64 // 4
    return raw[skip : skip + size]


def vectors_a_group(units: int, n: int, gates: int) -> int:
    """Return the vectors of units per group: with few gates several, if padding allows."""
    if gates > 2:
        return 1
    full = -(-units // n)
    return min((1, 2, 3, 4)[: 4 // gates], key=lambda v: -(-full // v) * v * (1 + 0.25 / v))


def groups_of(units: int, n: int, vectors: int) -> int:
    """Return the number of groups that hold all units."""
    return -(-units // (n * vectors))


def by_group(gates: Gates, n: int, vectors: int) -> Floats:
    """Rearrange a (..., units) per gate as (groups, ..., vectors, gates, n), padded with zeros."""
    units = gates[0].shape[-1]
    groups = groups_of(units, n, vectors)
    shape = (len(gates), *gates[0].shape[:-1], groups * vectors * n)
    stacked = np.zeros(shape, gates[0].dtype)
    stacked[..., :units] = gates
    split = stacked.reshape(*stacked.shape[:-1], groups, vectors, n)
    return np.moveaxis(np.moveaxis(split, 0, -2), -4, 0)


def packed(
    sweeps: Sequence[tuple[Gates, Gates]],
    starts: Sequence[Gates],
    n: int,
    vectors: int,
    own: Gates = (),
) -> Weights:
    """Pack the weights of a kernel of groups of `vectors` of `n` units.

    `sweeps`: per sweep, the gates' (F, U) and (U, U) weights; `starts`: per sweep, its initial sums
    (U,); `own`: (U,) each, the weights that a unit multiplies by itself.
    """
    sums = [by_group(gates, n, vectors).ravel() for gates in starts]
    rest = [by_group([weights], n, vectors).ravel() for weights in own]
    return Weights(_weights(sweeps, n, vectors), _flat([*sums, *rest]))


def _weights(sweeps: Sequence[tuple[Gates, Gates]], n: int, vectors: int) -> Floats:
    flat = []
    for x_gates, h_gates in sweeps:
        groups = [by_group(gates, n, vectors) for gates in (x_gates, h_gates) if gates]
        groups = [group.reshape(group.shape[0], -1) for group in groups]
        flat.append(np.concatenate(groups, axis=1).ravel())
    return _flat(flat)


def _flat(pieces: Gates) -> Floats:
    flat = aligned(sum(piece.size for piece in pieces))
    np.concatenate(pieces, out=flat)
    return flat
