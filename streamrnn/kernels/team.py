"""The threads that work beside the caller's.

A pool of the standard library takes 60 µs to hand over a call and to come back: as long as a chunk
of a few lanes takes. So both sides look for a moment before they sleep. And two threads that the
system has put on one core stay there for many milliseconds, at a tenth of the speed where they meet
after each step: a helper that finds itself so goes elsewhere.

Where other work holds the cores, waiting for a helper takes longer than it saves (4 ms, a time
slice of the system). After such a call there is a rest, in which callers are left to themselves; it
doubles as long as the call after it is no better.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

LOOKS = 5000
"""Looks for work, or for its end, before a thread sleeps: some 100 µs."""

SLOW = 500e-6
"""Seconds of waiting for helpers, beyond the time of one's own work, that are too long."""

LEAST_REST, MOST_REST = 0.01, 1.0
"""Seconds."""

Job = Callable[[], object]


def _core() -> int:
    """The core that the calling thread runs on."""
    from streamrnn.kernels.meeting import core

    return core()()


class _Helper:
    """One thread. The queues hand over; the counters only say that they are worth a look."""

    def __init__(self) -> None:
        from streamrnn.kernels.meeting import watcher

        self._watch = watcher()
        self.core = -1
        self._taken: set[int] = set()
        self._ticket = 0
        self._jobs: queue.SimpleQueue[tuple[int, Job]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[int, BaseException | None]] = queue.SimpleQueue()
        self._started, self._ended = np.zeros(2, np.int64), np.zeros(2, np.int64)
        threading.Thread(target=self._run, name="streamrnn-kernel", daemon=True).start()

    def start(self, job: Job, taken: set[int]) -> None:
        """Do a job, on none of the cores `taken` if there are others."""
        self._taken = taken
        self._ticket += 1
        self._jobs.put((self._ticket, job))
        self._started[0] = self._ticket

    def error(self) -> BaseException | None:
        """Wait for the job that was started last; what it raised."""
        self._watch(self._ended, self._ticket, LOOKS)
        while True:
            ticket, error = self._results.get()
            if ticket == self._ticket:  # not one whose caller was interrupted while it waited
                return error

    def _run(self) -> None:
        ticket = 0
        while True:
            self._watch(self._started, ticket + 1, LOOKS)
            ticket, job = self._jobs.get()
            error: BaseException | None = None
            try:
                self._go_elsewhere()
                job()
            except BaseException as raised:  # noqa: BLE001 - raised again in the caller's thread
                error = raised
            del job  # its arrays are the caller's
            self._results.put((ticket, error))
            self._ended[0] = ticket

    def _go_elsewhere(self) -> None:
        self.core = _core()
        if self.core in self._taken and self.core >= 0:
            free = os.sched_getaffinity(os.getpid()) - self._taken
            if free:
                os.sched_setaffinity(0, free)  # of this thread alone
                self.core = _core()


class _Team:
    """Helpers, and who has them: one caller at a time."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.taken = threading.Lock()
        self.rests_until = 0.0
        self._rest = LEAST_REST
        self._helpers: list[_Helper] = []

    def run(self, jobs: Sequence[Job], give_up: Job = lambda: None) -> None:
        """Do all jobs at the same time, the first in this thread; raise the first error.

        `give_up` is called if the first one ends with an error, or is interrupted before.
        """
        while len(self._helpers) < len(jobs) - 1:
            self._helpers.append(_Helper())
        busy = []
        taken = {_core()}
        try:
            for helper, job in zip(self._helpers, jobs[1:], strict=False):
                helper.start(job, set(taken))
                busy.append(helper)
                taken.add(helper.core)
            jobs[0]()
        except BaseException:
            give_up()
            raise
        finally:
            errors = [error for error in [helper.error() for helper in busy] if error is not None]
        if errors:
            raise errors[0]

    def learn(self, slow: bool) -> None:
        """Rest after what was slow, longer and longer; a good call ends that."""
        if slow:
            self.rests_until = time.monotonic() + min(self._rest, MOST_REST)
            self._rest *= 2
        else:
            self._rest = LEAST_REST


_team = _Team()


def _mine() -> _Team:
    """The team of this process: threads do not live on in a forked one."""
    global _team
    if _team.process != os.getpid():
        _team = _Team()
    return _team


def together(jobs: Sequence[Job], give_up: Job) -> None:
    """Do all jobs at the same time: they may wait for each other. Waits for other callers.

    If the first ends with an error, `give_up` must bring the others to an end.
    """
    team = _mine()
    with team.taken:
        team.run(jobs, give_up)


def beside(jobs: Sequence[Job]) -> bool:
    """The same for jobs that need not overlap; false, and nothing is done, if there is no use."""
    team = _mine()
    if rests() or not team.taken.acquire(blocking=False):
        return False
    own: list[float] = []

    def first() -> None:
        began = time.perf_counter()
        jobs[0]()
        own.append(time.perf_counter() - began)

    began = time.perf_counter()
    try:
        team.run([first, *jobs[1:]])
        team.learn(slow=time.perf_counter() - began > 2 * own[0] + SLOW)
    finally:
        team.taken.release()
    return True


def rests() -> bool:
    """Whether callers had better work alone now."""
    team = _mine()
    return team.rests_until > 0 and time.monotonic() < team.rests_until


def learn(slow: bool) -> None:
    """Say whether jobs that were done together waited too long for each other."""
    _mine().learn(slow)
