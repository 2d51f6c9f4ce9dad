"""Helper threads that work in parallel with the caller's thread: a team, and a crew.

A pool of the standard library takes 60 µs for a call and its return, as long as it takes to compute
a few lanes. So both sides spin for a moment before they sleep. Two threads that the system has put
on one core stay there for many milliseconds, at a tenth of the speed if they synchronize after each
step. So a caller moves its helpers off its own core before it wakes them, and a helper that shares
another thread's core moves to a free one.

A caller uses idle helpers, or, if there are too few, does its work alone. It does not return before
its helpers have finished, even after an error or an interrupt, because they write into its arrays.
Threads blocked on a peer that failed are released (`release`).

If other processes occupy the cores, waiting for a helper takes longer than it saves (4 ms, a time
slice of the system). After two such calls (a single one may be slow only because a core slept) the
team backs off: for a while, callers work alone. This time doubles whenever the call after it is
slow, too.
"""

import contextlib
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from streamrnn.nn import simd

POLLS = 5000
"""Number of polls for work, or for its end, before a thread sleeps: about 100 µs."""

SLOW = 500e-6
"""Seconds a caller may wait for helpers, beyond the time of its own work."""

LEAST_BACK_OFF, MOST_BACK_OFF = 0.01, 1.0
"""Seconds to back off, at first and at most."""

_Job = Callable[[], object]


def _core() -> int:
    """Return the core that the calling thread runs on."""
    return int(simd.spin_barrier.core()())


def usable_cores() -> set[int]:
    """Return the cores that the calling thread may use; none if the system does not report them."""
    affinity = getattr(os, "sched_getaffinity", None)
    return affinity(0) if affinity else set()


class _Task:
    """A job for a helper.

    `running` is held until the job is done: a bare lock, as an interrupt may leave the lock inside
    an Event or a Condition held forever.
    """

    __slots__ = ("done", "error", "job", "release", "running", "ticket")

    def __init__(self, job: _Job, release: _Job) -> None:
        self.job, self.release = job, release
        self.ticket = 0
        """The task's number among the helper's tasks; 0: not yet passed to a helper."""
        self.done = False
        self.error: BaseException | None = None
        self.running = threading.Lock()
        self.running.acquire()


class _Helper:
    """One thread. The queue passes tasks; the counters signal new and finished ones to spinners."""

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
        """Whether every task passed to this helper is done."""
        return bool(self._ended[0] == self._ticket)

    def start(self, task: _Task, free: set[int], taken: set[int]) -> None:
        """Start a task on one of the cores `free`, and on none of `taken` if there are others."""
        self._free, self._taken = free, taken
        if self._may_use != free:
            self._move_to(free)
        task.ticket = self._ticket = self._ticket + 1  # no interrupt can occur between these lines
        self._tasks.put(task)
        self._started[0] = task.ticket

    def wait(self, task: _Task) -> None:
        """Wait until a task that was passed to this helper is done."""
        self._spin_until(self._ended, task.ticket, POLLS)
        if not task.done:
            task.running.acquire()

    def _run(self) -> None:
        ticket = 0
        while True:
            ticket += 1
            self._spin_until(self._started, ticket, POLLS)
            task = self._tasks.get()
            try:
                self.core = _core()
                if self.core in self._taken:
                    self._move_to(self._free - self._taken)
                    self.core = _core()
                task.job()
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                task.error = error
                task.release()
            self._ended[0] = ticket  # idle before its caller resumes: the next call can use it
            task.done = True
            task.running.release()
            del task  # it refers to objects of the caller

    def _move_to(self, cores: set[int]) -> None:
        if cores and self._thread.native_id is not None:
            with contextlib.suppress(OSError):  # not permitted: then it stays
                os.sched_setaffinity(self._thread.native_id, cores)  # affects this thread only
                self._may_use = cores


