"""Weights in the order in which a sweep reads them, and what else is kept of a layer's weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamrnn.simd.arguments import Weights


def aligned(size: int) -> Any:
    """Zeros of float32 that begin at a multiple of 64 bytes: vectors then lie in one cache line."""
    raw = np.zeros(size + 16, np.float32)
    skip = -raw.ctypes.data % 64 // 4
    return raw[skip : skip + size]


def vectors_a_group(units: int, n: int, gates: int) -> int:
    """How many vectors of units a group should have: with few gates several, if padding allows."""
    if gates > 2:
        return 1
    full = -(-units // n)
    return min((1, 2, 3, 4)[: 4 // gates], key=lambda v: -(-full // v) * v * (1 + 0.25 / v))


def groups_of(units: int, n: int, vectors: int) -> int:
    """Groups that hold all units."""
    return -(-units // (n * vectors))


def by_group(gates: list[Any], n: int, vectors: int) -> Any:
    """Arrays (..., units), one a gate, as (groups, ..., vectors, gates, n), padded with zeros."""
    units = gates[0].shape[-1]
    groups = groups_of(units, n, vectors)
    stacked = np.zeros((len(gates), *gates[0].shape[:-1], groups * vectors * n), np.float32)
    stacked[..., :units] = gates
    split = stacked.reshape(*stacked.shape[:-1], groups, vectors, n)
    return np.moveaxis(np.moveaxis(split, 0, -2), -4, 0)


def packed(
    parts: list[tuple[list[Any], list[Any]]],
    starts: list[list[Any]],
    n: int,
    vectors: int,
    own: Sequence[Any] = (),
) -> Weights:
    """Weights of a kernel of groups of `vectors` of `n` units.

    `parts`: for each sweep the gates' (F, U) and (U, U) weights; `starts`: for each sweep the (U,)
    that its sums start from; `own`: (U,) each, what a unit multiplies by itself.
    """
    sums = [by_group(each, n, vectors).ravel() for each in starts]
    rest = [by_group([each], n, vectors).ravel() for each in own]
    return Weights(_weights(parts, n, vectors), _flat([*sums, *rest]))


def _weights(parts: list[tuple[list[Any], list[Any]]], n: int, vectors: int) -> Any:
    flat = []
    for x_gates, h_gates in parts:
        groups = [by_group(gates, n, vectors) for gates in (x_gates, h_gates) if gates]
        groups = [group.reshape(group.shape[0], -1) for group in groups]
        flat.append(np.concatenate(groups, axis=1).ravel())
    return _flat(flat)


def _flat(parts: list[Any]) -> Any:
    flat = aligned(sum(part.size for part in parts))
    np.concatenate(parts, out=flat)
    return flat
