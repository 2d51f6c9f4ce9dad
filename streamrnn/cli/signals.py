"""SIGINT and SIGTERM: the first stops the run after a commit, the second aborts it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets.

    A second signal ends the process as if no handler were installed: a commit may be killed at any
    moment, and an exception would not reach a computing thread.
    """
    stop = threading.Event()
    # On a terminal the message replaces the bar, which is redrawn below it.
    clear = b"\r\033[2K" if sys.stderr.isatty() else b""

    def handle(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        stop.set()
        # Not print: the handler may have interrupted a print, and buffers are not reentrant.
        os.write(2, clear + b"stopping after this record batch; a second signal aborts at once\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
