"""Fits that run side by side, each in a process of its own.

Threads would take turns: half of the time of a small model is Python's.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from multiprocessing.queues import SimpleQueue
from typing import Any

import pyarrow as pa

import __main__
from streamrnn.errors import EngineError, StreamRNNError
from streamrnn.jobs.fitting.job import FitJob
from streamrnn.jobs.fitting.summary import FitOptions, FitProgress, FitSummary
from streamrnn.jobs.preflight import reader
from streamrnn.stream.config import Config

ReportFit = Callable[[int, FitProgress], None]
"""Called with the number of a request, and its progress."""
_PAUSE = 0.05
"""Seconds between two reports of progress."""
_OF_THE_TERMINAL = {signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP}


@dataclass(frozen=True)
class FitRequest:
    """One fit: `given` is the state table that [state] init names, if it is in memory."""

    config: Config
    given: pa.Table | None
    extend: bool
    full_refresh: bool
    limit: int | None

    def run(
        self, stop: threading.Event, report: Callable[[FitProgress], None]
    ) -> FitSummary | None:
        """Fit, unless `stop` is set; a model file at [model] path is replaced."""
        if stop.is_set():
            return None
        options = FitOptions(
            extend=self.extend,
            full_refresh=self.full_refresh,
            overwrite=True,
            limit=self.limit,
            progress=report,
            stop=stop,
        )
        return FitJob(self.config, reader(self.given), options).run()


def fit_all(
    requests: Sequence[FitRequest], workers: int, report: ReportFit, stop: threading.Event
) -> list[FitSummary | None]:
    """Run fits in so many processes, or with one in this process; return their summaries.

    Once `stop` is set all of them commit and end; None for those that did not begin. If one fails
    the others commit, and its error is raised. If a process dies, all end at once.
    """
    if workers < 2 or multiprocessing.current_process().daemon:  # which may have no children
        return [
            request.run(stop, partial(report, number)) for number, request in enumerate(requests)
        ]
    context = multiprocessing.get_context("spawn")
    events: SimpleQueue[tuple[int, FitProgress]] = context.SimpleQueue()
    asked, ask = context.Pipe(duplex=False)
    with asked, ask, ProcessPoolExecutor(workers, context, _begin, (asked, events)) as pool:
        with _detached():
            fits = [pool.submit(_fit, *numbered) for numbered in enumerate(requests)]
        try:
            while wait(fits, _PAUSE).not_done:
                if stop.is_set() or _errors(fits):
                    ask.close()
                _report_all(events, report)
        finally:
            ask.close()
            while wait(fits, _PAUSE).not_done:  # no process may wait for room in the queue
                _report_all(events, lambda *_: None)
        _report_all(events, report)
    if errors := _errors(fits):
        raise errors[0]
    return [fit.result() for fit in fits]


def _errors(fits: Sequence[Future[FitSummary | None]]) -> list[BaseException]:
    """Return the errors of fits that have ended, those that say what failed first."""
    errors = [error for fit in fits if fit.done() and (error := fit.exception()) is not None]
    said = [error for error in errors if not isinstance(error, BrokenProcessPool)]
    ended = EngineError("a process of the fits was ended; rerun the same command to resume")
    return said or [ended for _ in errors]


def _report_all(events: SimpleQueue[tuple[int, FitProgress]], report: ReportFit) -> None:
    while not events.empty():
        report(*events.get())


@contextmanager
def _detached() -> Iterator[None]:
    """Start processes that do not run the script of this one again, nor end with its terminal.

    `multiprocessing` imports the script, which may have no `if __name__ == "__main__"`.
    """
    script: dict[str, Any] = vars(__main__)
    kept: dict[str, Any] = {
        name: script.pop(name) for name in ("__file__", "__spec__") if name in script
    }
    script["__spec__"] = None
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        script.update(kept)


# ---- in a process of the pool

_stop = threading.Event()
_events: SimpleQueue[tuple[int, FitProgress]]


def _begin(asked: connection.Connection, events: SimpleQueue[tuple[int, FitProgress]]) -> None:
    global _events
    _events = events
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()


def _listen(asked: connection.Connection) -> None:
    """Stop the fit once `asked` is closed; end with the process that started this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    if parent.sentinel not in connection.wait([asked, parent.sentinel]):
        _stop.set()
        parent.join()
    os._exit(1)


def _fit(number: int, request: FitRequest) -> FitSummary | None:
    last = 0.0

    def report(progress: FitProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= _PAUSE:
            last = time.monotonic()
            _events.put((number, progress))

    try:
        return request.run(_stop, report)
    except StreamRNNError as error:
        # Of an error that is made of more than a text, only its nearest plain class travels.
        plain = StreamRNNError.__init__
        kind = next(k for k in type(error).__mro__ if getattr(k, "__init__", None) is plain)
        raise kind(str(error)) from None
