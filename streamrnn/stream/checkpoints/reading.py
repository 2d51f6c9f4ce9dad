"""Read an output folder without a lock, while a run may write to it."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

import pyarrow as pa

from streamrnn.base.storage.files import Files, sink_errors
from streamrnn.base.storage.store import open_files
from streamrnn.errors import CheckpointError, MissingFileError, SinkError
from streamrnn.stream.checkpoints.directory import (
    INSIDE,
    MANIFEST,
    RESTORE_MANIFEST,
    is_part,
    name_inside,
)
from streamrnn.stream.checkpoints.manifest import (
    Manifest,
    RetainedCommit,
    Shard,
    decode_schema,
    with_seen_files,
)
from streamrnn.stream.checkpoints.partitioning import layout_in
from streamrnn.stream.checkpoints.records import check_fields, mistyped, read_segment
from streamrnn.stream.checkpoints.versions import check_shards, read_shards, read_version
from streamrnn.stream.config import SIDE_OUTPUTS, check_recorded
from streamrnn.stream.sinks import Part, layout_of
from streamrnn.stream.states.positions import from_json

_MOST_ROWS = (1 << 63) - 1


@contextmanager
def _edits_refused(path: str) -> Iterator[None]:
    """Turn the error that a missing, unknown or mistyped key raises into a CheckpointError."""
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


def _check_types(manifest: Manifest) -> None:
    """Raise ValueError, naming the key, for a value that no commit writes.

    Each value is compared with the type of its field: a value of a wrong type must not reach other
    code.
    """
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
        at = commit.position
        if at and min(at.row_group, at.row, at.file_row) < 0:
            raise ValueError(f"position: expected rows from 0 on, received {at}")
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
    try:
        yield
    except (LookupError, TypeError, ValueError, OSError, pa.ArrowException):
        raise ValueError(mistyped(key, expected, value)) from None


_Read = TypeVar("_Read")


def find_manifest(files: Files) -> Manifest | None:
    """Read the manifest of a folder; None if there is none.

    The manifest is read again if another commit removed a segment meanwhile. Raises CheckpointError
    if it is damaged, or has another layout.
    """
    data, path = _stored(files), files.show(MANIFEST)
    while data is not None:
        try:
            with _edits_refused(path):
                manifest = Manifest.from_bytes(data, path, partial(read_segment, files))
                _check_types(manifest)
                return manifest
        except CheckpointError:
            again = _stored(files)
            if again == data:
                raise
            data = again
    return None


def find_commit(files: Files) -> int | None:
    """Read the number of the last commit, without reading segments; None if there is no commit.

    Raises CheckpointError if the manifest is damaged, or has another layout.
    """
    data, path = _stored(files), files.show(MANIFEST)
    if data is None:
        return None
    with _edits_refused(path):
        return Manifest.from_bytes(data, path, lambda segment, kind: []).commit


def _stored(files: Files) -> bytes | None:
    try:
        with sink_errors("read", files.show(MANIFEST)):
            return files.read(MANIFEST)
    except OSError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise
    return None


def lists_manifest(files: Files) -> bool:
    """Return whether a manifest is listed in a folder (it may be damaged)."""
    return name_inside(MANIFEST) in files.entries(INSIDE)


def has_manifest(path: str) -> bool:
    """Return whether there is a commit at `path` (its manifest may be damaged)."""
    return lists_manifest(open_files(path))


def read_manifest(path: str) -> Manifest:
    """Read the last commit of an output folder.

    Raises CheckpointError if the manifest is missing or damaged, MissingFileError if the folder is
    missing or empty.
    """
    files = open_files(path)
    manifest = find_manifest(files)
    if manifest is None:
        with suppress(SinkError):  # not a folder
            if not files.entries(""):
                raise MissingFileError(
                    f"{path}: no such output folder, or it is empty. Run its pipeline first "
                    "(streamrnn run), or pass the [sink] path of one that has run."
                )
        raise CheckpointError(
            f"{path} has no {MANIFEST}: it is not the output of a streamrnn run, or its first run "
            "has not committed yet. Pass the [sink] path of a pipeline that has run."
        )
    return manifest


def load_state(
    path: str, *, seen: bool = False, of: RetainedCommit | None = None
) -> pa.Table | None:
    """Load the state table of the last commit, or of the retained commit `of`; None without state.

    With `seen`, the table's metadata lists the files that the state has seen (see `seen_files`).
    Raises what `read_manifest` raises, and CheckpointError if the state is damaged.
    """

    def load(manifest: Manifest, files: Files) -> pa.Table | None:
        shards = manifest.shards if of is None else of.shards
        check_shards(files, shards, whole=True)  # Arrow does not validate what it reads
        table = read_shards(files, shards)
        return with_seen_files(table, manifest) if seen and table is not None else table

    return consistent_read(path, load)


def load_shard(path: str, shard: Shard) -> pa.Table:
    """Load the state table of one shard, in a worker. Raises CheckpointError if it is damaged."""
    return read_version(open_files(path), shard.files, shard.rows)


def read_token(path: str, name: str) -> str:
    """Read a token of `PartDirectory.token`, in the process of a worker. Raises OSError."""
    return open_files(path).read(name).decode(errors="replace")


def consistent_read(path: str, read: Callable[[Manifest, Files], _Read]) -> _Read:
    """Read files that the manifest names; repeat if another commit removed them meanwhile."""
    files = open_files(path)
    while True:
        manifest = read_manifest(path)
        try:
            return read(manifest, files)
        except CheckpointError:
            if read_manifest(path).commit == manifest.commit:
                raise
