"""Refuse manifests that were edited: the checksum is valid, but no commit wrote them.

Every value is compared with the type of its field, so that a wrong one cannot reach the code that
uses it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from operator import attrgetter
from typing import Any

import pyarrow as pa

from streamrnn.errors import CheckpointError
from streamrnn.stream.checkpoints.directory import RESTORE_MANIFEST, is_part
from streamrnn.stream.checkpoints.manifest import Manifest, RetainedCommit, decode_schema
from streamrnn.stream.checkpoints.partitioning import layout_in
from streamrnn.stream.checkpoints.records import check_fields, mistyped
from streamrnn.stream.config import SIDE_OUTPUTS, check_recorded
from streamrnn.stream.sinks import Part, layout_of
from streamrnn.stream.states.positions import from_json

_MOST_ROWS = (1 << 63) - 1


@contextmanager
def edits_refused(path: str) -> Iterator[None]:
    """Convert what a missing, unknown or mistyped key raises to a CheckpointError with `path`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        cause = str(error)
        if isinstance(error, KeyError):
            cause = f"key {error.args[0]!r} is missing"
        elif named := re.search(r"(unexpected|missing) .*?'(\w+)'", cause):
            cause = f"key {named[2]!r} is {named[1]}"
        raise CheckpointError(
            f"{path} was edited: its checksum is valid, but {cause}. {RESTORE_MANIFEST}"
        ) from error


def check_types(manifest: Manifest) -> None:
    """Raise ValueError, naming the key, for a value that no commit writes."""
    check_fields([manifest])
    check_fields(manifest.outputs.values())
    commits: list[Manifest | RetainedCommit] = [manifest, *manifest.kept]
    for commit in commits:
        if any(not shard.files for shard in commit.shards):
            raise ValueError("files of Shard: expected at least one, received none")
        with _readable("time", "a time in ISO format", commit.time):
            datetime.fromisoformat(commit.time)
        _check_integers("counters", commit.counters)
        with _readable("positions", "pairs of partition and position", commit.positions):
            from_json(commit.positions)
    try:
        check_recorded(manifest.config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config {error}") from None
    for commit in commits:
        # A run always commits a state, even one without streams; other owners of a folder do not.
        if commit.rows and not commit.shards and "window.kind" in manifest.config:
            raise ValueError(f"shards of commit {commit.commit}: expected one or more, received []")
    for kept in manifest.kept:
        _check_integers("outputs", kept.outputs)
    *names, last = ["rows", *SIDE_OUTPUTS]
    if unknown := manifest.outputs.keys() - {*names, last}:
        expected = f"{', '.join(names)} and {last}"
        raise ValueError(f"outputs: expected {expected}, received {unknown.pop()!r}")
    for name, output in manifest.outputs.items():
        _check_parts(name, output.parts, layout_in(manifest.config) if name == "rows" else ())
    with _readable("schema", "an Arrow schema in base64", manifest.schema):
        decode_schema(manifest.schema)
    if manifest.commit < 1:
        raise ValueError(f"commit: expected 1 or more, received {manifest.commit}")
    for position in [manifest.position, *(kept.position for kept in manifest.kept)]:
        if position and min(position.row_group, position.row, position.file_row) < 0:
            raise ValueError(f"position: expected rows from 0 on, received {position}")


def _check_parts(key: str, parts: Sequence[Part], layout: tuple[str, ...]) -> None:
    for part in parts:
        if not 0 <= part.rows <= _MOST_ROWS:
            raise ValueError(
                f"rows of {part.name} in {key}: expected 0 to {_MOST_ROWS}, received {part.rows}"
            )
    for field in ("name", "staged"):
        names = list(map(attrgetter(field), parts))
        if len(set(names)) < len(names):
            twice = next(name for name, times in Counter(names).items() if times > 1)
            raise ValueError(f"{field} of {key}: {twice!r} is given more than once")
    for part in parts:
        if not is_part(part.name) or layout_of(part.name) != layout:
            expected = "".join(f"{column}=…/" for column in layout) + "part-…"
            raise ValueError(f"name of {key}: expected {expected}, received {part.name!r}")


def _check_integers(key: str, numbers: Mapping[str, Any]) -> None:
    for name, value in numbers.items():
        if type(value) is not int:
            raise ValueError(mistyped(f"{key} {name}", "int", value))


@contextmanager
def _readable(key: str, expected: str, value: object) -> Iterator[None]:
    """Raise ValueError for a value that cannot be read."""
    try:
        yield
    except (LookupError, TypeError, ValueError, OSError, pa.ArrowException):
        raise ValueError(mistyped(key, expected, value)) from None
