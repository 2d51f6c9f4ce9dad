"""Which files a source path means, in the order in which they are read."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from streamrnn.errors import DataError, MissingFileError, StreamRNNError
from streamrnn.sources.formats import FORMATS
from streamrnn.sources.order import Hive, Partitions
from streamrnn.sources.patterns import MAGIC, AllFiles, Pattern, fixed_part
from streamrnn.storage import Entry, Store, open_store
from streamrnn.storage.natural import steps_of
from streamrnn.storage.walking import is_wanted

# What pyarrow takes behind "?" in a URI of an object store.
_OPTIONS = {
    *("region", "scheme", "endpoint_override", "anonymous", "role_arn", "session_name"),
    *("external_id", "allow_bucket_creation", "allow_bucket_deletion", "allow_delayed_open"),
    *("check_directory_existence_before_creation", "smart_defaults", "tls_ca_file_path"),
    *("tls_verify_certificates", "retry_limit_seconds", "project_id", "enable_tls", "tenant_id"),
    *("client_id", "client_secret", "credential_kind", "background_writes"),
    *("blob_storage_authority", "blob_storage_scheme", "dfs_storage_authority"),
    *("dfs_storage_scheme", "default_bucket_location", "default_metadata"),
}
_SAME_STORE = {"gs": "gcs", "abfss": "abfs"}


@dataclass(frozen=True)
class SourceFile:
    """One file of a source: `path` as messages show it, `name` as it is known by.

    However a path is spelled (relative, through links, as a URI), a file has one `name`: the
    real absolute path on a disk, else scheme, bucket and key.
    """

    path: str
    name: str
    size: int
    mtime_ns: int
    store: Store = field(compare=False, repr=False)
    location: str = field(compare=False, repr=False)
    partitions: Partitions = ()

    def identity(self) -> str:
        """A digest of the Parquet footer: it holds every chunk's place, size and statistics.

        A file that was only touched or copied keeps it. Raises DataError if it cannot be read, or
        there is no footer.
        """
        try:
            return self._identity()
        except FileNotFoundError as error:
            raise DataError(f"{self.path}: vanished before it could be read") from error
        except (OSError, pa.ArrowException) as error:
            cause = getattr(error, "strerror", None) or str(error)
            raise DataError(
                f"{self.path}: cannot be read: {cause}. Allow this user to read it, or take it "
                "out of the source."
            ) from error

    def _identity(self) -> str:
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

    def open(self) -> pa.NativeFile:
        """The file, open for reading. Raises OSError."""
        return self.store.open(self.location)


def etag(stream: pa.NativeFile) -> str:
    """What an object store calls the version of the object that is open; "" on a disk."""
    if isinstance(stream, pa.MemoryMappedFile | pa.OSFile):
        return ""
    try:
        found: dict[str, bytes] = stream.metadata() or {}
    except (OSError, pa.ArrowException):
        return ""
    return found.get("ETag", b"").decode(errors="replace")


def resolve(path: str) -> tuple[Store, str]:
    """The store of a path or URI, and the path in it. Raises DataError."""
    try:
        return open_store(path)
    except (pa.ArrowInvalid, OSError) as error:
        scheme, _, rest = path.partition("://")
        shown = f"{scheme}://{rest.rpartition('@')[2]}"  # without a password
        raise DataError(f"{shown}: cannot be opened as a URI: {error}") from error


def canonical_name(path: str) -> str:
    """The `SourceFile.name` of a path or URI, whether there is a file or not."""
    if "://" not in path:
        return os.path.realpath(path)
    scheme, _, rest = path.partition("://")
    if scheme == "file":
        return os.path.realpath(resolve(path)[1])
    return _remote_name(scheme, rest.partition("?")[0])


def stored_name(path: str) -> str:
    """The `SourceFile.name` of a file as manifests of version 1 hold it.

    That is its scheme and its decoded key, or, if the file alone was the source, the URI itself.
    A key may have "@" and "?" in it, and what looks like a code ("%20").
    """
    if "://" not in path:
        return os.path.realpath(path)
    scheme, _, rest = path.partition("://")
    if scheme == "file":
        decoded = unquote(rest)
        encoded = os.path.exists(decoded) and not os.path.exists(rest)
        return os.path.realpath(decoded if encoded else rest)
    place, _, options = rest.rpartition("?")
    ours = bool(place) and {pair.partition("=")[0] for pair in options.split("&")} <= _OPTIONS
    return _remote_name(scheme, place if ours else rest)


def _remote_name(scheme: str, place: str) -> str:
    """Without the user and the password that may stand before the bucket."""
    bucket, slash, key = place.partition("/")
    return f"{_SAME_STORE.get(scheme, scheme)}://{bucket.rpartition('@')[2]}{slash}{key}"


def list_files(
    path: str, suffixes: tuple[str, ...] = FORMATS["parquet"].suffixes
) -> list[SourceFile]:
    """The files that a file name, glob, directory or URI means, in the order of `Hive.order`.

    In a directory these are the files at any depth whose names end in one of `suffixes`; names that
    begin with "." or "_" are passed over, as Arrow does. A file that is reached in several ways is
    listed once. Raises MissingFileError if there is nothing at `path`.
    """
    store, location = _split_glob_uri(path)
    with _refusals(location):
        if MAGIC.intersection(location) and not store.exists(location):
            found, base = _expand(store, location, suffixes), fixed_part(location)
        elif (file := store.entry(location)) is not None:
            found, base = [file], posixpath.dirname(location)
        elif store.exists(location):
            found, base = store.find(location, AllFiles(suffixes)), location
        else:
            raise MissingFileError(f"[source] path: {path}: there is no such file or directory")
    scheme = path.partition("://")[0] + "://" if "://" in path else ""
    return _listed(store, found, base, scheme)


def _listed(store: Store, found: list[Entry], base: str, scheme: str) -> list[SourceFile]:
    """The files in order, each once: by its path with most partitions, then with fewest links."""
    start = len(base.rstrip("/")) + 1 if base else 0
    ways: dict[str, list[Entry]] = {}
    for each in found:
        ways.setdefault(each.name, []).append(each)
    chosen = [min(entries, key=_by_which_path) for entries in ways.values()]
    for each in chosen:
        _refuse_no_text(each)
    hive = Hive([each.path[start:] for each in chosen])
    return [
        SourceFile(
            scheme + each.path,
            each.name,
            each.size,
            each.mtime_ns,
            store,
            each.path,
            hive.partitions(each.path[start:]),
        )
        for each in sorted(chosen, key=lambda each: hive.order(each.path[start:]))
    ]


def _refuse_no_text(each: Entry) -> None:
    for text in (each.path, each.name):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{os.fsencode(text)!r}: the name is not valid UTF-8. Rename the file or folder."
            ) from error


def _by_which_path(each: Entry) -> tuple[Any, ...]:
    folders = posixpath.dirname(each.path).split("/")
    return -sum("=" in folder for folder in folders), each.links, steps_of(each.path)


def _split_glob_uri(path: str) -> tuple[Store, str]:
    if "://" not in path:
        return resolve(path)
    # In a URI "?" begins the options.
    place, mark, options = path.partition("?")
    if not MAGIC.intersection(place):
        return resolve(path)
    head = fixed_part(place)
    store, base = resolve(head + mark + options)
    return store, posixpath.join(base, place[len(head) :].lstrip("/"))


def _expand(store: Store, pattern: str, suffixes: tuple[str, ...]) -> list[Entry]:
    """The files that a pattern means; in an object store those of the format."""
    top = fixed_part(pattern)
    wanted = Pattern.of(pattern[len(top) :])
    found = store.find(top or ("/" if pattern.startswith("/") else ""), wanted)
    if store.local:
        return found
    start = len(top.rstrip("/")) + 1 if top else 0
    return [each for each in found if is_wanted(each.path[start:], AllFiles(suffixes))]


@contextmanager
def _refusals(location: str) -> Iterator[None]:
    """Turn what a store raises into a DataError that names the path and what to do."""
    try:
        yield
    except StreamRNNError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        path = getattr(error, "filename", None)
        if not isinstance(error, OSError) or path is None:
            raise DataError(f"{location}: cannot be read: {error}") from error
        real = os.path.realpath(path)
        shown = path if real == os.path.abspath(path) else f"{path} (a link to {real})"
        raise DataError(
            f"{shown}: cannot be read: {error.strerror}. Allow this user to read it, or take it "
            "out of the source."
        ) from error
