"""Disks and object stores, read by full paths: single files, and trees with links."""

import errno
import os
import posixpath
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs as arrow_fs

from streamrnn.base.display import location
from streamrnn.base.storage.files import Files, Output, advice_on, check_path
from streamrnn.base.storage.local import LocalFiles
from streamrnn.base.storage.remote import RemoteFiles, connect
from streamrnn.errors import ConfigError, DataError, MissingFileError, StreamRNNError

# No such file, a parent that is not a folder, or a cycle of links.
_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DIGITS = re.compile("([0-9]+)")

AnyPath = str | os.PathLike[str]
"""A path or a URI, as callers in Python may pass it."""


def natural(name: str) -> tuple[str | int, ...]:
    """Split a name into text and numbers, a key that sorts `part-2` before `part-10`.

    A number becomes the count of its digits, and its digits, without leading zeros: Python limits
    the digits of an `int`.
    """
    first, *rest = _DIGITS.split(name)
    key: list[str | int] = [first]
    for digits, text in zip(rest[::2], rest[1::2], strict=True):
        number = digits.lstrip("0")
        key += [len(number), number, text]
    return tuple(key)


def steps_of(path: str) -> tuple[tuple[str | int, ...], ...]:
    """Return a key that sorts paths by folders and names, each in natural order."""
    return tuple(natural(step) for step in path.split("/"))


class Wanted(Protocol):
    """A filter of the entries of a folder. Hashable; equal filters accept the same entries."""

    def below(self, folder: str) -> "Wanted | None":
        """Return the filter for a subfolder of this name; None to skip it."""

    def takes(self, file: str) -> bool:
        """Return whether a file of this name is accepted."""


def is_wanted(path: str, wanted: Wanted) -> bool:
    """Return whether the folders and the name of a path are `wanted`."""
    *folders, name = [part for part in path.split("/") if part]
    inside: Wanted | None = wanted
    for folder in folders:
        inside = inside and inside.below(folder)
    return inside is not None and inside.takes(name)


class Entry(NamedTuple):
    """A file: a `path` that leads to it, and its `name`, which is the same for all such paths.

    `links` is the number of links in the path.
    """

    path: str
    name: str
    size: int
    mtime_ns: int
    links: int = 0


class _Folder(NamedTuple):
    path: str
    wanted: Wanted
    above: frozenset[tuple[str, Wanted]] = frozenset()
    partitions: int = 0
    links: int = 0


def walk(top: str, wanted: Wanted) -> Iterator[Entry]:
    """Yield the files below `top` that are `wanted`, by the paths with the fewest links.

    Links to folders are followed, except into a folder that already contains the path. A folder
    that several paths lead to is read by the first path in natural order, and again only by a path
    with more Hive partitions (`day=1/`): with links among n folders, each is read at most n times.
    A folder that does not exist has no files. Raises OSError, with the path as `filename`, if a
    folder cannot be read.
    """
    most: dict[tuple[str, Wanted], int] = {}
    folders, linked = [_Folder(top.rstrip("/") or "/", wanted)], list[_Folder]()
    while folders:
        folder = folders.pop()
        visit = (os.path.realpath(folder.path).rstrip("/"), folder.wanted)
        if visit not in folder.above and most.get(visit, -1) < folder.partitions:
            most[visit] = folder.partitions
            for item in _entries(folder.path):
                below, takes = folder.wanted.below(item.name), folder.wanted.takes(item.name)
                kind = _kind(item) if below or takes else 0
                if below and kind == stat.S_IFDIR:
                    inner = _Folder(
                        item.path,
                        below,
                        folder.above | {visit},
                        folder.partitions + ("=" in item.name),
                        folder.links + item.is_symlink(),
                    )
                    (linked if item.is_symlink() else folders).append(inner)
                elif takes and kind == stat.S_IFREG and (stats := status(item.path)):
                    is_link = item.is_symlink()
                    name = os.path.realpath(item.path) if is_link else f"{visit[0]}/{item.name}"
                    yield entry_at(item.path, name, stats, folder.links + is_link)
        if not folders:
            folders = sorted(linked, key=lambda folder: steps_of(folder.path), reverse=True)
            linked = []


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return sorted(items, key=attrgetter("name"))
    except OSError as error:
        if error.errno in _NOT_FOUND:
            return []
        raise OSError(error.errno, error.strerror, folder) from error


