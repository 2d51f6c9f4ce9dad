"""The file layer: the one place through which output touches a disk or an object store.

A `Files` is a root; names below it are relative, with parts separated by "/". Nothing else in
streamrnn writes, syncs, renames or deletes output, so tests inject all faults and kills at this
layer: each change of output on a local disk is one call of a method of `local.Disk`. Lock files,
local copies of files to read, and the removal of empty folders are outside of it.
"""

import contextlib
import errno
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from streamrnn.base.display import location, uri_fault
from streamrnn.base.storage.threads import Sha256
from streamrnn.errors import ConfigError, SinkError

_BY_NUMBER = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EACCES: "Allow this user to write there or set another path,",
    errno.EPERM: "Allow this user to write there or set another path,",
    errno.EROFS: "Set a writable path",
    errno.EMFILE: "Allow more open files (ulimit -n)",
    errno.ENOTDIR: "Set a path below a directory",
}
# What the texts of pyarrow's errors contain. Answers to HEAD requests have only a status.
_CREDENTIALS = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN"),
    *("INVALID_CLIENT_TOKEN_ID", "UNRECOGNIZED_CLIENT", "HTTP status 403"),
)
NO_ANSWER = ("NETWORK_CONNECTION", "curlCode")
"""Parts of error texts which mean that the server could not be reached, or sent nothing."""
_BUSY = ("SLOW_DOWN", "SERVICE_UNAVAILABLE", "THROTTLING", "HTTP status 503", *NO_ANSWER)
_BY_TEXT = {
    _CREDENTIALS: "Check the credentials (by default from the environment) and what they allow,",
    ("NO_SUCH_BUCKET",): "Create the bucket or correct its name,",
    _BUSY: "Wait until the server answers",
}


def advice_on(error: BaseException) -> str:
    """Return how to fix the cause of an error, to be followed by "and …"."""
    number = getattr(error, "errno", None)
    if number in _BY_NUMBER:
        return _BY_NUMBER[number]
    text = str(error)
    for signs, advice in _BY_TEXT.items():
        if any(sign in text for sign in signs):
            return advice
    return "Fix the cause"


def check_path(path: str) -> None:
    """Raise ConfigError for a path with a null byte, one that is not UTF-8, or a misspelled URI."""
    if fault := uri_fault(path):
        raise ConfigError(f"{location(path)}: {fault}")
    if "\0" in path:
        raise ConfigError(f"{path!r}: a path cannot contain a null byte. Fix the path.")
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = path.encode(errors="surrogateescape")
        raise ConfigError(f"{shown!r}: the path is not valid UTF-8. Rename it.") from None


@contextlib.contextmanager
def sink_errors(action: str, path: str) -> Iterator[None]:
    """Convert an OSError or ArrowException to a SinkError with path, cause and how to fix it."""
    try:
        yield
    except SinkError:
        raise
    except (OSError, pa.ArrowException) as error:
        cause = getattr(error, "strerror", None) or str(error)
        converted = SinkError(
            f"cannot {action} {path}: {cause}. {advice_on(error)} and rerun the same command; "
            "it resumes from the last commit."
        )
        converted.errno = getattr(error, "errno", None)
        raise converted from error


class Output(ABC):
    """A file being written; pyarrow writers accept it. `bytes`: the number of bytes written."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.bytes = 0
        self.closed = False
        self._hash = Sha256()

    @property
    def sha256(self) -> str:
        """The SHA-256 of the `hashed` bytes written until now, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, data: bytes | memoryview | pa.Buffer, *, hashed: bool = True) -> int:
        """Write all bytes, which must not change afterwards. Raises SinkError.

        Only `hashed` bytes count for `sha256`. A closed file ignores writes: an abandoned pyarrow
        writer writes its footer when it is garbage-collected, where no error could be handled.
        """
        view = memoryview(data).cast("B")
        if self.closed:
            return len(view)
        if hashed:
            self._hash.update(view)
        with sink_errors("write", self.path):
            self._write(view)
        self.bytes += len(view)
        return len(view)

    def tell(self) -> int:
        """Return the number of bytes written until now."""
        return self.bytes

    def flush(self) -> None:  # noqa: B027 - pyarrow calls it
        """Do nothing: writes are not buffered here."""

    def readable(self) -> bool:
        """Return False."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return False."""
        return False

    @abstractmethod
    def _write(self, view: memoryview) -> None: ...

    @abstractmethod
    def finish(self) -> None:
        """Make the file durable (sync, or complete the upload) and close it. Raises SinkError."""

    @abstractmethod
    def close(self) -> None:
        """Abandon an unfinished file. A finished one is unchanged."""


class Files(ABC):
    """Files below one root. Reading a file raises OSError if it fails, other methods SinkError."""

    local: bool

    @abstractmethod
    def show(self, name: str) -> str:
        """Return the full path of `name`, for messages."""

    def make(self, folder: str) -> None:  # noqa: B027 - an object store has no folders
        """Create a folder and its parents if they do not exist."""

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """Return name -> bytes of the files directly in `folder`; {} if it does not exist."""

    @abstractmethod
    def entries(self, folder: str) -> list[str]:
        """Return the sorted names of all entries of `folder`; [] if it does not exist."""

    def tree(self) -> list[str]:
        """Return the sorted names of all files at any depth; [] if the root does not exist.

        Links to folders are followed, because readers follow them; each real folder is listed once.
        """
        return sorted(self.tree_sizes())

    @abstractmethod
    def tree_sizes(self) -> dict[str, int]:
        """Return name -> bytes of the files of `tree`."""

    @abstractmethod
    def above(self) -> "Iterator[Files]":
        """Yield the parent folders of the root, innermost first."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """Open a file for reading. Raises FileNotFoundError if it does not exist."""

    @abstractmethod
    def create(self, name: str) -> Output:
        """Create a file. Raises SinkError if it exists.

        An object store may not detect that; the new object then replaces the old one on finish.
        """

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Write a small file atomically and durably."""

    @abstractmethod
    def move(self, source: str, target: str) -> None:
        """Rename a file, replacing any file of the new name."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file if it exists."""

    def sync(self, folder: str) -> None:  # noqa: B027 - a finished object is durable
        """Make the names in a folder durable."""

    def clear(self, folder: str) -> None:  # noqa: B027 - an object store has no folders
        """Remove a folder if it is empty."""

    def options(self) -> dict[str, str]:
        """Return the options with which other libraries connect, named as in `object_store` (Rust).

        They may hold credentials: never show them. {} except for S3. Credentials in the environment
        are not among the options.
        """
        return {}

    def read(self, name: str) -> bytes:
        """Read all bytes of a file. Raises FileNotFoundError if it does not exist."""
        with self.open(name) as file:
            data: bytes = file.read()
        return data

    def sha256(self, name: str) -> str:
        """Hash a file, read in pieces. Raises FileNotFoundError if it does not exist."""
        digest = hashlib.sha256()
        with self.open(name) as file:
            while piece := file.read_buffer(1 << 22):
                digest.update(piece)
        return digest.hexdigest()


def canonical(table: pa.Table) -> pa.Table:
    """Put each column into one chunk, with zeros under nulls, so that equal rows have equal bytes.

    An Arrow file contains the memory under nulls.
    """
    table = table.combine_chunks()
    rows = pa.array(np.arange(len(table)))
    columns = [column.take(rows) if column.null_count else column for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)
