"""The file layer: the one place through which output touches a disk or an object store.

A `Files` is a root; names below it are relative and have "/" between their parts. Nothing else in
streamrnn writes, syncs, renames or deletes output, so a test that fails or kills here has
failed or killed everywhere: every change of a local disk is one call of a method of `local.Disk`.
"""

import contextlib
import errno
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from streamrnn.errors import SinkError

LARGE = 1 << 20
"""Bytes from which a thread hashes them while they are written and synced: as much work as that."""

_ADVICE = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EACCES: "Allow this user to write there, or name another path",
    errno.EPERM: "Allow this user to write there, or name another path",
    errno.EROFS: "Name a path that can be written",
    errno.ENOTDIR: "Name a path below a directory",
}


@contextlib.contextmanager
def sink_errors(action: str, path: str) -> Iterator[None]:
    """Turn an OSError inside into a SinkError that names the path, the cause and what to do."""
    try:
        yield
    except SinkError:
        raise
    except (OSError, pa.ArrowException) as error:
        cause = getattr(error, "strerror", None) or str(error)
        advice = _ADVICE.get(getattr(error, "errno", None) or 0, "See to the cause")
        told = SinkError(
            f"cannot {action} {path}: {cause}. {advice} and give the same command again: "
            "it goes on from the last commit."
        )
        told.errno = getattr(error, "errno", None)
        raise told from error


class Output(ABC):
    """A file being written, with `bytes` written so far; pyarrow writers take it as a file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.bytes = 0
        self.closed = False
        self._hash = hashlib.sha256()
        self._hasher: ThreadPoolExecutor | None = None

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal."""
        if self._hasher is not None:
            self._hasher.shutdown()
            self._hasher = None
        return self._hash.hexdigest()

    def write(self, data: Any) -> int:
        """Write all of it, however the system cuts it; raises SinkError. `data` must stay as it is.

        Nothing once it is closed: a pyarrow writer that was given up still writes its footer when
        it is collected, in the midst of anything, where an error is worse than useless.
        """
        view = memoryview(data).cast("B")
        if self.closed:
            return len(view)
        if self._hasher is None and len(view) < LARGE:
            self._hash.update(view)
        else:
            self._hasher = self._hasher or ThreadPoolExecutor(1, "streamrnn-sha256")
            self._hasher.submit(self._hash.update, view)
        with sink_errors("write", self.path):
            self._write(view)
        self.bytes += len(view)
        return len(view)

    def tell(self) -> int:
        """Bytes written so far."""
        return self.bytes

    def flush(self) -> None:  # noqa: B027 - pyarrow calls it
        """Nothing: nothing is held back here."""

    def readable(self) -> bool:
        """False."""
        return False

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """False."""
        return False

    @abstractmethod
    def _write(self, view: memoryview) -> None: ...

    @abstractmethod
    def finish(self) -> None:
        """Make it last (sync, or the end of an upload) and close it; raises SinkError."""

    @abstractmethod
    def close(self) -> None:
        """Give it up, however far it came. Nothing if it is finished."""


class Files(ABC):
    """Files below one root. Every method raises SinkError when the system refuses."""

    local: bool

    @abstractmethod
    def show(self, name: str) -> str:
        """The whole path of `name`, for messages."""

    @abstractmethod
    def make(self, folder: str) -> None:
        """Make a folder, and those above it, unless it is there."""

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """Name (without the folder) -> bytes, of the files right in `folder`; {} if it is not."""

    @abstractmethod
    def entries(self, folder: str) -> list[str]:
        """Names of files and folders right in `folder`, sorted; [] if it is not there."""

    @abstractmethod
    def tree(self) -> list[str]:
        """Names of all files at any depth, sorted; [] if the root is not there.

        Links to folders are followed, as readers do; each real folder is listed once.
        """

    @abstractmethod
    def above(self) -> "Iterator[Files]":
        """The folders that the root lies in, from the inside out."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """Open for reading; FileNotFoundError if it is not there."""

    @abstractmethod
    def create(self, name: str) -> Output:
        """Begin a new file. One that is there is left alone: SinkError (an object store may not
        notice, and has it replaced when the new one is finished)."""

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Write a small file whole and lasting: it has either its old bytes or the new ones."""

    @abstractmethod
    def move(self, source: str, target: str) -> None:
        """Give a file another name, in place of a file that may have it."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file; nothing if it is not there."""

    @abstractmethod
    def sync(self, folder: str) -> None:
        """Make the names in a folder last."""

    @abstractmethod
    def clear(self, folder: str) -> None:
        """Remove a folder if it is empty."""

    def read(self, name: str) -> bytes:
        """All bytes of a file; FileNotFoundError if it is not there."""
        with self.open(name) as file:
            data: bytes = file.read()
        return data

    def sha256(self, name: str) -> str:
        """Of a file's bytes, read in pieces; FileNotFoundError if it is not there."""
        digest = hashlib.sha256()
        with self.open(name) as file:
            while piece := file.read_buffer(1 << 22):
                digest.update(piece)
        return digest.hexdigest()
