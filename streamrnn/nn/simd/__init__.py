"""Compiled code, in the only room that imports numba. `kernels` is its host side.

From the inside out:

- `jit`         compiler options, the width of vectors, compiled kernels kept on disk
- `vector`      a vector of float32 as a Numba type; `functions`: elementary functions of it
- `tile`        rows x vectors of sums in registers, fed with inputs times weights, or with integers
- `sweep`       all rows times all weights, tile by tile, then a cell
- `recurrent`   the loop over steps and lanes; `lanes`: which lanes have a step (lengths, masks),
                and their states; `spin_barrier`: for several threads on a few large lanes
- `swept`, `layer_norm_lstm`, `dense`, `conv1d`   a few lines of vector code each: the cells
- `activation`, `normalization`   on whole arrays
- `bptt`        recurrent layers in training; `gradients`: of weights and inputs; `losses`;
                `updates`: steps of optimizers
- `random`      counter-based random numbers, orthonormal initial weights
- `keys`, `plain_rows`   find, hash and read rows of a source; `cell`: custom cells
- `activations`  most with a derivative; `names`: how they are named; `arguments`: types that host
                and kernels share

Two invariants. Kernels write into their callers' arrays and never check shapes: layers do. Each
lane's arithmetic has one order (initial sums, then input by input, then state by state, each
product added by an exact fma), so no bit depends on B, T, the cut, the thread, the tile or the CPU,
unless the host process lets some of its threads round subnormal numbers to zero.

A module is imported on first use (`simd.swept`): importing numba takes 0.3 s, and a run that needs
no kernels, or finds them compiled on disk, uses little of it.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from streamrnn.errors import StreamRNNError

if TYPE_CHECKING:
    from streamrnn.nn.simd import (
        activation,
        bptt,
        cell,
        conv1d,
        dense,
        gradients,
        jit,
        keys,
        layer_norm_lstm,
        losses,
        normalization,
        plain_rows,
        random,
        recurrent,
        spin_barrier,
        swept,
        updates,
    )

__all__ = [
    "activation", "bptt", "cell", "conv1d", "dense", "gradients", "jit", "keys",
    "layer_norm_lstm", "losses", "normalization", "plain_rows", "random", "recurrent",
    "spin_barrier", "swept", "updates",
]  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    except OSError as error:  # llvmlite raises it for a library that cannot be loaded
        raise StreamRNNError(
            f"Numba cannot be loaded ({str(error).splitlines()[0]}). Check that there is enough "
            "memory (ulimit -v); if there is, reinstall numba and llvmlite"
        ) from error
