"""Outputs inside one another: readers of the outer one would read the rows of both."""

from streamrnn.base.storage.files import Files
from streamrnn.base.storage.store import in_the_way, open_files
from streamrnn.errors import ConfigError, SinkError
from streamrnn.stream.checkpoints.directory import INSIDE, MANIFEST, OWNER, REPLAY, name_inside

_OF_AN_OUTPUT = {name_inside(name) for name in (MANIFEST, OWNER)}


def refuse_no_directory(path: str, key: str) -> None:
    """Raise ConfigError if a file, device or pipe is at `path`, or where a parent should be.

    `key` is the config key of the path, for the message.
    """
    if file := in_the_way(path):
        raise ConfigError(
            f"{key}: {path}: expected a directory, which need not exist yet, but {file} is a "
            "file, device or pipe. Set the path of a directory."
        )


def refuse_nested_output(path: str, key: str) -> None:
    """Raise ConfigError if an output at `path` would lie inside another one, or contain one.

    `key` is the config key or option of the path, for messages.
    """
    refuse_inside_output(path, key)
    files = open_files(path)
    ends = tuple(f"/{INSIDE}/{name}" for name in _OF_AN_OUTPUT)
    names = (name for name in files.tree() if not name.startswith(f"{REPLAY}/"))
    inner = [name.rpartition(f"/{INSIDE}/")[0] for name in names if name.endswith(ends)]
    if inner:
        other = files.show(min(inner, key=len))
        raise ConfigError(
            f"{key}: {files.show('')} contains the output {other}: readers of it "
            "would read those rows too. Choose a folder beside it, or move that output away, which "
            "is safe: its source files are found relative to it, and it resumes where it stopped."
        )


def refuse_inside_output(path: str, key: str) -> None:
    """Raise ConfigError if a file or folder at `path` would lie in a committed output.

    A parent folder that cannot be listed does not count as an output.
    """
    files = open_files(path)
    for outer in files.above():
        if _is_output(outer):
            raise ConfigError(
                f"{key}: {files.show('')} lies inside the output {outer.show('')}: readers of "
                "that folder would read these rows too. Choose a path beside it."
            )


def _is_output(files: Files) -> bool:
    # Credentials for a prefix may not allow listing its parents.
    try:
        return not _OF_AN_OUTPUT.isdisjoint(files.sizes(INSIDE))
    except SinkError:
        return False
