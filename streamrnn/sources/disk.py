"""Files of a local disk: their real names, and trees with links in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from streamrnn.errors import DataError


class Entry(NamedTuple):
    """A file: its path as it was come by, and the name that it has however it is come by."""

    path: str
    name: str
    size: int
    mtime_ns: int


def entry(path: str) -> Entry:
    """One file that is there. Raises DataError."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at: {error.strerror}") from error
    return Entry(path, os.path.realpath(path), found.st_size, found.st_mtime_ns)


def walk(top: str, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """The files below `top`, at any depth, whose names and whose folders' names are `wanted`.

    Links to folders are followed once the others are done, each folder is read once: a link to
    a folder above it adds nothing. Raises DataError for a folder that cannot be listed.
    """
    seen: set[str] = set()
    folders, links = [top.rstrip("/") or "/"], list[str]()
    while folders or links:
        folder = (folders or links).pop()
        real = os.path.realpath(folder).rstrip("/")
        if real in seen:
            continue
        seen.add(real)
        for found in _entries(folder):
            if not wanted(found.name):
                continue
            if found.is_dir(follow_symlinks=False):
                folders.append(found.path)
            elif found.is_dir():
                links.append(found.path)
            elif found.is_file():
                with suppress(FileNotFoundError):  # gone meanwhile
                    stat = found.stat()
                    linked = found.is_symlink()
                    name = os.path.realpath(found.path) if linked else f"{real}/{found.name}"
                    yield Entry(found.path, name, stat.st_size, stat.st_mtime_ns)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda each: each.name)
    except FileNotFoundError:  # gone meanwhile
        return []
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
