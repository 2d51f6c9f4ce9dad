"""Which files a source path means, in the order in which they are read."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import posixpath
from dataclasses import dataclass, field
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from streamrnn.errors import DataError, MissingFileError

_GLOB = frozenset("*?[")
_SUFFIXES = (".parquet", ".pq")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

Partitions = tuple[tuple[str, pa.Scalar], ...]


@dataclass(frozen=True)
class SourceFile:
    """One file of a source: `path` is what messages and the manifest call it."""

    path: str
    size: int
    mtime_ns: int
    filesystem: pafs.FileSystem = field(compare=False, repr=False)
    location: str = field(compare=False, repr=False)
    partitions: Partitions = ()

    def identity(self) -> str:
        """A digest of the Parquet footer: it holds every chunk's place, size and statistics.

        A file that was only touched or copied keeps it. Raises DataError if there is no footer.
        """
        with self.filesystem.open_input_file(self.location) as stream:
            size = stream.size()
            tail = stream.read_at(8, max(size - 8, 0))
            if size < 12 or tail[-4:] != b"PAR1":
                raise DataError(
                    f"{self.path}: not a complete Parquet file: expected 'PAR1' at its end, "
                    f"received {bytes(tail[-4:])!r} ({size} bytes). Is it still being written?"
                )
            length = min(int.from_bytes(tail[:4], "little") + 8, size)
            return hashlib.sha256(stream.read_at(length, size - length)).hexdigest()[:32]


def resolve(path: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path or URI, and the path on it."""
    if "://" in path:
        try:
            filesystem, location = pafs.FileSystem.from_uri(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path}: cannot be opened as a URI: {error}") from error
        return filesystem, location
    return pafs.LocalFileSystem(), path


def list_files(path: str) -> list[SourceFile]:
    """The files that a file name, glob, directory or URI means, sorted by path.

    In a directory these are the *.parquet and *.pq files at any depth; names that begin with "."
    or "_" are passed over, as Arrow does.
    Raises MissingFileError if there is nothing at `path`.
    """
    filesystem, location = _split_glob_uri(path)
    pattern = _GLOB.intersection(location) and not _exists(filesystem, location)
    if pattern:
        found, base = _expand(filesystem, location), _fixed_part(location)
    else:
        info = _info(filesystem, location)
        if info.type == pafs.FileType.NotFound:
            raise MissingFileError(f"[source] path: {path}: there is no such file or directory")
        if info.type == pafs.FileType.File:
            return [_source_file(filesystem, info, path, ())]
        found, base = _walk(filesystem, location), location
    prefix = path.partition("://")[0] + "://" if "://" in path else ""
    partitions = _partitions([info.path for info in found], base)
    return [
        _source_file(filesystem, info, prefix + info.path, parts)
        for info, parts in zip(found, partitions, strict=True)
    ]


def _split_glob_uri(path: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in path:
        return resolve(path)
    # In a URI "?" begins the options.
    place, mark, options = path.partition("?")
    if not _GLOB.intersection(place):
        return resolve(path)
    head = _fixed_part(place)
    filesystem, base = resolve(head + mark + options)
    return filesystem, posixpath.join(base, place[len(head) :].lstrip("/"))


def _fixed_part(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if _GLOB.intersection(part):
            break
        parts.append(part)
    return "/".join(parts)


def _info(filesystem: pafs.FileSystem, location: str) -> pafs.FileInfo:
    try:
        return filesystem.get_file_info(location)
    except OSError as error:
        raise DataError(f"{location}: cannot be looked at: {error}") from error


def _exists(filesystem: pafs.FileSystem, location: str) -> bool:
    return bool(_info(filesystem, location).type != pafs.FileType.NotFound)


def _walk(filesystem: pafs.FileSystem, location: str) -> list[pafs.FileInfo]:
    selector = pafs.FileSelector(location, recursive=True)
    infos = (i for i in filesystem.get_file_info(selector) if i.type == pafs.FileType.File)
    start = len(location.rstrip("/")) + 1
    shown = [
        i
        for i in infos
        if i.path.endswith(_SUFFIXES)
        and not any(p[0] in "._" for p in i.path[start:].split("/") if p)
    ]
    return sorted(shown, key=lambda info: info.path)


def _expand(filesystem: pafs.FileSystem, pattern: str) -> list[pafs.FileInfo]:
    if isinstance(filesystem, pafs.LocalFileSystem):
        paths = [p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p)]
        return [_info(filesystem, p) for p in sorted(paths)]
    return [
        info
        for info in _walk(filesystem, _fixed_part(pattern))
        if _matches(info.path.split("/"), pattern.split("/"))
    ]


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether folders and name are as the pattern says; `**` stands for any number of folders."""
    if not parts or not pattern:
        return parts == pattern
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _source_file(
    filesystem: pafs.FileSystem, info: pafs.FileInfo, path: str, parts: Partitions
) -> SourceFile:
    return SourceFile(path, info.size or 0, info.mtime_ns or 0, filesystem, info.path, parts)


def _partitions(paths: list[str], base: str) -> list[Partitions]:
    """Hive partitions (`year=2013/`) of each path below base: integers where all are, else text."""
    start = len(base.rstrip("/")) + 1 if base else 0
    raw = []
    for path in paths:
        folders = path[start:].split("/")[:-1]
        pairs = [folder.partition("=") for folder in folders if "=" in folder]
        raw.append([(unquote(k), unquote(v)) for k, _, v in pairs])
    values: dict[str, list[str]] = {}
    for pairs_of_file in raw:
        for name, value in pairs_of_file:
            values.setdefault(name, []).append(value)
    whole = {
        n for n, vs in values.items() if all(_is_integer(v) or v == _NULL_PARTITION for v in vs)
    }

    def typed(name: str, value: str) -> pa.Scalar:
        kind = pa.int64() if name in whole else pa.string()
        if value == _NULL_PARTITION:
            return pa.scalar(None, kind)
        return pa.scalar(int(value) if name in whole else value, kind)

    return [tuple((n, typed(n, v)) for n, v in pairs_of_file) for pairs_of_file in raw]


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 19
