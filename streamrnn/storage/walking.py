"""Files of a local disk: their real names, and trees with links in them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from streamrnn.storage.natural import steps_of

# There is no file: none of that name, something else on the way to it, or links in a circle.
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Wanted(Protocol):
    """What is wanted of a folder. Hashable: equal ones want the same."""

    def below(self, folder: str) -> Wanted | None:
        """What is wanted of a folder of this name in it; None if nothing is."""

    def takes(self, file: str) -> bool:
        """Whether a file of this name in it is wanted."""


def is_wanted(path: str, wanted: Wanted) -> bool:
    """Whether the folders and the name of a path are `wanted`."""
    *folders, name = [part for part in path.split("/") if part]
    inside: Wanted | None = wanted
    for folder in folders:
        inside = inside and inside.below(folder)
    return inside is not None and inside.takes(name)


class Entry(NamedTuple):
    """A file: the path it was reached by, and the name that it has however it is reached.

    `links` says how many links the path has.
    """

    path: str
    name: str
    size: int
    mtime_ns: int
    links: int = 0


class _Folder(NamedTuple):
    """A folder on a walk: the path to it, the places on that path, and what is wanted in it."""

    path: str
    wanted: Wanted
    above: frozenset[tuple[str, Wanted]] = frozenset()
    partitions: int = 0
    links: int = 0


def walk(top: str, wanted: Wanted) -> Iterator[Entry]:
    """The files below `top` that are `wanted`, by the paths with the fewest links to them.

    Links to folders are followed, but not into a folder that the path is in already. A folder to
    which several paths lead is read by the first of them in natural order, and again only by one
    with more Hive partitions (`day=1/`): links among n folders are n readings of each at most.
    Raises OSError, with the path as `filename`, for what cannot be read.
    """
    most: dict[tuple[str, Wanted], int] = {}
    folders, linked = [_Folder(top.rstrip("/") or "/", wanted)], list[_Folder]()
    while folders:
        folder = folders.pop()
        place = (os.path.realpath(folder.path).rstrip("/"), folder.wanted)
        if place not in folder.above and most.get(place, -1) < folder.partitions:
            most[place] = folder.partitions
            for found in _entries(folder.path):
                below, takes = folder.wanted.below(found.name), folder.wanted.takes(found.name)
                kind = _kind(found) if below or takes else 0
                if below and kind == stat.S_IFDIR:
                    inner = _inside(folder, place, found, below)
                    (linked if found.is_symlink() else folders).append(inner)
                elif takes and kind == stat.S_IFREG:
                    yield from _file(found, place[0], folder.links)
        if not folders:
            folders = sorted(linked, key=lambda each: steps_of(each.path), reverse=True)
            linked = []


def _inside(
    folder: _Folder, place: tuple[str, Wanted], found: os.DirEntry[str], wanted: Wanted
) -> _Folder:
    return _Folder(
        found.path,
        wanted,
        folder.above | {place},
        folder.partitions + ("=" in found.name),
        folder.links + found.is_symlink(),
    )


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda each: each.name)
    except OSError as error:
        if error.errno in _NOTHING:
            return []
        raise OSError(error.errno, error.strerror, folder) from error


def _kind(found: os.DirEntry[str]) -> int:
    """The kind of file that is there, at the end of links: `stat.S_IFDIR`, …; 0 for none."""
    if not found.is_symlink():
        if found.is_dir(follow_symlinks=False):
            return stat.S_IFDIR
        return stat.S_IFREG if found.is_file(follow_symlinks=False) else 0
    there = status(found.path)
    return stat.S_IFMT(there.st_mode) if there else 0


def status(path: str) -> os.stat_result | None:
    """What the disk says of a path, at the end of links; None if nothing is there.

    Raises OSError, with the path as `filename`.
    """
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno in _NOTHING:
            return None
        raise OSError(error.errno, error.strerror, path) from error


def _file(found: os.DirEntry[str], folder: str, links: int) -> Iterator[Entry]:
    """The file, unless it is gone meanwhile; `folder` is the real path of the one it is in."""
    there = status(found.path)
    if there is None:
        return
    if found.is_symlink():
        yield entry_at(found.path, os.path.realpath(found.path), there, links + 1)
    else:
        yield entry_at(found.path, f"{folder}/{found.name}", there, links)


def entry_at(path: str, name: str, found: os.stat_result, links: int) -> Entry:
    """The entry of a file with this status."""
    return Entry(path, name, found.st_size, found.st_mtime_ns, links)
