"""Object stores, through pyarrow.fs: bounded waits; no rename, no sync, no lock."""

import contextlib
import time
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs as arrow_fs

from streamrnn.base.display import location, safe_text
from streamrnn.base.storage.files import NO_ANSWER, Files, Output, sink_errors

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 10.0
"""Seconds for which a server may send nothing, as some do while they copy a large object."""
ATTEMPTS = 5
"""Number of attempts at a request, with random pauses of up to 1, 2, 4 and 8 s between them."""
PAUSE_SECONDS = 30.0
"""Seconds for which all calls fail after one without an answer, so that a run can end and clean
up."""
_ADVICE = "; encode spaces, and letters beyond ASCII, in a URI: %20 for a space, %C3%A9 for é"


def connect(uri: str) -> tuple[arrow_fs.FileSystem, str]:
    """Return the filesystem of a URI that pyarrow.fs supports, and the path in it.

    On S3 a request without an answer fails after about `ATTEMPTS` times `REQUEST_SECONDS`; Arrow
    would retry for minutes. Raises OSError, ValueError or pa.ArrowException.
    """
    try:
        fs, path = arrow_fs.FileSystem.from_uri(uri)
    except (OSError, ValueError, pa.ArrowException) as error:
        advice = "" if uri.isascii() and " " not in uri else _ADVICE
        raise type(error)(f"{safe_text(error, uri)}{advice}") from None
    return (_bounded(fs) if isinstance(fs, arrow_fs.S3FileSystem) else fs), path


def _bounded(fs: arrow_fs.S3FileSystem) -> arrow_fs.S3FileSystem:
    """Return the same S3 filesystem with bounded waits, for which URIs have no options.

    A filesystem with options that pyarrow cannot pass on is returned unchanged.
    """
    _, (settings,) = fs.__reduce__()
    options = {name: value for name, value in settings.items() if value not in ("", None)}
    del options["proxy_options"]
    if not arrow_fs.S3FileSystem(**options).equals(fs):
        return fs
    retries = arrow_fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
    options |= {"connect_timeout": CONNECT_SECONDS, "request_timeout": REQUEST_SECONDS}
    return arrow_fs.S3FileSystem(**options, retry_strategy=retries)


class Breaker:
    """The calls to one bucket. Each call is made within `call`."""

    def __init__(self) -> None:
        self._silent_since = float("-inf")
        self._error = ""

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Raise the last error again if the server was silent lately; else note a silent server."""
        if time.monotonic() - self._silent_since < PAUSE_SECONDS:
            raise OSError(self._error)
        try:
            yield
        except OSError as error:
            if any(sign in str(error) for sign in NO_ANSWER):
                self._silent_since, self._error = time.monotonic(), str(error)
            raise


@lru_cache(maxsize=64)
def breaker_of(bucket: str, options: str) -> Breaker:
    """Return the breaker of a bucket in this process; `options`: the options in the URI."""
    return Breaker()


class _RemoteOutput(Output):
    def __init__(self, stream: pa.NativeFile, path: str, breaker: Breaker) -> None:
        super().__init__(path)
        self._stream = stream
        self._breaker = breaker

    def _write(self, view: memoryview) -> None:
        with self._breaker.call():
            self._stream.write(view)

    def finish(self) -> None:
        self.closed = True
        with sink_errors("finish", self.path), self._breaker.call():
            self._stream.close()

    def close(self) -> None:
        # An abandoned object may still appear in staging, where the next start removes it.
        if not self.closed:
            self.closed = True
            with contextlib.suppress(OSError, pa.ArrowException), self._breaker.call():
                self._stream.close()


class RemoteFiles(Files):
    """Files in an object store that pyarrow.fs supports. Objects appear when complete."""

    local = False

    def __init__(self, fs: arrow_fs.FileSystem, root: str, uri: str) -> None:
        self.fs = fs
        self.root = root.rstrip("/")
        self.uri = location(uri)
        parts = urlsplit(self.uri)
        self._breaker = breaker_of(f"{parts.scheme}://{parts.netloc}", parts.query)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def show(self, name: str) -> str:
        parts = urlsplit(self.uri)
        path = parts.path.rstrip("/") + (f"/{name}" if name else "")
        return urlunsplit((parts.scheme, parts.netloc, path, "", ""))

    @contextlib.contextmanager
    def _call(self, action: str, name: str) -> Iterator[None]:
        with sink_errors(action, self.show(name)), self._breaker.call():
            yield

    def _list(self, folder: str, recursive: bool = False) -> list[arrow_fs.FileInfo]:
        with self._call("list", folder):
            selector = arrow_fs.FileSelector(self._path(folder), True, recursive)
            items: list[arrow_fs.FileInfo] = self.fs.get_file_info(selector)
        return items

    def sizes(self, folder: str) -> dict[str, int]:
        return {item.base_name: item.size for item in self._list(folder) if item.is_file}

    def entries(self, folder: str) -> list[str]:
        return sorted(item.base_name for item in self._list(folder))

    def tree_sizes(self) -> dict[str, int]:
        start = len(self.root) + 1
        items = self._list("", recursive=True)
        return {item.path[start:]: item.size for item in items if item.is_file}

    def above(self) -> Iterator[Files]:
        root, uri = self.root, self.uri
        while "/" in root:
            root = root.rpartition("/")[0]
            parts = urlsplit(uri)
            uri = urlunsplit(parts._replace(path=parts.path.rstrip("/").rpartition("/")[0]))
            yield RemoteFiles(self.fs, root, uri)

    def open(self, name: str) -> pa.NativeFile:
        with self._breaker.call():
            return self.fs.open_input_file(self._path(name))

    def create(self, name: str) -> Output:
        with self._call("create", name):
            stream = self.fs.open_output_stream(self._path(name), compression=None)
        return _RemoteOutput(stream, self.show(name), self._breaker)

    def put(self, name: str, data: bytes) -> None:
        output = self.create(name)
        output.write(data)
        output.finish()

    def move(self, source: str, target: str) -> None:
        with self._call("copy to", target):
            self.fs.copy_file(self._path(source), self._path(target))
        self.delete(source)

    def delete(self, name: str) -> None:
        with self._call("delete", name), contextlib.suppress(FileNotFoundError):
            self.fs.delete_file(self._path(name))

    def options(self) -> dict[str, str]:
        if not isinstance(self.fs, arrow_fs.S3FileSystem):
            return {}
        # Credentials in the environment are left out: the other library reads them itself.
        _, (settings,) = self.fs.__reduce__()
        names = {"access_key": "access_key_id", "secret_key": "secret_access_key"}
        names |= {"session_token": "session_token", "region": "region"}
        options = {f"aws_{new}": settings[old] for old, new in names.items() if settings[old]}
        if settings["endpoint_override"]:
            endpoint = settings["endpoint_override"].removeprefix(f"{settings['scheme']}://")
            options["aws_endpoint_url"] = f"{settings['scheme']}://{endpoint}"
            options["aws_allow_http"] = str(settings["scheme"] == "http").lower()
        if settings["anonymous"]:
            options["aws_skip_signature"] = "true"
        return options
