"""Arrays on disk that are longer than memory: written in pieces, then mapped."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.base.storage import sink_errors


class ArrayFile:
    """An array (N, *shape) that grows by pieces; `map` returns it without reading it."""

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, ...] = ()) -> None:
        self.path = path
        self._dtype, self._shape = np.dtype(dtype), shape
        self._rows = 0
        with sink_errors("write", str(path)):
            self._file = path.open("wb")

    def append(self, rows: Array) -> None:
        """Add rows. Raises SinkError."""
        with sink_errors("write", str(self.path)):
            self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self._rows += len(rows)

    def close(self) -> None:
        """Close the file; rows can no longer be added."""
        with sink_errors("write", str(self.path)):
            self._file.close()

    def map(self) -> Array:
        """Close the file, and map all rows for reading."""
        self.close()
        return mapped(self.path, self._dtype, (self._rows, *self._shape), "r")


def mapped(path: Path, dtype: Any, shape: tuple[int, ...], mode: Any = "w+") -> Array:
    """Map an array on disk, by default a new one of zeros; in memory if it has no values."""
    if 0 in shape:
        return np.zeros(shape, dtype)
    with sink_errors("write", str(path)):
        if mode == "w+":
            _allocate(path, np.dtype(dtype).itemsize * math.prod(shape))
            mode = "r+"
        found = np.memmap(path, dtype, mode, shape=shape)
    # The same memory as a plain array: slices of a memmap take 2 µs each, 10 times as long.
    return np.asarray(found)


def _allocate(path: Path, size: int) -> None:
    """Make a file of zeros. On a full disk a write to mapped memory would end the process."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
