"""The threads that work beside the caller's.

A pool of the standard library takes 60 µs to hand over a call and to come back: as long as a chunk
of a few lanes takes. So both sides look for a moment before they sleep. And two threads that the
system has put on one core stay there for many milliseconds, at a tenth of the speed where they meet
after each step: a helper that finds itself so goes elsewhere.

One caller at a time has the helpers; who finds them taken does its work alone. A caller does not
return before its helpers have ended, as they write into its arrays: neither after an error nor
after an interrupt. Those who wait for one that failed are sent home (`give_up`).

Where other work holds the cores, waiting for a helper takes longer than it saves (4 ms, a time
slice of the system). After such a call there is a rest, in which callers are left to themselves; it
doubles as long as the call after it is no better.
"""

import contextlib
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
    """One thread. The queue hands jobs over; the counters say that a look is worth it.

    `_done` is held while a job is under way: a bare lock, as an interrupt may leave the lock inside
    an Event or a Condition taken for ever.
    """

    def __init__(self) -> None:
        from streamrnn.kernels.meeting import watcher

        self._watch = watcher()
        self.core = -1
        self.error: BaseException | None = None
        """What the last job raised."""
        self._taken: set[int] = set()
        self._ticket = 0
        self._jobs: queue.SimpleQueue[tuple[Job, Job]] = queue.SimpleQueue()
        self._done = threading.Lock()
        self._started, self._ended = np.zeros(2, np.int64), np.zeros(2, np.int64)
        threading.Thread(target=self._run, name="streamrnn-kernel", daemon=True).start()

    @property
    def idle(self) -> bool:
        """Whether every job that was started has ended."""
        return bool(self._ended[0] == self._ticket)

    def start(self, job: Job, give_up: Job, taken: set[int]) -> None:
        """Do a job, on none of the cores `taken` if there are others; `give_up` if it fails."""
        self.error = None
        self._taken = taken
        self._done.acquire(blocking=False)
        self._ticket += 1
        self._jobs.put((job, give_up))
        self._started[0] = self._ticket

    def wait(self) -> None:
        """Until it is idle."""
        self._watch(self._ended, self._ticket, LOOKS)
        while not self.idle:
            self._done.acquire()

    def _run(self) -> None:
        ticket = 0
        while True:
            ticket += 1
            self._watch(self._started, ticket, LOOKS)
            job, give_up = self._jobs.get()
            try:
                self._go_elsewhere()
                job()
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                self.error = error
                give_up()
            del job, give_up  # what they hold is the caller's
            self._ended[0] = ticket
            with contextlib.suppress(RuntimeError):  # nobody holds it
                self._done.release()

    def _go_elsewhere(self) -> None:
        self.core = _core()
        if self.core in self._taken and self.core >= 0:
            with contextlib.suppress(OSError):  # it may not choose: then it stays
                free = os.sched_getaffinity(os.getpid()) - self._taken
                if free:
                    os.sched_setaffinity(0, free)  # of this thread alone
                    self.core = _core()


class _Team:
    """Helpers, made when they are first needed."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.rests_until = 0.0
        self._rest = LEAST_REST
        self._lock = threading.RLock()
        self._helpers: list[_Helper] = []

    def run(self, jobs: Sequence[Job], give_up: Job) -> bool:
        """Do all jobs at the same time, the first in this thread; raise the first error.

        False, and nothing is done, if there are not enough idle helpers.
        """
        busy: list[_Helper] = []
        try:
            try:
                if not self._start(jobs[1:], give_up, busy):
                    return False
                jobs[0]()
            finally:
                give_up()  # whoever still waits for the first waits in vain
        finally:
            interrupt = _wait_for(busy)
            if interrupt is not None:
                raise interrupt
        for helper in busy:
            error, helper.error = helper.error, None
            if error is not None:
                raise error
        return True

    def _start(self, jobs: Sequence[Job], give_up: Job, busy: list[_Helper]) -> bool:
        """Hand each job to a helper, and add that to `busy` first."""
        taken = {_core()}
        with self._lock:
            helpers = self._idle(len(jobs))
            if len(helpers) < len(jobs):
                return False
            for helper, job in zip(helpers, jobs, strict=True):
                busy.append(helper)
                helper.start(job, give_up, set(taken))
                taken.add(helper.core)
        return True

    def _idle(self, count: int) -> list[_Helper]:
        with contextlib.suppress(RuntimeError):  # the system gives no more threads
            while len(self._helpers) < count:
                self._helpers.append(_Helper())
        return [helper for helper in self._helpers[:count] if helper.idle]

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


def _wait_for(helpers: Sequence[_Helper]) -> BaseException | None:
    """Until all have ended, whatever comes between; returns what came."""
    interrupt = None
    for helper in helpers:
        while not helper.idle:
            try:
                helper.wait()
            except BaseException as error:  # noqa: BLE001 - raised when nobody writes any more
                interrupt = error
    return interrupt


def together(jobs: Sequence[Job], give_up: Job) -> bool:
    """Do all jobs at the same time: they may wait for each other.

    False, and nothing is done, if there are not enough threads now. When one ends, `give_up` must
    bring those that still wait for it to an end.
    """
    return _mine().run(jobs, give_up)


def beside(jobs: Sequence[Job]) -> bool:
    """The same for jobs that do not wait for each other."""
    team = _mine()
    if rests():
        return False
    own: list[float] = []

    def first() -> None:
        own.append(time.perf_counter())
        jobs[0]()
        own.append(time.perf_counter())

    if not team.run([first, *jobs[1:]], lambda: None):
        return False
    began, ended = own
    team.learn(slow=time.perf_counter() - ended > ended - began + SLOW)
    return True


def rests() -> bool:
    """Whether callers had better work alone now."""
    team = _mine()
    return team.rests_until > 0 and time.monotonic() < team.rests_until


def learn(slow: bool) -> None:
    """Say whether jobs that were done together waited too long for each other."""
    _mine().learn(slow)
