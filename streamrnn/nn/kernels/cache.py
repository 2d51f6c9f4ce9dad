"""Compile kernels ahead of time, into the cache on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamrnn.errors import ConfigError
from streamrnn.nn import simd
from streamrnn.nn.kernels import rows


class Compiled(NamedTuple):
    """The kernels that were needed: their folder, their number, how many are new, and their bytes.

    New ones were compiled by the call.
    """

    folder: Path
    kernels: int
    new: int
    bytes: int


def fill(work: Callable[[], object]) -> Compiled:
    """Compile and save the kernels that `work` needs, and those that every run needs.

    Kernels that are saved already are loaded, so a damaged file is replaced. Raises ConfigError if
    a kernel cannot be saved.
    """
    before = {
        file: file.stat().st_mtime_ns
        for folder in simd.jit.folders()
        for file in folder.glob("*.bin")
    }
    # What every run needs, whatever its model: keys of streams, plain rows, digests, the team.
    words, start, size = np.zeros(8, np.uint64), np.zeros(1, np.int64), np.ones(1, np.int64)
    rows.StringIndex().find(words, start, size, add=True)
    simd.plain_rows.read_kernel()
    hashes = np.zeros(1, np.uint64)
    rows.add_words(hashes, words[:1], 1)
    rows.add_words(hashes, words[:1].astype(np.uint32), 1)
    rows.add_strings(hashes, words, start, size, 1)
    rows.digest(hashes)
    simd.spin_barrier.core()
    simd.spin_barrier.spinner()
    work()
    kept = simd.jit.kept()
    files = [file for file in kept.values() if file is not None]
    if len(files) < len(kept):
        raise ConfigError(
            f"{len(kept) - len(files)} of {len(kept)} compiled kernels could not be saved: "
            "set XDG_CACHE_HOME to a writable folder"
        )
    status = {file: file.stat() for file in files}
    new = sum(before.get(file) != s.st_mtime_ns for file, s in status.items())
    return Compiled(files[0].parent, len(files), new, sum(s.st_size for s in status.values()))


def seconds_compiling() -> float:
    """Return the seconds that this process has spent compiling or waiting for others to compile."""
    return simd.jit.seconds()
