"""Checks of the place of an output, and of the files that are there when it is opened.

They find out whether the folder lies in another output, belongs to this one, and is intact, and
which commit is next. (Readers of an output around another one would read the rows of both.)
"""

import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

from streamrnn.base.storage.files import Files
from streamrnn.base.storage.store import in_the_way, open_files
from streamrnn.errors import CheckpointError, ConfigError, SinkError
from streamrnn.stream.checkpoints.directory import (
    INSIDE,
    MANIFEST,
    OWNER,
    REPLAY,
    STAGING,
    PartDirectory,
    name_inside,
)
from streamrnn.stream.checkpoints.manifest import Manifest
from streamrnn.stream.checkpoints.reading import find_commit, find_manifest
from streamrnn.stream.checkpoints.versions import check_shards
from streamrnn.stream.config import SIDE_OUTPUTS, same_place, title

_LOGGER = logging.getLogger("streamrnn.checkpoints")
NOT_OURS = "its files do not belong to this output"
_OF_AN_OUTPUT = {name_inside(name) for name in (MANIFEST, OWNER)}
_NUMBERED = re.compile(r"_?(?:[a-z]+-)?(\d+)[-.]")


def last_manifest(files: Files, full_refresh: bool) -> Manifest | None:
    """Read the last commit; return None if there is none.

    Raises CheckpointError if the manifest is damaged. With `full_refresh`, which replaces the
    output, a damaged manifest counts as none.
    """
    with suppress(*[CheckpointError] if full_refresh else []):
        return find_manifest(files)
    return None


def refuse_foreign_entries(
    directory: PartDirectory, why: str, *, ours_may_stay: bool = False
) -> None:
    """Raise CheckpointError if a folder holds anything but leftovers of a run.

    `ours_may_stay`: files named like our parts, beside our own folder, are accepted too.
    """
    foreign = directory.foreign_entries()
    if foreign and not (ours_may_stay and directory.only_our_files()):
        some = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise CheckpointError(
            f"{directory.path} is not empty and {why}: {some}. "
            "Choose an empty or new directory, or empty this one."
        )


def free_number(files: Files, last: Manifest | None) -> int:
    """Return a number for the next commit that no file has, even without a manifest."""
    if last is not None:
        return last.commit + 1
    names = [*files.entries(INSIDE), *files.entries(STAGING)]
    return 1 + max((int(n[1]) for name in names if (n := _NUMBERED.match(name))), default=0)


def check_files(files: Files, directories: Mapping[str, PartDirectory], manifest: Manifest) -> None:
    """Raise CheckpointError unless all files match the manifest.

    The sizes of all files are compared, and the checksums of the current state.
    """
    for name, output in manifest.outputs.items():
        if output.parts:
            directories[name].check(output.parts)
    check_shards(files, manifest.shards, whole=True)
    for kept in manifest.kept:
        check_shards(files, kept.shards, whole=False)


def are_ours(
    name: str, rows: PartDirectory, beside: PartDirectory, last: Manifest | None, full_refresh: bool
) -> bool:
    """Return whether to lock the folder of a side output: it exists, and is not another output's.

    It is locked even if the last commit has no rows in it: that commit may have replaced one that
    had some, and its run may have died before it removed them. Raises CheckpointError if earlier
    rows are elsewhere, or if the rejects of a new output would be among foreign files (for other
    side outputs and later runs, `prepare` refuses such files when there is a row or a filter).
    """
    if last is not None and full_refresh and last.named(name).parts:
        then = last.place_of(name, rows.path)
        if not same_place(then, beside.path):
            message = "%s: the %s of the output that is replaced stay in %s; remove that folder"
            _LOGGER.warning(message, rows.path, name, then)
    lost = full_refresh and last is None and bool(rows.foreign_entries())
    if last is not None and last.named(name).parts and not full_refresh:
        _check_place(name, rows, beside, last)
    elif not lost and (last is None or beside.owner() != last.output):
        may_wait = SIDE_OUTPUTS[name].where or (last is not None and not full_refresh)
        if may_wait and beside.foreign_entries():
            return False  # refused when the first row comes
        refuse_foreign_entries(beside, NOT_OURS)
    return INSIDE in beside.files.entries("")


def _check_place(name: str, rows: PartDirectory, beside: PartDirectory, last: Manifest) -> None:
    then, held = last.place_of(name, rows.path), last.named(name).rows
    key = title(SIDE_OUTPUTS[name].path)
    if not same_place(then, beside.path) and beside.owner() != last.output:
        raise CheckpointError(
            f"the {name} of {rows.path} are in {then} ({held} rows); {key} is now "
            f"{beside.path}. "
            "Change it back, or start over with --full-refresh."
        )
    if INSIDE not in beside.files.entries(""):
        raise CheckpointError(
            f"the {name} of {rows.path} ({held} rows) are not in {beside.path}. Was the output "
            f"moved, copied or linked without them? Move them there, or set {key} to "
            "where they are; or start over with --full-refresh."
        )


def refuse_another_writer(files: Files, commit: int) -> None:
    """Raise CheckpointError if another run has committed (on object stores locks are advisory)."""
    if files.local:
        return
    with suppress(CheckpointError):
        last = find_commit(files)
        if last is None or last < commit:
            return
    raise CheckpointError(
        f"{files.show('')}: another run has committed since this one started. Two runs must not "
        "write to one output; this run stops, and what it has not committed is discarded."
    )


def refuse_no_directory(path: str, key: str) -> None:
    """Raise ConfigError, naming `key`, if a file is at `path`, or in place of a parent folder."""
    if file := in_the_way(path):
        raise ConfigError(
            f"{key}: {path}: expected a directory, which need not exist yet, but {file} is a "
            "file, device or pipe. Set the path of a directory."
        )


def refuse_nested_output(path: str, key: str) -> None:
    """Raise ConfigError, naming `key`, if an output at `path` would be in or around another."""
    refuse_inside_output(path, key)
    files = open_files(path)
    ends = tuple(f"/{INSIDE}/{name}" for name in _OF_AN_OUTPUT)
    names = (name for name in files.tree() if not name.startswith(f"{REPLAY}/"))
    inner = [name.rpartition(f"/{INSIDE}/")[0] for name in names if name.endswith(ends)]
    if inner:
        other = files.show(min(inner, key=len))
        raise ConfigError(
            f"{key}: {files.show('')} contains the output {other}: readers of the outer folder "
            "would read the rows of both. Choose a folder that contains no output, or move that "
            "output away, which is safe: its source files are found relative to it, and it resumes "
            "where it stopped."
        )


def refuse_inside_output(path: str, key: str) -> None:
    """Raise ConfigError if a file or folder at `path` would lie in a committed output."""
    files = open_files(path)
    for outer in files.above():
        inside: Iterable[str] = ()
        with suppress(SinkError):  # credentials for a prefix may not allow listing its parents
            inside = outer.sizes(INSIDE)
        if not _OF_AN_OUTPUT.isdisjoint(inside):
            raise ConfigError(
                f"{key}: {files.show('')} lies inside the output {outer.show('')}: readers of "
                "that output would read the rows of this one too. Choose a path outside it."
            )
