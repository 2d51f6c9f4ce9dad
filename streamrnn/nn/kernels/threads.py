"""The number of threads of the kernels, and the work of each: lanes, or units of a few lanes."""

import functools
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from streamrnn.base.arrays import Ints
from streamrnn.nn.kernels import team

MIN_PRODUCTS = 3_000_000
"""Number of products below which a second thread costs more than it saves: this many take 50 µs,
and starting a task takes 10 µs, or 60 µs if the other thread sleeps."""

LANES_A_THREAD = 3
"""Number of lanes per thread below which a window has few lanes: each thread would read all weights
for its lanes, or wait for the others at each step, so a second thread saves a quarter of the time,
not half. On a virtual machine, where waking a thread takes 150 µs, 3 to 5 lanes were 0.4 to 0.85
times as fast with a second thread."""

FEW_LANES_FACTOR = 8
"""How many times `MIN_PRODUCTS` a window of few lanes needs."""

SHARE = 40_000
"""Smallest number of weights for each of several threads that share a few lanes: this many take
1.5 µs a step, the barrier after it 0.3 µs."""

_local = threading.local()
_threads = 0


@functools.cache
def _quota(path: Path) -> int | None:
    """Return the container's quota in cores, rounded up; None if it has no quota."""
    try:
        quota, period = path.read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return None


def set_threads(n: int) -> None:
    """Set the number of threads of kernels; 0 means all cores, which is the default.

    Results are bit-identical for any number. Threads of other libraries are unaffected. Raises
    ValueError if `n` is negative.
    """
    global _threads
    if n < 0:
        raise ValueError(f"threads must be 0 (all cores) or more, received {n}")
    _threads = int(n)


def get_threads() -> int:
    """Return the number of threads that kernels may use.

    By default, it is the number of cores that the process may use, by its affinity and its
    container's quota. Within `limited` it is the limit of the calling thread.
    """
    if number := getattr(_local, "limit", 0) or _threads:
        return int(number)
    cores = len(team.usable_cores()) or os.cpu_count() or 1
    return min(cores, _quota(Path("/sys/fs/cgroup/cpu.max")) or cores)


@contextmanager
def limited(n: int) -> Iterator[None]:
    """Let kernels that the calling thread starts use `n` threads; 0: as many as before."""
    before = getattr(_local, "limit", 0)
    _local.limit = n or before
    try:
        yield
    finally:
        _local.limit = before


def one_thread() -> AbstractContextManager[None]:
    """Run every kernel that the calling thread starts on the calling thread only."""
    return limited(1)


def pays(products: int, lanes: int | None = None) -> bool:
    """Return whether splitting work of this many products pays off.

    `lanes`: the number of lanes, if the work is a window.
    """
    if products < MIN_PRODUCTS or get_threads() == 1:
        return False
    few = lanes is not None and lanes < LANES_A_THREAD * get_threads()
    return not few or products >= FEW_LANES_FACTOR * MIN_PRODUCTS


def over_lanes(
    work: Callable[[int, int], None], lanes: int, products: int, lengths_B: Ints | None = None
) -> None:
    """Call `work(0, lanes)`, or `by_lanes` if splitting the products pays off."""
    if lanes > 1 and pays(products):
        by_lanes(work, lanes, lengths_B)
    else:
        work(0, lanes)


def partners(lanes: int, weights: int, groups: int) -> int:
    """Return how many threads should share lanes with this many weights.

    Several should if there are few lanes per thread: if they divided the lanes, each would read all
    weights for its few lanes. Instead, they divide the units, by whole groups.
    """
    if lanes >= LANES_A_THREAD * get_threads() or team.backing_off():
        return 1
    return max(1, min(get_threads(), weights // SHARE, groups))


def by_lanes(work: Callable[[int, int], None], lanes: int, lengths_B: Ints | None = None) -> None:
    """Call `work(first, last)` for ranges of lanes that cover `range(lanes)`, one per thread.

    With lengths, the ranges have about the same number of steps, not of lanes. If helpers are busy,
    or the team backs off, the caller does all of the work alone.
    """
    number = min(get_threads(), lanes)
    if lengths_B is None or not lengths_B.size:
        edges = [lanes * i // number for i in range(number + 1)]
    else:
        done = np.cumsum(lengths_B)
        goals = done[-1] * np.arange(1, number) / number
        middles = done - lengths_B / 2
        edges = [0, *np.searchsorted(middles, goals, side="right").tolist(), lanes]
    jobs = [partial(work, first, last) for first, last in pairwise(edges) if first < last]
    if len(jobs) < 2 or not team.beside(jobs):
        work(0, lanes)
