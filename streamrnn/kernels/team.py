"""The threads that work beside the caller's.

A pool of the standard library takes 60 µs to hand over a call and to come back: as long as a chunk
of a few lanes takes. So both sides spin for a moment before they sleep. And two threads that the
system has put on one core stay there for many milliseconds, at a tenth of the speed where they meet
after each step: a caller keeps its helpers off its own core before it wakes them, and a helper that
finds itself on another's goes elsewhere.

A caller takes helpers that are idle, or, if there are too few, does its work alone. It does not
return before its helpers have ended, as they write into its arrays: neither after an error nor
after an interrupt. Threads blocked on a peer that failed are released (`release`).

Where other work holds the cores, waiting for a helper takes longer than it saves (4 ms, a time
slice of the system). After two such calls (one may only have woken a core that slept) it backs off:
for a while callers run single-threaded, twice as long each time the next call is no better.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from streamrnn import simd

LOOKS = 5000
"""Looks for work, or for its end, before a thread sleeps: some 100 µs."""

SLOW = 500e-6
"""Seconds of waiting for helpers, beyond the time of one's own work, that are too long."""

LEAST_BACK_OFF, MOST_BACK_OFF = 0.01, 1.0
"""Seconds."""

Job = Callable[[], object]


def _core() -> int:
    """The core that the calling thread runs on."""
    return simd.spin_barrier.core()()


def _cores() -> set[int]:
    """The cores that the calling thread may use; none where the system does not say."""
    affinity = getattr(os, "sched_getaffinity", None)
    return affinity(0) if affinity else set()


class _Task:
    """A job on its way through a helper.

    `under_way` is held until it is done: a bare lock, as an interrupt may leave the lock inside an
    Event or a Condition taken for ever.
    """

    __slots__ = ("done", "error", "job", "release", "ticket", "under_way")

    def __init__(self, job: Job, release: Job) -> None:
        self.job, self.release = job, release
        self.ticket = 0
        """Its number in the helper's work; 0: not handed over."""
        self.done = False
        self.error: BaseException | None = None
        self.under_way = threading.Lock()
        self.under_way.acquire()


