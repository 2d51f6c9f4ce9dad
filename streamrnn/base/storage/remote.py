"""Output in an object store, through pyarrow.fs: no rename, no sync, no lock."""

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs as arrow_fs

from streamrnn.base.display import location
from streamrnn.base.storage.breaker import Breaker, breaker_of
from streamrnn.base.storage.connecting import s3_options
from streamrnn.base.storage.files import Files, Output, sink_errors


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

    def make(self, folder: str) -> None:
        """Do nothing: object stores have no folders."""

    def _list(self, folder: str, recursive: bool = False) -> list[arrow_fs.FileInfo]:
        with self._call("list", folder):
            selector = arrow_fs.FileSelector(self._path(folder), True, recursive)
            items: list[arrow_fs.FileInfo] = self.fs.get_file_info(selector)
        return items

    def sizes(self, folder: str) -> dict[str, int]:
        return {item.base_name: item.size for item in self._list(folder) if item.is_file}

    def entries(self, folder: str) -> list[str]:
        return sorted(item.base_name for item in self._list(folder))

    def tree(self) -> list[str]:
        start = len(self.root) + 1
        return sorted(item.path[start:] for item in self._list("", recursive=True) if item.is_file)

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

    def sync(self, folder: str) -> None:
        """Do nothing: a finished object is durable."""

    def clear(self, folder: str) -> None:
        """Do nothing: object stores have no folders."""

    def options(self) -> dict[str, str]:
        return s3_options(self.fs) if isinstance(self.fs, arrow_fs.S3FileSystem) else {}
