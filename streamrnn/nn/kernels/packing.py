"""Weights in the order in which a sweep reads them, initial sums, and units' own weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.kernels.integers import Integers
from streamrnn.nn.simd.arguments import Kernel, Weights

Gates = Sequence[Floats]

WeightsLike = Floats | Integers
"""The weights (K, G) of one operand, of inputs or of a state; of a convolution (taps, F, G)."""


@dataclass(slots=True, eq=False)
class Packed:
    """Packed weights, and their kernels by activations.

    `groups`: the number of groups of units, which threads may share. `entry(activations)` returns
    a kernel, compiled on first use. `again()` packs the weights again: unpickling calls it, in
    another process, perhaps on another CPU. `lane_vectors`, `word`: see `simd.recurrent.scratch`.
    """

    weights: Weights
    groups: int
    entry: Callable[[tuple[Spec, ...]], Kernel]
    again: Callable[[], "Packed"]
    lane_vectors: int = 0
    word: int = 1
    _kernels: dict[tuple[Spec, ...], Kernel] = field(default_factory=dict, init=False)

    def kernel(self, activations: tuple[Spec, ...]) -> Kernel:
        """Return the kernel for these activations."""
        kernel = self._kernels.get(activations)
        if kernel is None:
            kernel = self._kernels[activations] = self.entry(activations)
        return kernel

    def __reduce__(self) -> tuple[Callable[[], "Packed"], tuple[()]]:
        return self.again, ()


def by_gate(weights: WeightsLike, gates: int) -> list[Array]:
    """Split weights (K, gates * U) by gate, as the kernel reads them."""
    steps = weights.words() if isinstance(weights, Integers) else weights
    return np.split(steps, gates, axis=-1)


def flattened(weights: WeightsLike) -> Array:
    """Return weights (…, G) of one gate as the kernel reads them."""
    if isinstance(weights, Integers):
        return weights.words()
    return np.reshape(weights, (-1, weights.shape[-1]))


def dequantized(weights: WeightsLike) -> Floats:
    """Return weights (K, G) as floats."""
    return weights.floats() if isinstance(weights, Integers) else weights


def word_of(weights: WeightsLike) -> int:
    """Return how many weights a kernel reads in 32 bits."""
    return weights.word if isinstance(weights, Integers) else 1


def rest_of(kernel: WeightsLike, recurrent: WeightsLike | None = None) -> Floats:
    """Return what follows the initial sums for weights that are integers; empty for floats.

    These are the values at the places X_TOP, H_TOP and FACTORS of `simd.arguments`.
    """
    if not isinstance(kernel, Integers):
        return np.zeros(0, np.float32)
    h_top = recurrent.top if isinstance(recurrent, Integers) else 0
    rest = np.array([kernel.top, h_top, *kernel.factors()], np.float32)
    return np.pad(rest, (0, -rest.size % 16))


def aligned(size: int) -> Floats:
    """Return zeros (float32), aligned to 64 bytes so that no vector spans two cache lines."""
    raw = np.zeros(size + 16, np.float32)
    skip = -raw.ctypes.data % 64 // 4
    return raw[skip : skip + size]


def vectors_a_group(units: int, n: int, gates: int) -> int:
    """Return how many vectors of units a group has: several for few gates, if padding allows."""
    if gates > 2:
        return 1
    full = -(-units // n)
    return min((1, 2, 3, 4)[: 4 // gates], key=lambda v: -(-full // v) * v * (1 + 0.25 / v))


def groups_of(units: int, n: int, vectors: int) -> int:
    """Return the number of groups that hold all units."""
    return -(-units // (n * vectors))


def by_group(gates: Gates, n: int, vectors: int) -> Floats:
    """Rearrange (..., units) per gate as (groups, ..., vectors, gates, n), padded with zeros."""
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
    rest: Floats | None = None,
) -> Weights:
    """Pack the weights of a kernel whose groups have `vectors` vectors of `n` units.

    `sweeps`: per sweep, the gates' (F, U) and (U, U) weights; `starts`: per sweep, its initial sums
    (U,); `own`: the units' own weights, (U,) each; `rest`: what `rest_of` returns.
    """
    flat = []
    for x_gates, h_gates in sweeps:
        groups = [by_group(gates, n, vectors) for gates in (x_gates, h_gates) if gates]
        groups = [group.reshape(group.shape[0], -1) for group in groups]
        flat.append(np.concatenate(groups, axis=1).ravel().view(np.float32))
    sums = [by_group(gates, n, vectors).ravel() for gates in starts]
    others = [by_group([weights], n, vectors).ravel() for weights in own]
    others += [] if rest is None else [rest]
    return Weights(_flat(flat), _flat([*sums, *others]))


def _flat(pieces: Gates) -> Floats:
    flat = aligned(sum(piece.size for piece in pieces))
    np.concatenate(pieces, out=flat)
    return flat
