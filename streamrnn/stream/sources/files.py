"""The files that a source path matches, in the order in which they are read."""

import fnmatch
import glob
import hashlib
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import takewhile
from urllib.parse import unquote

import pyarrow as pa

from streamrnn.base.display import count
from streamrnn.base.display import location as location_of
from streamrnn.base.storage import Entry, Store, advice_on, open_store
from streamrnn.base.storage.store import Wanted, is_wanted, natural, steps_of
from streamrnn.errors import ConfigError, DataError, MissingFileError, StreamRNNError
from streamrnn.stream.sources.formats import SOURCE_FORMATS, suffixes_of

MAGIC = frozenset("*?[")
_SAME_STORE = {"gs": "gcs", "abfss": "abfs"}

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile("-[0-9]{1,17}|[0-9]{1,18}")
_NUMBER = re.compile("[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_ENCODED = re.compile("(%[0-9A-Fa-f]{2})+")
_LAST = "\U0010ffff"  # sorted after every text
_Key = tuple[tuple[str | int | Decimal, ...], ...]

Partitions = tuple[tuple[str, pa.Scalar], ...]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source: `path` is for messages, `name` identifies it.

    A file has one `name`, however its path is spelled: the real absolute path on a disk, else
    scheme, bucket and key. The log of a table may record `rows`, and its schema `defaults`: column
    -> null, for the columns that the file may lack.
    """

    path: str
    name: str
    size: int
    mtime_ns: int
    store: Store = field(compare=False, repr=False)
    location: str = field(compare=False, repr=False)
    partitions: Partitions = ()
    defaults: Partitions = ()
    rows: int | None = None

    def identity(self) -> str:
        """Return a digest of the Parquet footer (offset, size and statistics of every chunk).

        A file that was only touched or copied keeps its digest. Raises DataError if the file cannot
        be read or has no footer.
        """
        try:
            with self.open() as stream:
                size = stream.size()
                tail = stream.read_at(8, max(size - 8, 0))
                if size < 12 or tail[-4:] != b"PAR1":
                    raise DataError(
                        f"{self.path}: not a complete Parquet file: expected 'PAR1' at its end, "
                        f"received {bytes(tail[-4:])!r} ({size} bytes). Is it still being written?"
                    )
                length = min(int.from_bytes(tail[:4], "little") + 8, size)
                return hashlib.sha256(stream.read_at(length, size - length)).hexdigest()[:32]
        except FileNotFoundError as error:
            raise DataError(f"{self.path}: the file was removed before it could be read") from error
        except (OSError, pa.ArrowException) as error:
            cause = getattr(error, "strerror", None) or str(error)
            raise DataError(
                f"{self.path}: cannot be read: {cause}. Allow this user to read it, or remove it "
                "from the source."
            ) from error

    def anywhere(self) -> "SourceFile":
        """Return the file with a path that is valid from any working directory."""
        return replace(self, location=self.name) if self.store.local else self

    def open(self) -> pa.NativeFile:
        """Open the file for reading. Raises OSError."""
        return self.store.open(self.location)


def etag(stream: pa.NativeFile) -> str:
    """Return the object store's name for the version of an open object; "" if there is none."""
    if isinstance(stream, pa.MemoryMappedFile | pa.OSFile):
        return ""
    try:
        metadata: dict[str, bytes] = stream.metadata() or {}
    except (OSError, pa.ArrowException):
        return ""
    return metadata.get("ETag", b"").decode(errors="replace")


def resolve(path: str) -> tuple[Store, str]:
    """Open the store of a path or URI; return the store and the path in it. Raises DataError."""
    try:
        return open_store(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{location_of(path)}: cannot be opened as a URI: {error}") from error


def canonical_name(path: str) -> str:
    """Return the `SourceFile.name` of a path or URI; the file need not exist."""
    if "://" not in path:
        return os.path.realpath(path)
    scheme, _, rest = path.partition("://")
    if scheme == "file":
        return os.path.realpath(resolve(path)[1])
    bucket, slash, key = rest.partition("?")[0].partition("/")
    host = bucket.rpartition("@")[2]  # without user and password
    return f"{_SAME_STORE.get(scheme, scheme)}://{host}{slash}{key}"


def list_files(
    path: str, suffixes: tuple[str, ...] = SOURCE_FORMATS["parquet"].suffixes
) -> list[SourceFile]:
    """List the files that a file name, glob, directory or URI matches, sorted by `Hive.order`.

    In a directory, these are `AllFiles` with one of `suffixes`. A file that several paths lead to
    is listed once. Raises DataError; MissingFileError if nothing exists at `path`, unless it is a
    glob, which may match no file.
    """
    store, location = _split_glob_uri(path)
    scheme = path.partition("://")[0] + "://" if "://" in path else ""
    with read_errors(scheme + location):
        if MAGIC.intersection(location) and not store.exists(location):
            entries, base = _expand(store, location, suffixes), fixed_part(location)
        elif (file := store.entry(location)) is not None:
            entries, base = [file], posixpath.dirname(location)
        elif store.exists(location):
            if not store.is_folder(location):
                raise DataError(
                    f"[source] path: {location_of(path)}: expected a file or folder, found a "
                    "device, pipe or socket. To read a stream, pipe Arrow IPC to stdin and set "
                    'path = "-".'
                )
            entries, base = store.find(location, AllFiles(suffixes)), location
        else:
            raise MissingFileError(f"[source] path: {location_of(path)}: no such file or directory")
    return _listed(store, entries, base, scheme)


def list_of_format(path: str, format: str) -> list[SourceFile]:
    """List the files of a format, as `list_files` does.

    With "auto", these are the Parquet files, or if there are none, the files of the one other
    format that is there. Raises ConfigError for several other formats, and what `list_files`
    raises.
    """
    files = list_files(path, suffixes_of(format))
    if files or format != "auto":
        return files
    others = {
        name: listed for name in SOURCE_FORMATS if (listed := list_files(path, suffixes_of(name)))
    }
    if len(others) > 1:
        counts = " and ".join(
            f"{count(len(listed), 'file')} of {SOURCE_FORMATS[name].name}"
            for name, listed in others.items()
        )
        names = " or ".join(f'"{name}"' for name in others)
        raise ConfigError(
            f"[source] path: {location_of(path)}: expected files of one format, found {counts}. "
            f"Set [source] format = {names}, or name the files by a pattern"
        )
    return next(iter(others.values()), [])


def _listed(store: Store, entries: list[Entry], base: str, scheme: str) -> list[SourceFile]:
    """Sort the files; of several paths to one file, keep the one with the lowest `_path_rank`."""
    start = len(base.rstrip("/")) + 1 if base else 0
    by_name: dict[str, Entry] = {}
    for entry in entries:
        other = by_name.setdefault(entry.name, entry)
        if other is not entry and _path_rank(entry) < _path_rank(other):
            by_name[entry.name] = entry
    chosen = list(by_name.values())
    for text in (text for entry in chosen for text in (entry.path, entry.name)):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{os.fsencode(text)!r}: name is not valid UTF-8. Rename the file or folder."
            ) from error
    hive = Hive([entry.path[start:] for entry in chosen])
    return [
        SourceFile(
            scheme + entry.path,
            entry.name,
            entry.size,
            entry.mtime_ns,
            store,
            entry.path,
            hive.partitions(entry.path[start:]),
        )
        for entry in sorted(chosen, key=lambda entry: hive.order(entry.path[start:]))
    ]


def _path_rank(entry: Entry) -> tuple[int, int, tuple[tuple[str | int, ...], ...]]:
    folders = posixpath.dirname(entry.path).split("/")
    return -sum("=" in folder for folder in folders), entry.links, steps_of(entry.path)


def _split_glob_uri(path: str) -> tuple[Store, str]:
    if "://" not in path:
        return resolve(path)
    # In a URI, "?" starts the options.
    location, mark, options = path.partition("?")
    if not MAGIC.intersection(location):
        return resolve(path)
    head = fixed_part(location)
    store, base = resolve(head + mark + options)
    # What is encoded stands for itself; the store has decoded the head.
    rest = _ENCODED.sub(lambda text: glob.escape(unquote(text[0])), location[len(head) :])
    return store, posixpath.join(glob.escape(base), rest.lstrip("/"))


def _expand(store: Store, pattern: str, suffixes: tuple[str, ...]) -> list[Entry]:
    """List the files that a pattern matches; in an object store, only files of the format."""
    top = fixed_part(pattern)
    wanted = Pattern.of(pattern[len(top) :])
    entries = store.find(top or ("/" if pattern.startswith("/") else ""), wanted)
    if store.local:
        return entries
    start = len(top.rstrip("/")) + 1 if top else 0
    return [entry for entry in entries if is_wanted(entry.path[start:], AllFiles(suffixes))]


@contextmanager
def read_errors(location: str) -> Iterator[None]:
    """Convert errors of a store to a DataError that has the path and advice."""
    try:
        yield
    except StreamRNNError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        path = getattr(error, "filename", None)
        if not isinstance(error, OSError) or path is None:
            raise DataError(
                f"{location}: cannot be read: {error}. {advice_on(error)} and rerun."
            ) from error
        real = os.path.realpath(path)
        shown = path if real == os.path.abspath(path) else f"{path} (a link to {real})"
        raise DataError(
            f"{shown}: cannot be read: {error.strerror}. Allow this user to read it, or remove it "
            "from the source."
        ) from error


@dataclass(frozen=True)
class AllFiles(Wanted):
    """The files with one of `suffixes` at any depth.

    Files and folders whose names begin with "." or "_" are left out.
    """

    suffixes: tuple[str, ...]

    def below(self, folder: str) -> "AllFiles | None":
        return None if folder[0] in "._" else self

    def takes(self, file: str) -> bool:
        return file[0] not in "._" and file.endswith(self.suffixes)


@dataclass(frozen=True)
class Pattern(Wanted):
    """The unmatched part of a pattern: several `rests`, as `**` may match any number of folders.

    `*`, `?` and `[]` match within one name; a name that begins with "." is matched only by a part
    that begins with ".", too.
    """

    rests: frozenset[tuple[str, ...]]

    @classmethod
    def of(cls, text: str) -> "Pattern":
        """Parse a pattern: empty parts and `.` are ignored, a final `**` matches all files.

        Raises ConfigError for `..`: with links, its meaning would depend on the matches.
        """
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise ConfigError(
                f'[source] path: ".." is not allowed after a wildcard, as in {text}. Remove "..".'
            )
        return cls(frozenset([(*parts, *["*"] * (parts[-1] == "**"))]))

    def below(self, folder: str) -> "Pattern | None":
        rests = set()
        for rest in self._open():
            if rest[0] == "**" and not folder.startswith("."):
                rests.add(rest)
            elif len(rest) > 1 and _fits(folder, rest[0]):
                rests.add(rest[1:])
        return Pattern(frozenset(rests)) if rests else None

    def takes(self, file: str) -> bool:
        return any(len(rest) == 1 and _fits(file, rest[0]) for rest in self._open())

    def _open(self) -> Iterator[tuple[str, ...]]:
        """Yield the rests, and what remains of each if `**` at its start matches no folder."""
        for rest in self.rests:
            yield rest
            while rest[0] == "**" and len(rest) > 1:
                rest = rest[1:]
                yield rest


def fixed_part(path: str) -> str:
    """Return the folders before the first part with a wildcard."""
    return "/".join(takewhile(lambda part: not MAGIC.intersection(part), path.split("/")))


def _fits(name: str, part: str) -> bool:
    if part == "**" or (name.startswith(".") and not part.startswith(".")):
        return False
    return fnmatch.fnmatchcase(name, part)


class Hive:
    """Hive partitions (`year=2013/`) of some paths, relative to the source.

    A partition column is of integers if all its values are integers or null, else of text. Text
    is sorted by number if all values are numbers (`x=1.25`, `x=+2`) or null.
    """

    def __init__(self, paths: list[str]) -> None:
        values: dict[str, list[str]] = {}
        folders = {path.rpartition("/")[0] for path in paths}
        for name, value in (pair for folder in folders for pair in _pairs(folder)):
            values.setdefault(name, []).append(value)
        self._integers = _names_of_only(_INTEGER, values)
        self._numbers = self._integers | _names_of_only(_NUMBER, values)
        self._partitions = {
            folder: tuple((name, self._typed(name, value)) for name, value in _pairs(folder))
            for folder in folders
        }
        self._keys = {
            folder: tuple(self._step_key(step) for step in folder.split("/") if step)
            for folder in folders
        }

    def partitions(self, path: str) -> Partitions:
        """Return the name and value of each partition that contains the file."""
        return self._partitions[path.rpartition("/")[0]]

    def order(self, path: str) -> tuple[_Key, str]:
        """Return a sort key: `day=2` before `day=10`, `part-2` before `part-10`, null last."""
        folder, _, name = path.rpartition("/")
        return (*self._keys[folder], natural(name)), path

    def _typed(self, name: str, value: str) -> pa.Scalar:
        integer = name in self._integers
        if value == NULL_PARTITION:
            return pa.scalar(None, pa.int64() if integer else pa.string())
        return pa.scalar(int(value) if integer else value)

    def _step_key(self, folder: str) -> tuple[str | int | Decimal, ...]:
        name, mark, value = folder.partition("=")
        if mark and unquote(name) in self._numbers:
            null = value == NULL_PARTITION
            return f"{name}=", Decimal("Infinity" if null else unquote(value)), ""
        return (f"{name}={_LAST}",) if mark and value == NULL_PARTITION else natural(folder)


def is_number(value: str) -> bool:
    """Return whether a partition value is a number, so that it can be sorted as one."""
    return _NUMBER.fullmatch(value) is not None


def _pairs(folder: str) -> list[tuple[str, str]]:
    pairs = [step.partition("=") for step in folder.split("/") if "=" in step]
    try:
        return [(unquote(n, errors="strict"), unquote(v, errors="strict")) for n, _, v in pairs]
    except UnicodeDecodeError as error:
        raise DataError(
            f"folder {folder!r}: expected percent-encoded UTF-8 in the name of a partition, "
            f"received the bytes {error.object!r}. Rename the folder."
        ) from None


def _names_of_only(kind: re.Pattern[str], values: Mapping[str, list[str]]) -> set[str]:
    """Return the partitions whose values all match `kind` or are null."""
    return {
        name
        for name, texts in values.items()
        if all(text == NULL_PARTITION or kind.fullmatch(text) for text in texts)
    }
