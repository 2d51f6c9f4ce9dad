"""Files of a local disk: real names, and trees with links in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from streamrnn.errors import DataError


class Entry(NamedTuple):
    """A file, as pyarrow's FileInfo has it."""

    path: str
    size: int
    mtime_ns: int


class RealNames:
    """The real path of files; that of each folder is looked up once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(os.path.abspath(path))
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)


def entry(path: str) -> Entry:
    """One file that is there. Raises DataError."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at: {error.strerror}") from error
    return Entry(path, found.st_size, found.st_mtime_ns)


def walk(top: str, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """The files below `top`, at any depth, whose names and whose folders' names are `wanted`.

    Links to folders are followed once the others are done, each folder is read once: a link to
    a folder above it adds nothing. Raises DataError for a folder that cannot be listed.
    """
    seen: set[str] = set()
    folders, links = [top.rstrip("/") or "/"], list[str]()
    while folders or links:
        folder = (folders or links).pop()
        real = os.path.realpath(folder)
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
                    yield Entry(found.path, stat.st_size, stat.st_mtime_ns)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda each: each.name)
    except FileNotFoundError:  # gone meanwhile
        return []
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
