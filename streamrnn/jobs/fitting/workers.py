"""Fits that run side by side, each in a process of its own.

Threads would take turns: half of the time of a small model is Python's.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from streamrnn import errors
from streamrnn.errors import StreamRNNError
from streamrnn.jobs.fitting import worker as fit_worker
from streamrnn.jobs.fitting.summary import FitProgress, FitSummary
from streamrnn.jobs.fitting.worker import FitEvent, FitRequest, run_request

ReportFit = Callable[[int, FitProgress], None]
"""Called with the number of a request, and its progress."""
_Numbered = tuple[int, FitEvent]


def fit_all(
    requests: Sequence[FitRequest], workers: int, report: ReportFit, stop: threading.Event
) -> list[FitSummary]:
    """Run fits in so many processes, or with one in this process; return their summaries.

    Once `stop` is set all of them commit and end; those that did not begin have no summary. If one
    fails the others commit, and its error is raised.
    """
    if workers < 2:
        return list(_here(requests, report, stop))
    return _Side(requests, report, stop).run(workers)


def _here(
    requests: Sequence[FitRequest], report: ReportFit, stop: threading.Event
) -> Iterator[FitSummary]:
    for number, request in enumerate(requests):
        if not stop.is_set():
            yield run_request(request, stop, lambda now, n=number: report(n, now))


class _Side:
    """Fits side by side: a thread for each process hands out requests, and passes on events."""

    def __init__(
        self, requests: Sequence[FitRequest], report: ReportFit, stop: threading.Event
    ) -> None:
        self._report, self._stop = report, stop
        self._waiting = list(enumerate(requests))[::-1]
        self._events: SimpleQueue[_Numbered] = SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopped = False

    def run(self, workers: int) -> list[FitSummary]:
        self._processes = [_process() for _ in range(workers)]
        threads = [threading.Thread(target=self._drive, args=(p,)) for p in self._processes]
        for thread in threads:
            thread.start()
        found: dict[int, FitSummary] = {}
        failed: _Numbered | None = None
        try:
            while any(thread.is_alive() for thread in threads) or not self._events.empty():
                try:
                    number, event = self._events.get(timeout=0.1)
                except Empty:
                    event = FitEvent()
                if event.progress is not None:
                    self._report(number, event.progress)
                if event.summary is not None:
                    found[number] = event.summary
                if event.error is not None:
                    failed = failed or (number, event)
                if self._stop.is_set() or failed is not None:
                    self._stop_all()
        finally:
            for process in self._processes:
                process.kill()
            for thread in threads:
                thread.join()
            for process in self._processes:
                _close(process)
        if failed is not None:
            raise _error(failed[1])
        return [found[number] for number in sorted(found)]

    def _drive(self, process: subprocess.Popen[bytes]) -> None:
        """Hand requests to a process, one after another."""
        while self._waiting and not self._stopped:
            number, request = self._waiting.pop()
            try:
                _write(process, request)
                for event in _events(process):
                    self._events.put((number, event))
            except (EOFError, OSError, pickle.UnpicklingError):
                text = (
                    f"the process of a fit ended with code {process.wait()}; rerun the same "
                    "command to resume"
                )
                self._events.put((number, FitEvent(error=("EngineError", text))))
                return

    def _stop_all(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        for process in self._processes:
            with suppress(OSError):  # it has ended
                _write(process, fit_worker.STOP)


def _process() -> subprocess.Popen[bytes]:
    """Start a process that imports what this one does, and that no signal of the terminal ends."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", f"from {fit_worker.__name__} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    )


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes of a process that was killed, and wait for its end."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    process.wait()


def _events(process: subprocess.Popen[bytes]) -> Iterator[FitEvent]:
    """Read what a process reports of a fit, up to its end."""
    assert process.stdout is not None
    ended = False
    while not ended:
        event: FitEvent = pickle.load(process.stdout)
        ended = event.progress is None
        yield event


def _write(process: subprocess.Popen[bytes], message: object) -> None:
    assert process.stdin is not None
    pickle.dump(message, process.stdin)
    process.stdin.flush()


def _error(event: FitEvent) -> Exception:
    """Return the error of a fit in another process."""
    assert event.error is not None
    name, text = event.error
    if name is None:
        return RuntimeError(text)
    kind: type[StreamRNNError] = getattr(errors, name)
    return kind(text)