class _Helper:
    """One thread. The queue hands tasks over; the counters say that a look is worth it."""

    def __init__(self) -> None:
        self._spin_until = simd.spin_barrier.spinner()
        self.core = -1
        self._free: set[int] = set()
        self._taken: set[int] = set()
        self._may_use: set[int] = set()
        self._ticket = 0
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._started, self._ended = np.zeros(2, np.int64), np.zeros(2, np.int64)
        self._thread = threading.Thread(target=self._run, name="streamrnn-kernel", daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether every task that was handed over is done."""
        return bool(self._ended[0] == self._ticket)

    def start(self, task: _Task, free: set[int], taken: set[int]) -> None:
        """Do a task on one of the cores `free`, and on none of `taken` if there are others."""
        self._free, self._taken = free, taken
        if self._may_use != free:
            self._move_to(free)
        task.ticket = self._ticket = self._ticket + 1  # no interrupt comes between these two lines
        self._tasks.put(task)
        self._started[0] = task.ticket

    def wait(self, task: _Task) -> None:
        """Until a task is done that was handed over."""
        self._spin_until(self._ended, task.ticket, LOOKS)
        if not task.done:
            task.under_way.acquire()

    def _run(self) -> None:
        ticket = 0
        while True:
            ticket += 1
            self._spin_until(self._started, ticket, LOOKS)
            task = self._tasks.get()
            try:
                self._go_elsewhere()
                task.job()
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                task.error = error
                task.release()
            self._ended[0] = ticket  # idle before its caller goes on: the next call has it
            task.done = True
            task.under_way.release()
            del task  # what it holds is the caller's

    def _go_elsewhere(self) -> None:
        self.core = _core()
        if self.core in self._taken:
            self._move_to(self._free - self._taken)
            self.core = _core()

    def _move_to(self, cores: set[int]) -> None:
        if cores and self._thread.native_id is not None:
            with contextlib.suppress(OSError):  # it may not choose: then it stays
                os.sched_setaffinity(self._thread.native_id, cores)  # of this thread alone
                self._may_use = cores


class _Team:
    """Helpers, made when they are first needed."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.back_off_until = 0.0
        self._back_off = 0.0
        self._lock = threading.RLock()
        self._helpers: list[_Helper] = []

    def run(self, jobs: Sequence[Job], release: Job) -> bool:
        """Do all jobs at the same time, the first in this thread; raise the first error.

        False, and nothing is done, if there are not enough idle helpers.
        """
        tasks = [_Task(job, release) for job in jobs[1:]]
        helpers: list[_Helper] = []
        try:
            try:
                if not self._start(tasks, helpers):
                    return False
                jobs[0]()
            finally:
                release()  # whoever still waits for the first waits in vain
        finally:
            interrupt = _wait_for(tasks, helpers)
            if interrupt is not None:
                raise interrupt
        for task in tasks:
            if task.error is not None:
                raise task.error
        return True

    def _start(self, tasks: Sequence[_Task], helpers: list[_Helper]) -> bool:
        """Hand each task to an idle helper, which is put into `helpers`."""
        cores = _cores()
        taken = {_core()} if len(tasks) < len(cores) else set()  # else some must share one
        free = cores - taken
        with self._lock:
            helpers += self._idle(len(tasks))
            if len(helpers) < len(tasks):
                return False
            _hand_over(tasks, helpers, free, taken)
        return True

    def _idle(self, count: int) -> list[_Helper]:
        with contextlib.suppress(RuntimeError):  # the system gives no more threads
            while len(self._helpers) < count:
                self._helpers.append(_Helper())
        return [helper for helper in self._helpers[:count] if helper.idle]

    def report_latency(self, slow: bool) -> None:
        """Rest after the second slow call, longer and longer; a good call ends that."""
        if not slow:
            self._back_off = 0.0
            return
        if self._back_off:
            self.back_off_until = time.monotonic() + self._back_off
        self._back_off = min(max(2 * self._back_off, LEAST_BACK_OFF), MOST_BACK_OFF)


_team = _Team()


def _mine() -> _Team:
    """The team of this process: threads do not live on in a forked one."""
    global _team
    if _team.process != os.getpid():
        _team = _Team()
    return _team


def _hand_over(
    tasks: Sequence[_Task], helpers: Sequence[_Helper], free: set[int], taken: set[int]
) -> None:
    """Start each task on its helper; cores that they run on go into `taken`, if they must differ.

    No loop stands in the block that holds the lock: an interrupt at its jump back might leave the
    lock held (see tests/pipeline/test_interrupts.py).
    """
    for helper, task in zip(helpers, tasks, strict=True):
        helper.start(task, free, set(taken))
        if taken:
            taken.add(helper.core)


def _wait_for(tasks: Sequence[_Task], helpers: Sequence[_Helper]) -> BaseException | None:
    """Until all that were handed over are done, whatever comes between; returns what came."""
    interrupt = None
    for task, helper in zip(tasks, helpers, strict=False):
        while task.ticket and not task.done:
            try:
                helper.wait(task)
            except BaseException as error:  # noqa: BLE001 - raised when nobody writes any more
                interrupt = error
    return interrupt


def together(jobs: Sequence[Job], release: Job) -> bool:
    """Do all jobs at the same time: they may wait for each other.

    False, and nothing is done, if there are not enough threads now. When one ends, `release` must
    bring those that still wait for it to an end.
    """
    return _mine().run(jobs, release)


def beside(jobs: Sequence[Job]) -> bool:
    """The same for jobs that do not wait for each other."""
    team = _mine()
    if backing_off():
        return False
    own: list[float] = []

    def first() -> None:
        own.append(time.perf_counter())
        jobs[0]()
        own.append(time.perf_counter())

    if not team.run([first, *jobs[1:]], lambda: None):
        return False
    began, ended = own
    team.report_latency(slow=time.perf_counter() - ended > ended - began + SLOW)
    return True


def backing_off() -> bool:
    """Whether callers had better work alone now."""
    team = _mine()
    return team.back_off_until > 0 and time.monotonic() < team.back_off_until


def report_latency(slow: bool) -> None:
    """Say whether jobs that were done together waited too long for each other."""
    _mine().report_latency(slow)