def _kind(item: os.DirEntry[str]) -> int:
    """Return the kind of an entry, with links followed: `S_IFDIR`, `S_IFREG` or another."""
    if not item.is_symlink():
        if item.is_dir(follow_symlinks=False):
            return stat.S_IFDIR
        return stat.S_IFREG if item.is_file(follow_symlinks=False) else 0
    stats = status(item.path)
    return stat.S_IFMT(stats.st_mode) if stats else 0


def status(path: str) -> os.stat_result | None:
    """Return the status of a path, with links followed; None if it does not exist.

    Raises OSError, with the path as `filename`.
    """
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno in _NOT_FOUND:
            return None
        raise OSError(error.errno, error.strerror, path) from error


def entry_at(path: str, name: str, stats: os.stat_result, links: int) -> Entry:
    """Return the entry of a file with this status."""
    if name == path:
        name = path  # keep one string instead of two: there may be many files
    return Entry(path, name, stats.st_size, stats.st_mtime_ns, links)


class Store(ABC):
    """A disk or an object store.

    Methods raise the errors of the system: OSError, on a disk with the path as `filename`, or
    pa.ArrowException.
    """

    local: bool

    @abstractmethod
    def open(self, path: str) -> pa.NativeFile:
        """Open a file for reading. Raises FileNotFoundError if it does not exist."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Return whether a file or folder exists."""

    @abstractmethod
    def is_folder(self, path: str) -> bool:
        """Return whether an existing path is a folder, or may be one (in an object store)."""

    @abstractmethod
    def entry(self, path: str) -> Entry | None:
        """Return the file at a path; None if nothing is there, or a folder, device or pipe."""

    @abstractmethod
    def find(self, top: str, wanted: Wanted) -> list[Entry]:
        """Return the wanted files below a folder, by paths that begin with `top`.

        "" is the top of an object store, and the working directory on a disk.
        """

    @abstractmethod
    def real(self, path: str) -> str:
        """Return the one path of a file, whatever links and relative paths lead to it."""

    @abstractmethod
    def around(self, path: str) -> tuple[Files, str]:
        """Return the folder of a file, for writing, and the name of the file in it."""


class LocalStore(Store):
    """The disks of this machine; relative paths start at the working directory."""

    local = True

    def open(self, path: str) -> pa.NativeFile:
        stats = status(path)
        if stats is not None and not stat.S_ISREG(stats.st_mode):
            # Opening a pipe could wait for a writer forever.
            raise OSError(errno.EINVAL, "not a regular file, but a folder, device or pipe", path)
        return pa.OSFile(path, "rb")

    def exists(self, path: str) -> bool:
        return status(path) is not None

    def is_folder(self, path: str) -> bool:
        stats = status(path)
        return stats is not None and stat.S_ISDIR(stats.st_mode)

    def entry(self, path: str) -> Entry | None:
        stats = status(path)
        if stats is None or not stat.S_ISREG(stats.st_mode):
            return None
        return entry_at(path, os.path.realpath(path), stats, 0)

    def find(self, top: str, wanted: Wanted) -> list[Entry]:
        if top:
            return list(walk(top, wanted))
        return [file._replace(path=file.path.removeprefix("./")) for file in walk(".", wanted)]

    def real(self, path: str) -> str:
        return os.path.realpath(path)

    def around(self, path: str) -> tuple[Files, str]:
        folder, name = os.path.split(path)
        return LocalFiles(folder or "."), name


class RemoteStore(Store):
    """An object store that pyarrow.fs supports. A path begins with the bucket."""

    local = False

    def __init__(self, fs: arrow_fs.FileSystem) -> None:
        self.fs = fs

    def open(self, path: str) -> pa.NativeFile:
        return self.fs.open_input_file(path)

    def exists(self, path: str) -> bool:
        return bool(self.fs.get_file_info(path).type != arrow_fs.FileType.NotFound)

    def is_folder(self, path: str) -> bool:
        return True

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

    def real(self, path: str) -> str:
        return path

    def around(self, path: str) -> tuple[Files, str]:
        folder, name = posixpath.split(path)
        return RemoteFiles(self.fs, folder, f"{self.fs.type_name}://{folder}"), name

    def _entry(self, info: arrow_fs.FileInfo) -> Entry:
        name = f"{self.fs.type_name}://{info.path}"
        return Entry(info.path, name, info.size or 0, info.mtime_ns or 0)


