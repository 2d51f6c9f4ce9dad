"""What a start looks at: is the folder ours, is it whole, and which number comes next."""

import re
from contextlib import suppress

from streamrnn.checkpoints.directory import INSIDE, STAGING, PartDirectory
from streamrnn.checkpoints.manifest import Manifest
from streamrnn.checkpoints.reading import find_manifest
from streamrnn.checkpoints.versions import check_shards
from streamrnn.config import rejects_beside
from streamrnn.errors import CheckpointError
from streamrnn.storage.files import Files

NOT_OURS = "what it holds is not of this output"
_NUMBERED = re.compile(r"(?:state-)?(\d+)[-.]")


def has_manifest(files: Files) -> bool:
    """Whether a run committed here, be the manifest damaged or not."""
    return "manifest.json" in files.entries(INSIDE)


def last_manifest(files: Files, full_refresh: bool) -> Manifest | None:
    """The last commit, if there is one. Raises CheckpointError for a damaged one, unless it is
    to be replaced: then None."""
    with suppress(*[CheckpointError] if full_refresh else []):
        return find_manifest(files)
    return None


def refuse_foreign_entries(
    directory: PartDirectory, why: str, *, ours_may_stay: bool = False
) -> None:
    """Raise CheckpointError if a folder holds anything but our leftovers.

    `ours_may_stay`: parts named like ours, beside our own folder, are let pass as well.
    """
    found = directory.foreign_entries()
    if found and not (ours_may_stay and directory.only_our_files()):
        some = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
        raise CheckpointError(
            f"{directory.path} is not empty and {why}: {some}. "
            "Name an empty or new directory, or empty this one."
        )


def free_number(files: Files, last: Manifest | None) -> int:
    """The number of the next commit: no file of ours has it, even where no manifest can say."""
    if last is not None:
        return last.commit + 1
    names = [*files.entries(INSIDE), *files.entries(STAGING)]
    return 1 + max((int(n[1]) for name in names if (n := _NUMBERED.match(name))), default=0)


def check_files(rows: PartDirectory, rejects: PartDirectory, manifest: Manifest) -> None:
    """Raise CheckpointError unless all files have their sizes, and those of the state the bytes,
    that the manifest says."""
    rows.check(manifest.parts)
    if manifest.rejects:
        rejects.check(manifest.rejects)
    check_shards(rows.files, INSIDE, manifest.shards, whole=True)
    for kept in manifest.kept:
        check_shards(rows.files, INSIDE, kept.shards, whole=False)


def are_our_rejects(
    rows: PartDirectory,
    rejects: PartDirectory,
    rejects_path: str,
    last: Manifest | None,
    full_refresh: bool,
) -> bool:
    """Whether the folder of rejects is to be locked: it is there, and not another output's.

    Raises CheckpointError when it holds what is not ours, or the rejects so far are elsewhere.
    """
    lost = full_refresh and last is None and bool(rows.foreign_entries())
    if last is not None and last.rejects and not full_refresh:
        _check_rejects_path(rows, rejects, rejects_path, last)
    elif not lost and (last is None or rejects.owner() != last.output):
        if last is not None and not full_refresh and rejects.foreign_entries():
            return False  # they are refused if there is ever a row to reject
        refuse_foreign_entries(rejects, NOT_OURS)
    return INSIDE in rejects.files.entries("")


def _check_rejects_path(
    rows: PartDirectory, rejects: PartDirectory, rejects_path: str, last: Manifest
) -> None:
    if last.rejects_path != rejects_path:
        raise CheckpointError(
            f"the rejects of {rows.path} are in {last.rejects_path or rejects_beside(rows.path)} "
            f"({last.rejected} rows); sink.rejects now says {rejects.path}. "
            "Change it back, or start over with --full-refresh."
        )


def refuse_another_writer(files: Files, commit: int) -> None:
    """On an object store, where the lock is a courtesy, look once more before `commit` counts."""
    if files.local:
        return
    with suppress(CheckpointError):
        found = find_manifest(files)
        if found is None or found.commit < commit:
            return
    raise CheckpointError(
        f"{files.show('')}: another run has committed since this one started. Two runs must not "
        "write to one output; this one stops, and nothing of it is committed any more."
    )
