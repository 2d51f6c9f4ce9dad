"""Open the path of a sink."""

import os
import stat
from urllib.parse import urlsplit

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.base.storage.connecting import connect
from streamrnn.base.storage.files import Files, check_path
from streamrnn.base.storage.local import LocalFiles
from streamrnn.base.storage.remote import RemoteFiles
from streamrnn.base.storage.walking import status
from streamrnn.errors import ConfigError


def in_the_way(path: str) -> str | None:
    """Return the file, device or pipe that `path` is or would lie in; None if there is none.

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
    """Open the folder of a URI without options; as `files` connects, if its scheme is the same.

    Raises ConfigError if the URI cannot be opened.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return LocalFiles(rest)
    if isinstance(files, RemoteFiles) and scheme in ("s3", "gs", "gcs"):
        own = urlsplit(files.uri)
        if own.scheme == scheme:
            return RemoteFiles(files.fs, rest, f"{uri}?{own.query}")
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
            f"sink.path {location(path)!r} cannot be opened: {error}. Expected a "
            "directory, or a URI such as s3://bucket/folder, gs://…, abfss://… or file:///…"
        ) from error
    return RemoteFiles(fs, root, path)
