"""Work that only one process does at a time: others wait for its result."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: every process works for itself
    fcntl = None  # type: ignore[assignment]

PATIENCE = 60.0
"""Seconds to wait for another process, which may be suspended; then the work is done twice."""
_PAUSE = 0.02


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[bool]:
    """Hold the lock file at `path`, if its folder can be written to; yield whether others held it.

    The system releases the lock of a process that dies. The file is removed afterwards: others then
    find the result of the work, and need no lock.
    """
    waited, file = False, None
    if fcntl is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            file = path.open("ab")
    if file is None:
        yield False
        return
    with file:
        end = time.monotonic() + PATIENCE
        while not _locked(file.fileno()) and time.monotonic() < end:
            waited = True
            time.sleep(_PAUSE)
        try:
            yield waited
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _locked(descriptor: int) -> bool:
    """Try to take the lock; return whether this process now holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
