"""Tell an output that was copied from one that was moved."""

import os

from streamrnn.base.storage import Files
from streamrnn.base.storage.store import open_like
from streamrnn.stream.checkpoints.reading import find_manifest


def is_another_folder(uri: str, files: Files, output: str) -> bool:
    """Return whether a folder holds an output of this id, and is not the one of `files`.

    Raises CheckpointError if its manifest is damaged; SinkError or ConfigError if its store does
    not answer.
    """
    other = open_like(uri, files)
    manifest = find_manifest(other)
    if manifest is None or manifest.output != output:
        return False
    if files.local and other.local:  # one folder may have two paths, as in a container
        return not os.path.samefile(files.show(""), other.show(""))
    return True
