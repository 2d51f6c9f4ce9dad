"""Read an output folder without a lock, while a run may write to it."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import pyarrow as pa

from streamrnn.base.storage.files import Files, sink_errors
from streamrnn.base.storage.store import open_files
from streamrnn.errors import CheckpointError, MissingFileError, SinkError
from streamrnn.stream.checkpoints.directory import INSIDE, MANIFEST, name_inside
from streamrnn.stream.checkpoints.edited import check_types, edits_refused
from streamrnn.stream.checkpoints.manifest import Manifest, RetainedCommit, Shard
from streamrnn.stream.checkpoints.seen import with_seen_files
from streamrnn.stream.checkpoints.segments import read_segment
from streamrnn.stream.checkpoints.versions import check_shards, read_shards, read_version

_Read = TypeVar("_Read")


def find_manifest(files: Files) -> Manifest | None:
    """Read the manifest of a folder; return None if the folder has none.

    The manifest is read again if another commit removed a segment meanwhile. Raises CheckpointError
    if the manifest is damaged, or has another layout.
    """
    read, data, path = partial(read_segment, files), _stored(files), files.show(MANIFEST)
    while data is not None:
        try:
            with edits_refused(path):
                manifest = Manifest.from_bytes(data, path, read)
                check_types(manifest)
        except CheckpointError:
            again = _stored(files)
            if again == data:
                raise
            data = again
        else:
            return manifest
    return None


def find_commit(files: Files) -> int | None:
    """Read only the number of the last commit, and no segment; None if there is no commit.

    Raises CheckpointError if the manifest is damaged.
    """
    data, path = _stored(files), files.show(MANIFEST)
    if data is None:
        return None
    with edits_refused(path):
        return Manifest.from_bytes(data, path, lambda segment, kind: []).commit


def _stored(files: Files) -> bytes | None:
    """Read the bytes of the manifest."""
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
    """Return whether anything was ever committed at `path` (the manifest may be damaged)."""
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
    Raises CheckpointError if there is no commit, or its state is damaged, and MissingFileError if
    the folder is missing or empty.
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
    """Read what the manifest names; repeat if another commit removed it meanwhile."""
    files = open_files(path)
    while True:
        manifest = read_manifest(path)
        try:
            return read(manifest, files)
        except CheckpointError:
            if read_manifest(path).commit == manifest.commit:
                raise
