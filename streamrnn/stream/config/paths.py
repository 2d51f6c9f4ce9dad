"""Paths derived from other paths of a pipeline file."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from streamrnn.base.display import location


class SideOutput(NamedTuple):
    """An output beside the main one: its metric, and the keys of its directory and of its filter.

    Rows of the main output that pass the filter are copied to the side output. With `where` = "",
    there is no filter, and the side output has rows of its own.
    """

    metric: str
    path: str
    where: str = ""


SIDE_OUTPUTS = {
    "rejects": SideOutput("rows_rejected_total", "sink.rejects"),
    "alerts": SideOutput("rows_alerted_total", "alerts.path", where="alerts.where"),
}
"""The outputs beside the main one, by name."""

PATHS = (
    "model.path",
    "source.path",
    "sink.path",
    *(side.path for side in SIDE_OUTPUTS.values()),
    "state.init",
    "state.save",
    "serve.log",
)
"""The keys whose values are paths or URIs."""


def title(key: str) -> str:
    """Return a dotted key as messages name it.

    >>> title("sink.rejects")
    '[sink] rejects'
    """
    table, _, name = key.partition(".")
    return f"[{table}] {name}"


def side_folder(output: str, name: str) -> str:
    """Return the default directory of a side output, such as the rejects, beside an output.

    >>> side_folder("s3://logs/out?region=eu-west-3", "rejects")
    's3://logs/out.rejects?region=eu-west-3'
    """
    return longer(output, f".{name}")


def longer(path: str, end: str) -> str:
    """Append a suffix to a path, or to the path of a URI."""
    if "://" not in path:
        return f"{path.rstrip('/')}{end}"
    parts = urlsplit(path)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}{end}"))


def to_record(path: str, default: str) -> str:
    """Return a directory as the manifest records it: "" for `default`, which moves with the output.

    >>> to_record("s3://key:secret@logs/bad", "out.rejects")
    's3://logs/bad'
    """
    if same_place(path, default):
        return ""
    return location(path) if "://" in path else os.path.abspath(path)


def recorded_place(record: str, output: str, name: str) -> str:
    """Return the directory of a side output that `to_record` recorded.

    It gets the credentials of `output` if both are on one server and the record has none.

    >>> output = "s3://key:secret@logs/out?scheme=http"
    >>> recorded_place("s3://logs/bad?scheme=http", output, "rejects")
    's3://key:secret@logs/bad?scheme=http'
    """
    default = side_folder(output, name)
    if not record or same_place(record, default):
        return default
    ours, theirs = urlsplit(output), urlsplit(record)
    same_server = (theirs.scheme, _options(record)) == (ours.scheme, _options(output))
    if "@" in theirs.netloc or not ours.netloc or not same_server:
        return record
    user = "".join(ours.netloc.rpartition("@")[:2])
    return urlunsplit(theirs._replace(netloc=user + theirs.netloc, query=ours.query))


def same_place(a: str, b: str) -> bool:
    """Return whether two paths name one place; of URIs, only scheme, bucket and key count.

    >>> same_place("s3://key:secret@logs/a?region=x&scheme=http", "s3://logs/a?scheme=http")
    True
    """
    if "://" in a and "://" in b:
        return _place(a) == _place(b)
    return "://" not in a + b and os.path.realpath(a) == os.path.realpath(b)


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config (dotted key -> value) with no credentials in its URIs."""
    return {
        key: location(value) if key in PATHS and isinstance(value, str) else value
        for key, value in config.items()
    }


def _place(uri: str) -> str:
    return location(uri).partition("?")[0].rstrip("/")


def _options(uri: str) -> str:
    return location(uri).partition("?")[2]
