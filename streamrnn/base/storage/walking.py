"""Files of a local disk: real names, trees with links, and the natural order of names."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple, Protocol

# No such file, a parent that is not a folder, or a cycle of links.
_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DIGITS = re.compile("([0-9]+)")


def natural(name: str) -> tuple[str | int, ...]:
    """Split into text and numbers: a key that sorts `part-2` before `part-10`.

    A number becomes its count of digits and the digits: Python limits the digits of an `int`.
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
    """A folder on a walk: its path, the filter of its entries, and the folders above it."""

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
    Raises OSError, with the path as `filename`, if a folder cannot be read.
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
