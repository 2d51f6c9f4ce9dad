"""How many threads the kernels use: lanes are split between them, so threads never meet."""

import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

SMALL = 3_000_000
"""Products below which a second thread costs more than it saves (handing over takes some 30 µs)."""

SHARE = 300_000
"""Weights that each of several threads on one lane should have: some 12 µs a step. They meet after
each step: 0.3 µs, but 15 µs where other work holds their cores."""

_local = threading.local()
_together = threading.Lock()
_threads = 0


def _cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def set_threads(n: int) -> None:
    """Let kernels use `n` threads; 0 means all cores, which is the default.

    Results do not depend on it, to the bit. Changes no other library's threads.

    Raises:
        ValueError: `n` is negative.
    """
    global _threads
    if n < 0:
        raise ValueError(f"threads must be 0 (all cores) or more, received {n}")
    _threads = int(n)


def get_threads() -> int:
    """The number of threads that kernels may use."""
    return _threads or _cores()


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep every kernel that the calling thread starts on the calling thread."""
    before = getattr(_local, "alone", False)
    _local.alone = True
    try:
        yield
    finally:
        _local.alone = before


def pays(products: int) -> bool:
    """Whether to split so much work."""
    return products >= SMALL and not getattr(_local, "alone", False) and get_threads() > 1


def partners(weights: int) -> int:
    """How many threads should take one lane of so many weights together.

    One where accesses are checked: a thread that raised would never come to the next meeting.
    """
    if os.environ.get("STREAMRNN_BOUNDSCHECK") == "1":
        return 1
    return max(1, min(get_threads(), weights // SHARE))


def together(work: Callable[[int], None], parts: int) -> None:
    """Call `work(part)` in `parts` threads at the same time; they may wait for each other.

    One such call at a time: of two, each could hold threads that the other waits for.
    """
    if parts == 1:
        work(0)
        return
    with _together:
        jobs = [_pool().submit(work, part) for part in range(1, parts)]
        work(0)
        for job in jobs:
            job.result()


def by_lanes(work: Callable[[int, int], None], lanes: int, lengths_B: Any = None) -> None:
    """Call `work(first, last)` for ranges of lanes that cover `range(lanes)`, one a thread.

    With lengths the ranges have about equally many steps, not lanes.
    """
    parts = 1 if getattr(_local, "alone", False) else min(get_threads(), lanes)
    if parts <= 1:
        work(0, lanes)
        return
    if lengths_B is None or not lengths_B.size:
        edges = [lanes * part // parts for part in range(parts + 1)]
    else:
        done = np.cumsum(lengths_B)
        goals = done[-1] * np.arange(1, parts) / parts
        middles = done - lengths_B / 2
        edges = [0, *np.searchsorted(middles, goals, side="right").tolist(), lanes]
    jobs = [
        _pool().submit(work, first, last) for first, last in pairwise(edges[1:]) if first < last
    ]
    try:
        if edges[1]:
            work(0, edges[1])
    finally:
        for job in jobs:
            job.result()


@functools.lru_cache(maxsize=1)
def _pool_of(process: int, size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix="streamrnn-kernel")


def _pool() -> ThreadPoolExecutor:
    """The threads beside the caller's; made anew in a forked process."""
    return _pool_of(os.getpid(), max(1, get_threads() - 1))
