"""Arrays that grow in place: copying one would stall the call that adds a row."""

import mmap
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=np.generic)

_SMALL = 1 << 16
"""Bytes up to which an array is copied when it grows."""
_HUGE = 4 << 20
"""Bytes at the beginning of an array that stay in small pages: huge pages would take more memory
than a small table needs."""


def grown(array: npt.NDArray[T], rows: int) -> npt.NDArray[T]:
    """Return an array with at least `rows` rows: first `array`, then zeros.

    A large array reserves address space for as many rows as half of the machine's memory holds, and
    takes memory only for written pages. So it grows without a copy, and shares the rows of `array`.
    A small array, or one of Python objects, is copied.
    """
    rows = max(rows, len(array))  # an interrupt may have left it longer than the others
    whole = array.base
    if not isinstance(whole, np.ndarray) or len(whole) < rows:
        shape, dtype = array.shape[1:], array.dtype
        width = int(np.prod(shape)) * dtype.itemsize
        most = _address_space() // width if rows * width > _SMALL and not dtype.hasobject else 0
        if most < rows:
            whole = np.zeros((rows, *shape), dtype)
        else:
            memory = small_pages(most * width)
            with suppress(AttributeError, OSError):  # a system without huge pages
                memory.madvise(mmap.MADV_HUGEPAGE, _HUGE)
            whole = np.ndarray((most, *shape), dtype, memory)
        whole[: len(array)] = array
    return whole[:rows]


def small_pages(size: int) -> mmap.mmap:
    """Return this many zero bytes, in separate pages that take memory only when written."""
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _address_space() -> int:
    """Return the bytes that one array may reserve; 0 where address space counts as memory."""
    limits = {resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)}
    overcommit = Path("/proc/sys/vm/overcommit_memory")
    strict = overcommit.exists() and overcommit.read_text().strip() == "2"
    if strict or limits != {resource.RLIM_INFINITY}:
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
