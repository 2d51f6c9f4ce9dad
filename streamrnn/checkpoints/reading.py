"""Looking at an output folder without locking it, while a run may be at work on it."""

from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from streamrnn.checkpoints.directory import INSIDE
from streamrnn.checkpoints.manifest import Manifest
from streamrnn.checkpoints.versions import check_shards, read_shards
from streamrnn.errors import CheckpointError
from streamrnn.storage.files import Files, sink_errors
from streamrnn.storage.opening import open_files

MANIFEST = f"{INSIDE}/manifest.json"
_Found = TypeVar("_Found")


def find_manifest(files: Files) -> Manifest | None:
    """The manifest of a folder, None if it has none. Raises CheckpointError if it is damaged."""
    try:
        with sink_errors("read", files.show(MANIFEST)):
            data = files.read(MANIFEST)
    except OSError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise
    return Manifest.from_bytes(data, files.show(MANIFEST))


def has_manifest(path: str) -> bool:
    """Whether something was ever committed at `path` (damaged or not)."""
    return "manifest.json" in open_files(path).entries(INSIDE)


def read_manifest(path: str) -> Manifest:
    """The last commit of an output folder. Raises CheckpointError if there is none, or damaged."""
    manifest = find_manifest(open_files(path))
    if manifest is None:
        raise CheckpointError(
            f"{path} has no {MANIFEST}: it is not the output of a streamrnn run, or its first run "
            "has not committed yet. Name the sink.path of a pipeline that ran."
        )
    return manifest


def load_state(path: str) -> pa.Table | None:
    """The state table of the last commit; None if the run keeps no state.

    Raises CheckpointError if there is no commit, or its state is damaged.
    """

    def load(manifest: Manifest, files: Files) -> pa.Table | None:
        check_shards(files, INSIDE, manifest.shards, whole=True)  # Arrow trusts what it reads
        return read_shards(files, INSIDE, manifest.shards)

    return consistent_read(path, load)


def consistent_read(path: str, look: Callable[[Manifest, Files], _Found]) -> _Found:
    """Look at what the manifest names; again, if a commit went by and took it away meanwhile."""
    files = open_files(path)
    while True:
        manifest = read_manifest(path)
        try:
            return look(manifest, files)
        except CheckpointError:
            if read_manifest(path).commit == manifest.commit:
                raise
