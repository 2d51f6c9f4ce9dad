"""SIGINT and SIGTERM: the first asks the run to stop after a checkpoint, the second aborts it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets, for as long as the block lasts.

    A second one ends the process as if there were no handler: a commit is safe to kill at any
    moment, and a thread that computes would not see an exception.
    """
    stop = threading.Event()
    # On a terminal the message takes the line of the bar, which is drawn again below it.
    clear = b"\r\033[2K" if sys.stderr.isatty() else b""

    def handle(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        stop.set()
        # Not print: the handler may have interrupted one, and buffers are not reentrant.
        os.write(2, clear + b"stopping after this record batch; a second signal aborts at once\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