def real_path(path: str) -> str:
    """Return one name for a file, however `path` spells it. Raises the errors of `open_store`."""
    store, place = open_store(path)
    return store.real(place)


def open_store(path: str) -> tuple[Store, str]:
    """Return the store of a path or URI, and the path in it.

    Raises OSError, ValueError or pa.ArrowException for a URI that cannot be opened, ConfigError for
    a path that no file system accepts.
    """
    check_path(path)
    if "://" not in path:
        return LocalStore(), path
    fs, place = connect(path)
    local = isinstance(fs, arrow_fs.LocalFileSystem)
    return (LocalStore() if local else RemoteStore(fs)), place


@contextmanager
def replace_file(path: str, check: Callable[[], None] | None = None) -> Iterator[Output]:
    """Write a file at a path or URI; on exit it replaces the old one atomically and durably.

    `check` is called before anything is written, and may raise an error; on a disk, no other call
    of this function replaces the file from then until the exit. After an error the old file is
    unchanged (an object store may have the new one). Leftovers of killed writers on a disk are
    removed. Parent folders are created. Raises SinkError, OSError for a device or pipe, and the
    errors of `open_store`.
    """
    store, place = open_store(path)
    place = store.real(place)
    stats = status(place) if store.local else None
    if stats is not None and not (stat.S_ISREG(stats.st_mode) or stat.S_ISDIR(stats.st_mode)):
        raise OSError(errno.EINVAL, "a device or pipe, not a file; set another path", place)
    files, name = store.around(place)
    files.make("")
    with files.temporary(name) if isinstance(files, LocalFiles) else nullcontext(name) as temporary:
        if check is not None:
            check()
        output = files.create(temporary)
        try:
            yield output
            output.finish()
            if temporary != name:
                files.move(temporary, name)
                files.sync("")
        except BaseException:
            output.close()
            if temporary != name:
                files.delete(temporary)
            raise


def in_the_way(path: str) -> str | None:
    """Return the file, device or pipe that is at `path` or at a parent; None if there is none.

    An object store has none.
    """
    files = open_files(path)
    if not files.local:
        return None
    place = files.show("")
    while (stats := status(place)) is None:
        place = os.path.dirname(place)
    return None if stat.S_ISDIR(stats.st_mode) else place


def open_like(uri: str, files: Files) -> Files:
    """Open the folder of a URI without options.

    The options are from `files` if both have the same scheme, s3, gs or gcs. Raises ConfigError if
    the URI cannot be opened.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return LocalFiles(rest)
    if isinstance(files, RemoteFiles) and scheme in ("s3", "gs", "gcs"):
        parts = urlsplit(files.uri)
        if parts.scheme == scheme:
            return RemoteFiles(files.fs, rest, f"{uri}?{parts.query}")
    return open_files(uri)


def open_files(path: str) -> Files:
    """Open `path`, a directory or a URI that pyarrow.fs supports.

    Raises ConfigError if the URI cannot be opened.
    """
    check_path(path)
    scheme = urlsplit(path).scheme
    if "://" not in path or scheme == "file":
        return LocalFiles(os.path.abspath(urlsplit(path).path if scheme == "file" else path))
    try:
        fs, root = connect(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ConfigError(
            f"the path {location(path)!r} cannot be opened: {error}. Expected a "
            "directory, or a URI such as s3://bucket/folder, gs://…, abfss://… or file:///…"
        ) from error
    return RemoteFiles(fs, root, path)


def fetch(source: str, target: str, description: str) -> None:
    """Copy the file at a path or URI to a local path. `description` says what it is, for messages.

    Raises MissingFileError if there is no such file, DataError if it cannot be read.
    """
    try:
        store, place = open_store(source)
        with store.open(place) as file, open(target, "wb") as copy:
            while piece := file.read_buffer(4 << 20):
                copy.write(piece)
    except StreamRNNError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"{location(source)}: no such {description}") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{location(source)}: the {description} cannot be read: {error}. {advice_on(error)} "
            "and rerun."
        ) from error