class _Team:
    """Helpers, created on first use."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.back_off_until = 0.0
        self._back_off = 0.0
        self._lock = threading.RLock()
        self._helpers: list[_Helper] = []

    def run(self, jobs: Sequence[_Job], release: _Job) -> bool:
        """Run all jobs in parallel, the first in this thread; raise the first error.

        Return False, with nothing done, if there are not enough idle helpers.
        """
        tasks = [_Task(job, release) for job in jobs[1:]]
        helpers: list[_Helper] = []
        try:
            try:
                if not self._start(tasks, helpers):
                    return False
                jobs[0]()
            finally:
                release()  # helpers that still wait for the first job would wait forever
        finally:
            interrupt = _wait_for(tasks, helpers)
            if interrupt is not None:
                raise interrupt
        for task in tasks:
            if task.error is not None:
                raise task.error
        return True

    def _start(self, tasks: Sequence[_Task], helpers: list[_Helper]) -> bool:
        """Pass each task to an idle helper, which is appended to `helpers`."""
        cores = usable_cores()
        taken = {_core()} if len(tasks) < len(cores) else set()  # otherwise some must share a core
        free = cores - taken
        with self._lock:
            helpers += self._idle(len(tasks))
            if len(helpers) < len(tasks):
                return False
            _start_tasks(tasks, helpers, free, taken)
        return True

    def _idle(self, count: int) -> list[_Helper]:
        with contextlib.suppress(RuntimeError):  # the system refuses another thread
            while len(self._helpers) < count:
                self._helpers.append(_Helper())
        return [helper for helper in self._helpers[:count] if helper.idle]

    def report_latency(self, slow: bool) -> None:
        """Back off after the second slow call in a row, twice as long each time."""
        if not slow:
            self._back_off = 0.0
            return
        if self._back_off:
            self.back_off_until = time.monotonic() + self._back_off
        self._back_off = min(max(2 * self._back_off, LEAST_BACK_OFF), MOST_BACK_OFF)


_team = _Team()


def _current() -> _Team:
    """Return the team of this process, a new one after a fork: threads do not survive it."""
    global _team
    if _team.process != os.getpid():
        _team = _Team()
    return _team


def _start_tasks(
    tasks: Sequence[_Task], helpers: Sequence[_Helper], free: set[int], taken: set[int]
) -> None:
    """Start each task on its helper; add the helpers' cores to `taken`, if cores must differ.

    The block that holds the lock contains no loop: an interrupt at its jump back might leave the
    lock held (see tests/jobs/session/test_interrupts.py).
    """
    for helper, task in zip(helpers, tasks, strict=True):
        helper.start(task, free, set(taken))
        if taken:
            taken.add(helper.core)


def _wait_for(tasks: Sequence[_Task], helpers: Sequence[_Helper]) -> BaseException | None:
    """Wait until all started tasks are done, despite interrupts; return the last interrupt."""
    interrupt = None
    for task, helper in zip(tasks, helpers, strict=False):
        while task.ticket and not task.done:
            try:
                helper.wait(task)
            except BaseException as error:  # noqa: BLE001 - raised once no helper writes any more
                interrupt = error
    return interrupt


def together(work: Callable[[int], None], shares: int, release: _Job) -> bool:
    """Call `work(number)` in `shares` threads in parallel; they may wait for each other.

    Return False, with nothing done, if there are not enough idle threads. `release` must end the
    waiting of all shares; it is called when share 0 ends, and when another share fails.
    """
    return _current().run([partial(work, number) for number in range(shares)], release)


def beside(jobs: Sequence[_Job]) -> bool:
    """Run independent jobs in parallel, the first in this thread.

    Return False, with nothing done, if there are not enough idle threads or the team backs off.
    """
    team = _current()
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
    """Return whether callers should work alone for now."""
    team = _current()
    return team.back_off_until > 0 and time.monotonic() < team.back_off_until


def report_latency(slow: bool) -> None:
    """Record whether jobs run together waited too long for each other."""
    _current().report_latency(slow)


class Crew:
    """Helpers that make calls of any length; they are started on first use, and end with the crew.

    The caller does not wait for a helper that has not started.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self._calls: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._started = 0
        weakref.finalize(self, self._calls.put, None).atexit = False

    def call(self, job: _Job, helpers: int) -> None:
        """Have `job` called by this many helpers, or by as many as the system allows."""
        with contextlib.suppress(RuntimeError):  # the system refuses another thread
            while self._started < helpers:
                serve = partial(_serve, self._calls)
                threading.Thread(target=serve, name="streamrnn-lanes", daemon=True).start()
                self._started += 1
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()  # left from a finished call, never picked up
        for _ in range(min(helpers, self._started)):
            self._calls.put(job)


def _serve(calls: queue.SimpleQueue[_Job | None]) -> None:
    while (job := calls.get()) is not None:
        job()
        del job  # it refers to objects of the caller
    calls.put(None)  # for the next helper
