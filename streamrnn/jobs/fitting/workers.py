"""Fits that run side by side, each in its own process.

Threads would take turns: half of a small model's time is spent in Python.
"""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from typing import Any

import pyarrow as pa

from streamrnn.errors import EngineError, StreamRNNError
from streamrnn.jobs.fitting.fit_loop import FitProgress
from streamrnn.jobs.fitting.job import FitJob
from streamrnn.jobs.fitting.summary import FitOptions, FitSummary
from streamrnn.jobs.preflight import reader
from streamrnn.stream.config import Config

ReportFit = Callable[[int, FitProgress], None]
"""Called with the number of a request, and its progress."""
_PAUSE = 0.05
"""Seconds between two reports of progress."""
_CODE = f"import sys; sys.path[:] = sys.argv[2:]; from {__name__} import work; work()"
"""The code of a new process, which does not import the script of its parent."""


@dataclass(frozen=True)
class FitRequest:
    """One fit; `state_table` is the table that [state] init names, if it is in memory."""

    config: Config
    state_table: pa.Table | None
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
        return FitJob(self.config, reader(self.state_table), options).run()


def fit_all(
    requests: Sequence[FitRequest], workers: int, report: ReportFit, stop: threading.Event
) -> list[FitSummary | None]:
    """Run fits in `workers` processes (1: in this one); return their summaries.

    Once `stop` is set all of them commit and end; the result of a fit that did not begin is None.
    If a fit fails, or its process dies, the other fits commit, and the error is raised.
    """
    if workers < 2:
        return [
            request.run(stop, partial(report, number)) for number, request in enumerate(requests)
        ]
    waiting = deque(enumerate(requests))
    running: list[_Worker] = []
    results: list[FitSummary | None] = [None] * len(requests)
    try:
        while waiting or running:
            if stop.is_set():
                waiting.clear()
                for worker in running:
                    worker.stop()
            while waiting and len(running) < workers:
                running.append(_Worker(*waiting.popleft()))
            ready = connection.wait([worker.pipe for worker in running], _PAUSE)
            for worker in [of for of in running if of.pipe in ready]:
                message = worker.receive()
                if isinstance(message, Exception):
                    raise message
                if isinstance(message, FitProgress):
                    report(worker.number, message)
                else:
                    results[worker.number] = message
                    running.remove(worker)
    finally:
        for worker in running:
            worker.stop()
        for worker in running:
            while isinstance(worker.receive(), FitProgress):
                pass
    return results


class _Worker:
    """A process that runs one fit, and ends with the process that started it.

    It has a session of its own: signals to the process group of its parent do not reach it.
    """

    def __init__(self, number: int, request: FitRequest) -> None:
        self.number = number
        self.pipe, theirs = multiprocessing.Pipe()
        self._stopped = False
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._send(request)

    def receive(self) -> FitProgress | FitSummary | Exception | None:
        """Return progress, or, once the process has ended, the outcome."""
        try:
            message: FitProgress | FitSummary | Exception | None = self.pipe.recv()
        except (EOFError, ConnectionError):
            message = EngineError(
                f"the process of a fit ended with code {self._process.wait()}; rerun the same "
                "command to resume"
            )
        if not isinstance(message, FitProgress):
            self._process.wait()
        return message

    def stop(self) -> None:
        """Tell the fit to commit and end."""
        if not self._stopped:
            self._stopped = True
            self._send(None)

    def _send(self, message: FitRequest | None) -> None:
        with suppress(ConnectionError):  # `receive` reports that the process has ended
            self.pipe.send(message)


# ---- in a process that was started


def work() -> None:
    """Run the fit that comes through the pipe whose descriptor is the first argument."""
    pipe: connection.Connection[Any, Any] = connection.Connection(int(sys.argv[1]))
    request: FitRequest = pipe.recv()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(pipe, stop), daemon=True).start()
    last = 0.0

    def report(progress: FitProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= _PAUSE:
            last = time.monotonic()
            pipe.send(progress)

    try:
        pipe.send(request.run(stop, report))
    except Exception as error:  # noqa: BLE001 (the parent raises it)
        pipe.send(_portable(error))


def _listen(pipe: "connection.Connection[Any, Any]", stop: threading.Event) -> None:
    """Set `stop` when told; exit when the process at the other end of the pipe ends."""
    with suppress(EOFError, ConnectionError):
        while True:
            pipe.recv()
            stop.set()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent to another process."""
    text = "".join(traceback.format_exception(error))
    if not isinstance(error, StreamRNNError):  # the text of ours is enough
        error.add_note(text)
    try:
        return deepcopy(error)
    except Exception:  # noqa: BLE001 (its class cannot be called with its `args`)
        return EngineError(text)
