"""SIGINT and SIGTERM: the first stops the run after a commit, the second aborts it.

Outside of a run a signal ends the process at once, which is safe at any moment. A call into a disk
or an object store cannot be interrupted, and Python's handlers run only after it. So a signal wakes
a thread, too. The thread ends the process; during a run, it does so only if the process was told to
stop and does nothing but wait.
"""

import math
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SIGNALLED = 128
"""The exit code is this plus the number of the signal: 130 for SIGINT, 143 for SIGTERM."""


def exit_on_signal() -> None:
    """Let a signal end this process without a traceback.

    The handler raises no exception: within an import, one could be swallowed.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as set by nohup
            signal.signal(number, lambda number, _: os._exit(SIGNALLED + number))
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < _DESCRIPTORS:
        return
    with suppress(OSError, RuntimeError):  # too little memory for a thread
        numbers, signals = os.pipe()
        os.set_blocking(signals, False)
        threading.Thread(target=_exit_on_number, args=(numbers,), daemon=True).start()
        signal.set_wakeup_fd(signals, warn_on_full_buffer=False)


def _exit_on_number(numbers: int) -> None:
    """End the process on the first number of a signal that arrives in a pipe."""
    while data := os.read(numbers, 64):
        for number in data:
            if number in _SIGNALS:
                os._exit(SIGNALLED + number)


_DESCRIPTORS = 64
"""Number of file descriptors below which no thread is started for signals."""
WAITS = 20
"""Seconds without computing after which a stopped run is ended."""
_IDLE = 0.05
"""Seconds of CPU per second that count as computing."""


@contextmanager
def stop_on_signal(*, on_workers: bool = False) -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets.

    If the process then only waits for a disk or a server that does not answer, it is ended, unless
    the run is `on_workers`, for which it has to wait. A second signal ends the process as if no
    handler were installed: a commit may be killed at any moment, and an exception would not reach a
    computing thread.
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
        os.write(2, clear + b"stopping as soon as possible; a second signal aborts at once\n")

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        with _woken_by_signals(math.inf if on_workers else WAITS):
            yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _woken_by_signals(waits: float) -> Iterator[None]:
    """Run a thread that reads the numbers of signals as they arrive, and ends an idle process."""
    numbers, signals = socket.socketpair()
    signals.setblocking(False)
    before = signal.set_wakeup_fd(signals.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_end_if_waiting, args=(numbers, waits), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signals.close()
        watcher.join()
        numbers.close()


def _end_if_waiting(numbers: socket.socket, waits: float) -> None:
    """End the process if it computes nothing for `waits` seconds after a signal.

    After a second signal one second is enough: its handler, which would have ended the process, did
    not run. Uncommitted rows are lost, as in a crash. Returns when the other end of `numbers` is
    closed.
    """
    received, waited, computed = 0, 0, 0.0
    while True:
        numbers.settimeout(1 if received else None)
        try:
            data = numbers.recv(64)
        except TimeoutError:
            waited = waited + 1 if time.process_time() - computed < _IDLE else 0
        else:
            if not data:
                return
            received += sum(number in _SIGNALS for number in data)
        computed = time.process_time()
        if waited >= (waits if received < 2 else 1):
            break
    text = (
        f"error: stopped while waiting for stdin, a disk or a server: no answer for {waited} s; "
        "rerun the same command: it resumes from the last commit\n"
    )
    os.write(2, text.encode())
    os._exit(130)
