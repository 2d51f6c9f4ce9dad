"""How many threads the kernels use, and what each takes: lanes, or units of a few lanes."""

import functools
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from streamrnn.kernels import team

SMALL = 3_000_000
"""Products below which a second thread costs more than it saves: 50 µs of work, where handing over
takes 10 µs, and 60 µs if the other thread sleeps."""

SHARE = 40_000
"""Weights that each of several threads on a few lanes should have: 1.5 µs a step, and they meet
after each for 0.3 µs."""

_local = threading.local()
_threads = 0


def _cores() -> int:
    """The cores that this process may use, by its affinity and the quota of its container."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, _quota(Path("/sys/fs/cgroup/cpu.max")) or cores)


@functools.cache
def _quota(path: Path) -> int | None:
    """Cores' worth of time that a container gives, rounded up; None if that is not said."""
    try:
        quota, period = path.read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return None


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


def partners(lanes: int, weights: int, groups: int) -> int:
    """How many threads should take lanes of so many weights together: several where there would be
    few lanes for each, and each would read all weights for them. Units are dealt out by groups.
    """
    if lanes >= 3 * get_threads() or team.backing_off():
        return 1
    return max(1, min(get_threads(), weights // SHARE, groups))


def together(work: Callable[[int], None], parts: int, release: Callable[[], object]) -> bool:
    """Call `work(part)` in `parts` threads at the same time; they may wait for each other.

    False, and nothing is done, if there are not enough threads now. When one ends, `release` must
    bring those that still wait for it to an end.
    """
    return team.together([partial(work, part) for part in range(parts)], release)


def report_latency(slow: bool) -> None:
    """Say how working together went: after slow calls the next ones are left to one thread."""
    team.report_latency(slow)


def by_lanes(work: Callable[[int, int], None], lanes: int, lengths_B: Any = None) -> None:
    """Call `work(first, last)` for ranges of lanes that cover `range(lanes)`, one a thread.

    With lengths the ranges have about equally many steps, not lanes. If another thread is at the
    same, this one does all of its own work.
    """
    parts = 1 if getattr(_local, "alone", False) else min(get_threads(), lanes)
    ranges = pairwise(_edges(lanes, lengths_B, parts))
    jobs = [partial(work, first, last) for first, last in ranges if first < last]
    if len(jobs) < 2 or not team.beside(jobs):
        work(0, lanes)


def _edges(lanes: int, lengths_B: Any, parts: int) -> list[int]:
    if lengths_B is None or not lengths_B.size:
        return [lanes * part // parts for part in range(parts + 1)]
    done = np.cumsum(lengths_B)
    goals = done[-1] * np.arange(1, parts) / parts
    middles = done - lengths_B / 2
    return [0, *np.searchsorted(middles, goals, side="right").tolist(), lanes]
