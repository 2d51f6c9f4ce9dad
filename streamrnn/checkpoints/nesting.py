"""Outputs inside one another: whoever reads the outer one would read the rows of both."""

from streamrnn.checkpoints.directory import INSIDE, OWNER
from streamrnn.checkpoints.reading import MANIFEST
from streamrnn.errors import ConfigError, SinkError
from streamrnn.storage.files import Files
from streamrnn.storage.opening import open_files

_OF_AN_OUTPUT = {name.removeprefix(f"{INSIDE}/") for name in (MANIFEST, OWNER)}


def refuse_nested_output(path: str, key: str) -> None:
    """Raise ConfigError if an output at `path` would lie in another one, or around one.

    `key` says where the path comes from.
    """
    refuse_inside_output(path, key)
    files = open_files(path)
    ends = tuple(f"/{INSIDE}/{name}" for name in _OF_AN_OUTPUT)
    inner = [name.rpartition(f"/{INSIDE}/")[0] for name in files.tree() if name.endswith(ends)]
    if inner:
        other = files.show(min(inner, key=len))
        raise ConfigError(
            f"{key}: {files.show('')} lies around the output {other}: whoever reads it "
            "would read those rows too. Name a folder beside it, or move that output away, which "
            "is safe: its files are known by their way from it, and it resumes where it stopped."
        )


def refuse_inside_output(path: str, key: str) -> None:
    """Raise ConfigError if a file or folder at `path` would lie in a committed output.

    A folder above it that may not be listed is delta for none.
    """
    files = open_files(path)
    for outer in files.above():
        if _is_output(outer):
            raise ConfigError(
                f"{key}: {files.show('')} lies inside the output {outer.show('')}: whoever reads "
                "that folder would read these rows too. Name a place beside it."
            )


def _is_output(files: Files) -> bool:
    # Credentials for a prefix alone may not list what is above it.
    try:
        return not _OF_AN_OUTPUT.isdisjoint(files.sizes(INSIDE))
    except SinkError:
        return False
