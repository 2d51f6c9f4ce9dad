"""SIGINT and SIGTERM: the first stops the run after a commit, the second aborts it.

Outside of a run a signal ends the process at once, which is safe at any moment.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SIGNALLED = 128
"""Added to the number of a signal, it is the exit code: 130 for SIGINT, 143 for SIGTERM."""


def exit_on_signal() -> None:
    """Let a signal end this process without a traceback.

    An exception could be raised within an import, or be swallowed there.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as set by nohup
            signal.signal(number, lambda number, _: os._exit(SIGNALLED + number))


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

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
