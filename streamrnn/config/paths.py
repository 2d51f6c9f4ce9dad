"""Paths derived from other paths of a pipeline file."""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from streamrnn.display import location

PATHS = (
    "model.path",
    "source.path",
    "sink.path",
    "sink.rejects",
    "alerts.path",
    "state.init",
    "state.save",
)
"""The keys whose values are paths or URIs."""


def rejects_beside(path: str) -> str:
    """Return the default directory of an output's rejects: `path` + ".rejects".

    >>> rejects_beside("s3://logs/out?region=eu-west-3")
    's3://logs/out.rejects?region=eu-west-3'
    """
    return _beside(path, ".rejects")


def alerts_beside(path: str) -> str:
    """Return the default directory of an output's alerts: `path` + ".alerts"."""
    return _beside(path, ".alerts")


def _beside(path: str, end: str) -> str:
    parts = urlsplit(path)
    if "://" not in path:
        return path.rstrip("/") + end
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + end))


def to_record(path: str | None, beside: str) -> str:
    """Return a directory for the manifest, as it is found from any working directory.

    "" for the default `beside` the output, which moves with it.

    >>> to_record("s3://key:secret@logs/bad", "out.rejects")
    's3://logs/bad'
    """
    if path is None or same_place(path, beside):
        return ""
    return location(path) if "://" in path else os.path.abspath(path)


def recorded_alerts(recorded: str, output: str) -> str | None:
    """Return the directory of alerts that an output recorded, as `recorded_rejects`."""
    beside = alerts_beside(output)
    return (
        beside if recorded and same_place(recorded, beside) else recorded_rejects(recorded, output)
    )


def recorded_rejects(recorded: str, output: str) -> str | None:
    """Return the directory of rejects that an output recorded, with the credentials of `output`.

    None: nothing is recorded.

    >>> recorded_rejects("s3://logs/bad?scheme=http", "s3://key:secret@logs/out?scheme=http")
    's3://key:secret@logs/bad?scheme=http'
    """
    if not recorded:
        return None
    beside = rejects_beside(output)
    if same_place(recorded, beside):
        return beside
    ours, theirs = urlsplit(output), urlsplit(recorded)
    same_server = (theirs.scheme, _options(recorded)) == (ours.scheme, _options(output))
    if "@" in theirs.netloc or not ours.netloc or not same_server:
        return recorded
    user = "".join(ours.netloc.rpartition("@")[:2])
    return urlunsplit(theirs._replace(netloc=user + theirs.netloc, query=ours.query))


def same_place(a: str, b: str) -> bool:
    """Return whether two paths name one place: URIs by scheme, bucket and key only.

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
