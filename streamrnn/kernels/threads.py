"""How many threads the kernels use: lanes are split between them, so threads never meet."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

_lock = threading.Lock()
_local = threading.local()
_threads = os.cpu_count() or 1
_pool: ThreadPoolExecutor | None = None


def set_threads(n: int) -> None:
    """Let kernels use `n` threads; 0 means all cores."""
    global _threads, _pool
    if n < 0:
        raise ValueError(f"threads must be 0 (all cores) or more, received {n}")
    with _lock:
        _threads = n or os.cpu_count() or 1
        _pool = None


def get_threads() -> int:
    """The number of threads that kernels may use."""
    return _threads


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep every kernel that this thread starts on this thread."""
    before = getattr(_local, "alone", False)
    _local.alone = True
    try:
        yield
    finally:
        _local.alone = before


def by_lanes(work: Callable[[int, int], None], lanes: int) -> None:
    """Call `work(first, last)` for ranges of lanes that cover `range(lanes)`."""
    work(0, lanes)
