"""Lock files on a disk: locks of the system (flock), which it releases when their process dies."""

import io
import os
from contextlib import suppress

from streamrnn.base.storage.files import sink_errors
from streamrnn.errors import SinkError

try:
    import fcntl
except ImportError:  # Windows: `checkpoints` refuses to run there
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None


def lock_file(path: str, *, wait: bool = False) -> io.FileIO:
    """Open and lock a file, created if missing; to close it releases the lock.

    Raises BlockingIOError if another process holds the lock, unless it is waited for; SinkError.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_CREAT
    while True:
        with sink_errors("open", path):
            file = io.FileIO(path, "r+", opener=lambda path, _: os.open(path, flags, 0o666))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            raise
        except OSError as error:
            file.close()
            raise SinkError(f"cannot lock {path}: {error.strerror}") from error
        # Its holder may have removed the file at the end; then this is another one.
        with suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                return file
        file.close()
