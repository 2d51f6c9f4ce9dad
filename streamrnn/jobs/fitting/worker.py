"""A process that fits one model after another for `fit_workers`: it calls `main`.

It reads pickled requests from stdin, and writes pickled events to stdout. It ends when stdin does,
so it does not outlive the process that started it.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, BinaryIO, NoReturn

import pyarrow as pa

from streamrnn.errors import StreamRNNError
from streamrnn.jobs.fitting.job import FitJob
from streamrnn.jobs.fitting.summary import FitOptions, FitProgress, FitSummary
from streamrnn.jobs.preflight import reader
from streamrnn.stream.config import Config

_PAUSE = 0.05
"""Seconds between two reports of progress."""


@dataclass(frozen=True)
class FitRequest:
    """One fit: `given` is the state table that [state] init names, if it is in memory."""

    config: Config
    given: pa.Table | None
    extend: bool
    full_refresh: bool
    limit: int | None


@dataclass(frozen=True)
class FitEvent:
    """Progress; or the end: a summary, or the class (None: unexpected) and text of an error."""

    progress: FitProgress | None = None
    summary: FitSummary | None = None
    error: tuple[str | None, str] | None = None


STOP = "stop"
"""Sent in place of a request: commit and end the fit; no request follows."""


def run_request(request: FitRequest, stop: threading.Event, report: Any) -> FitSummary:
    """Fit; a model file at [model] path is replaced. `report` is called with FitProgress."""
    options = FitOptions(
        extend=request.extend,
        full_refresh=request.full_refresh,
        overwrite=True,
        limit=request.limit,
        progress=report,
        stop=stop,
    )
    return FitJob(request.config, reader(request.given), options).run()


def main() -> NoReturn:
    """Serve requests until stdin ends."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed must not end up between events
    requests: SimpleQueue[FitRequest] = SimpleQueue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(requests, stop), daemon=True).start()
    while True:
        _send(channel, _answer(requests.get(), stop, channel))


def _listen(requests: SimpleQueue[FitRequest], stop: threading.Event) -> None:
    while True:
        try:
            message = pickle.load(sys.stdin.buffer)
        except (EOFError, pickle.UnpicklingError):
            os._exit(1)
        if message == STOP:
            stop.set()
        else:
            requests.put(message)


def _answer(request: FitRequest, stop: threading.Event, channel: BinaryIO) -> FitEvent:
    last = 0.0

    def report(progress: FitProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= _PAUSE:
            last = time.monotonic()
            _send(channel, FitEvent(progress=progress))

    try:
        return FitEvent(summary=run_request(request, stop, report))
    except StreamRNNError as error:
        return FitEvent(error=(_class_of_text(error), str(error)))
    except Exception:  # noqa: BLE001 - the process that started this one raises it
        return FitEvent(error=(None, traceback.format_exc()))


def _class_of_text(error: StreamRNNError) -> str:
    """Return the nearest class of an error that is made of its text alone."""
    plain = StreamRNNError.__init__
    return next(k.__name__ for k in type(error).__mro__ if getattr(k, "__init__", None) is plain)


def _send(channel: BinaryIO, event: FitEvent) -> None:
    pickle.dump(event, channel)
    channel.flush()
