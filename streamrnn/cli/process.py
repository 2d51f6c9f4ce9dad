"""The process of a command: standard streams, garbage collection, no pandas; SIGINT and SIGTERM.

The first signal stops a run after a commit, the second aborts it. Outside of a run a signal ends
the process at once, which is safe at any moment. A call into a disk or an object store cannot be
interrupted, and Python's handlers run only after it. So a signal also wakes a thread, which ends
the process; during a run, it does so only if the process was told to stop and does nothing but
wait.
"""

import atexit
import gc
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

_OBJECTS = 300_000
"""More objects than the imports of a run create."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SIGNALLED = 128
"""The exit code is this plus the number of the signal: 130 for SIGINT, 143 for SIGTERM."""
_DESCRIPTORS = 64
"""Number of file descriptors below which no thread is started for signals."""
WAITS = 20
"""Seconds without computing after which a stopped run is ended."""
_IDLE = 0.05
"""Seconds of CPU per second that count as computing."""


class _WithoutPandas:
    """A finder that hides pandas.

    pyarrow imports pandas, if installed, at the first `pa.array`, `pa.scalar` (also where a compute
    function gets a Python value) or `to_numpy`; no option prevents it. The import takes 0.4 s of
    each start, and the command never uses pandas.
    """

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("the streamrnn command runs without pandas", name="pandas")


def run_without_pandas() -> None:
    """Prevent any import of pandas in this process from now on."""
    sys.meta_path.insert(0, _WithoutPandas())


def collect_rarely() -> None:
    """Keep the garbage collector from traversing imported modules, now and at exit.

    That takes a third of a short run. Record batches and the steps of a fit leave no cycles.
    """
    gc.set_threshold(_OBJECTS)
    atexit.register(gc.freeze)


def fill_closed_streams() -> None:
    """Open the null device for standard streams that the caller closed (`2>&-`).

    Otherwise the next opened file would take the stream's number, and receive what libraries print.
    Python's own stdout stays None, so that rows are not lost there without an error.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)  # processes that this one starts have them, too
    os.close(number)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - open until the process ends
    if sys.stderr is None:  # with the errors of Python's own, which can print any name
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115


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

        def exit_on_number() -> None:
            while data := os.read(numbers, 64):
                for number in data:
                    if number in _SIGNALS:
                        os._exit(SIGNALLED + number)

        threading.Thread(target=exit_on_number, daemon=True).start()
        signal.set_wakeup_fd(signals, warn_on_full_buffer=False)


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
