"""Whole disks and object stores, read by paths: what is there, and what is in it."""

from __future__ import annotations

import os
import posixpath
import secrets
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyarrow import fs as arrow_fs

from streamrnn.storage.files import Files, Output
from streamrnn.storage.local import LocalFiles
from streamrnn.storage.remote import RemoteFiles
from streamrnn.storage.walking import Entry, Wanted, entry_at, is_wanted, status, walk


class Store(ABC):
    """A disk, or an object store. Every method raises what the system does: OSError, with the path
    as `filename` if it is a disk's, or pa.ArrowException."""

    local: bool

    @abstractmethod
    def open(self, path: str) -> pa.NativeFile:
        """Open a file for reading; FileNotFoundError if there is none."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder."""

    @abstractmethod
    def entry(self, path: str) -> Entry | None:
        """The file of that path; None if there is none, or a folder."""

    @abstractmethod
    def find(self, top: str, wanted: Wanted) -> list[Entry]:
        """The files below a folder that are wanted, by paths that begin with `top`.

        "" is the top of an object store, and the working directory on a disk.
        """

    @abstractmethod
    def around(self, path: str) -> tuple[Files, str]:
        """The files that the one of a path lies among, and its name there: to write it."""


class LocalStore(Store):
    """The disks of this machine; relative paths begin at the working directory."""

    local = True

    def open(self, path: str) -> pa.NativeFile:
        return pa.OSFile(path, "rb")

    def exists(self, path: str) -> bool:
        return status(path) is not None

    def entry(self, path: str) -> Entry | None:
        found = status(path)
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        return entry_at(path, os.path.realpath(path), found, 0)

    def find(self, top: str, wanted: Wanted) -> list[Entry]:
        if top:
            return list(walk(top, wanted))
        return [each._replace(path=each.path.removeprefix("./")) for each in walk(".", wanted)]

    def around(self, path: str) -> tuple[Files, str]:
        folder, name = os.path.split(path)
        return LocalFiles(folder or "."), name


class RemoteStore(Store):
    """An object store, or whatever pyarrow.fs opens. A path begins with the bucket."""

    local = False

    def __init__(self, fs: arrow_fs.FileSystem) -> None:
        self.fs = fs

    def open(self, path: str) -> pa.NativeFile:
        return self.fs.open_input_file(path)

    def exists(self, path: str) -> bool:
        return bool(self.fs.get_file_info(path).type != arrow_fs.FileType.NotFound)

    def entry(self, path: str) -> Entry | None:
        info = self.fs.get_file_info(path)
        return self._entry(info) if info.is_file else None

    def find(self, top: str, wanted: Wanted) -> list[Entry]:
        start = len(top.rstrip("/")) + 1 if top else 0
        infos = self.fs.get_file_info(arrow_fs.FileSelector(top, recursive=True))
        return [
            self._entry(info)
            for info in infos
            if info.is_file and is_wanted(info.path[start:], wanted)
        ]

    def around(self, path: str) -> tuple[Files, str]:
        folder, name = posixpath.split(path)
        return RemoteFiles(self.fs, folder, f"{self.fs.type_name}://{folder}"), name

    def _entry(self, info: arrow_fs.FileInfo) -> Entry:
        name = f"{self.fs.type_name}://{info.path}"
        return Entry(info.path, name, info.size or 0, info.mtime_ns or 0)


def open_store(path: str) -> tuple[Store, str]:
    """The store of a path or URI, and the path in it.

    Raises OSError or pa.ArrowException for a URI that cannot be opened.
    """
    if "://" not in path:
        return LocalStore(), path
    fs, place = arrow_fs.FileSystem.from_uri(path)
    local = isinstance(fs, arrow_fs.LocalFileSystem)
    return (LocalStore() if local else RemoteStore(fs)), place


@contextmanager
def replace_file(path: str) -> Iterator[Output]:
    """A file to write, at a path or URI: on leaving it takes the place of what is there, whole and
    lasting. If the writing fails, what is there stays (an object store may have the new one).

    Folders above it are made. Raises SinkError, and what `open_store` does.
    """
    store, place = open_store(path)
    files, name = store.around(place)
    beside = f"{name}.{secrets.token_hex(8)}.tmp" if files.local else name
    files.make("")
    output = files.create(beside)
    try:
        yield output
        output.finish()
        if beside != name:
            files.move(beside, name)
            files.sync("")
    except BaseException:
        output.close()
        if beside != name:
            files.delete(beside)
        raise
