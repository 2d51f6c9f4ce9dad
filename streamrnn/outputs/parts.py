"""What is done to an output folder between runs: look back, go back, merge parts, verify."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from streamrnn.checkpoints.attempt import draw_name
from streamrnn.checkpoints.directory import INSIDE, STAGING, PartDirectory
from streamrnn.checkpoints.folder import OutputFolder
from streamrnn.checkpoints.manifest import Manifest, RetainedCommit
from streamrnn.checkpoints.reading import consistent_read, read_manifest
from streamrnn.checkpoints.versions import check_shards
from streamrnn.config import rejects_beside
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.sinks import FORMATS, Part, PartWriter
from streamrnn.storage.files import Files
from streamrnn.storage.opening import open_files

_LOGGER = logging.getLogger("streamrnn.outputs")
# Parts below this size are merged until together they reach it.
SMALL_PART = 128 << 20
_BATCH_ROWS = 65536


@dataclass(frozen=True)
class Verified:
    """What `verify` has read and found as it was written."""

    commit: int
    parts: int
    rows: int
    rejected: int
    state_rows: int
    bytes: int


def history(path: str) -> list[RetainedCommit]:
    """The commits that `rewind` can go back to, oldest first, and last the one that stands.

    Raises CheckpointError when there is none, or the manifest is damaged.
    """
    manifest = read_manifest(path)
    return [*manifest.kept, manifest.as_kept()]


def verify(path: str, *, rejects: str | None = None) -> Verified:
    """Read every file that the last commit names and compare its checksum.

    A run may be at work meanwhile. Raises CheckpointError naming all files that are not as they
    were written, and files of rows that readers of the folder find and no commit names.
    """

    def look(manifest: Manifest, files: Files) -> Verified:
        beside = rejects or manifest.rejects_path or rejects_beside(path)
        wrong = _wrong_parts(PartDirectory(files), manifest.parts)
        if manifest.rejects:
            wrong += _wrong_parts(PartDirectory(open_files(beside)), manifest.rejects)
        for shards in (manifest.shards, *(kept.shards for kept in manifest.kept)):
            try:
                check_shards(files, INSIDE, shards, whole=True)
            except CheckpointError as error:
                wrong.append(str(error))
        wrong += _foreign(PartDirectory(files), manifest.parts)
        if wrong:
            raise CheckpointError("\n".join(dict.fromkeys(wrong)))
        return Verified(
            manifest.commit,
            len(manifest.parts),
            manifest.rows,
            manifest.rejected,
            manifest.state_rows,
            sum(part.bytes for part in (*manifest.parts, *manifest.rejects))
            + sum(file.bytes for shard in manifest.shards for file in shard.files),
        )

    return consistent_read(path, look)


def _foreign(directory: PartDirectory, parts: Sequence[Part]) -> list[str]:
    """What to say of files of rows that are not parts and not hidden from readers."""
    ours = {part.name for part in parts}
    suffixes = (".pq", *(format.suffix for format in FORMATS.values()))
    found = [
        name
        for name in directory.files.tree()
        if name.lower().endswith(suffixes)
        and name not in ours
        and not any(piece[0] in "._" for piece in name.split("/"))
    ]
    if not found:
        return []
    some = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    return [
        f"{directory.path} holds files of rows that no commit of it names: {some}. Whoever reads "
        "the folder reads their rows too. Move them elsewhere."
    ]


def _wrong_parts(directory: PartDirectory, parts: Sequence[Part]) -> list[str]:
    places = directory.locate(parts)
    found = {
        part: _digest(directory, places[part.name], part) for part in parts if part.name in places
    }
    return [directory.lost(part) for part in parts if part.name not in places] + [
        f"{directory.files.show(part.name)} is damaged: expected sha256 {part.sha256[:16]}…, "
        f"found {digest[:16]}…. Restore it from a backup, go back to before commit "
        f"{part.commit} with `streamrnn rewind`, or start over with --full-refresh."
        for part, digest in found.items()
        if digest != part.sha256
    ]


def _digest(directory: PartDirectory, place: str, part: Part) -> str:
    # A run may bring the part in its place, or back, between two looks.
    for name in (place, part.name, f"{STAGING}/{part.staged}"):
        with suppress(FileNotFoundError):
            return directory.files.sha256(name)
    return "nothing"


def rewind(path: str, to: int, *, rejects: str | None = None) -> Manifest:
    """Go back to commit `to` of `history`: rows after it are removed, state and position return.

    One commit like any other: killed at any moment it has happened or not. The folder may be
    damaged, as long as what that commit needs is not. Raises ConfigError when `to` is not kept,
    CheckpointError when the folder is in use or its state of then is damaged.
    """
    found = read_manifest(path)
    choice = {kept.commit: kept for kept in found.kept}
    if to not in choice:
        kept = (
            ", ".join(map(str, choice)) or "none: [checkpoint] keep was 0, or nothing came before"
        )
        raise ConfigError(f"{path} cannot go back to commit {to}. Kept are: {kept}.")
    with OutputFolder.open(
        path, rejects=rejects or found.rejects_path or None, check="manifest"
    ) as folder:
        manifest = folder.manifest
        if manifest is None or manifest.commit != found.commit:
            raise CheckpointError(f"{path} got a new commit meanwhile; look at the list again")
        target = choice[to]
        check_shards(folder.rows.files, INSIDE, target.shards, whole=True)
        return folder.replace(
            complete=target.complete,
            sources=manifest.sources[: target.sources],
            position=target.position,
            parts=_first_rows(folder, folder.rows, manifest.parts, target.rows),
            rejects=_first_rows(folder, folder.rejects, manifest.rejects, target.rejected),
            shards=target.shards,
            counters=target.counters,
            kept=tuple(kept for kept in manifest.kept if kept.commit < to),
        )


def _first_rows(
    folder: OutputFolder, directory: PartDirectory, parts: Sequence[Part], rows: int
) -> tuple[Part, ...]:
    """The parts that hold the first `rows` rows; one that was merged over that end is cut."""
    stay: list[Part] = []
    for part in parts:
        # An empty first part stands for an output without rows.
        if rows <= 0 and (part.rows or stay):
            break
        if part.rows > rows:
            part = _write_again(folder, directory, part.name, [part], rows)
        stay.append(part)
        rows -= part.rows
    return tuple(stay)


def compact(path: str, *, rejects: str | None = None, small: int = SMALL_PART) -> Manifest | None:
    """Merge neighbouring parts that are smaller than `small` bytes, until they are not.

    Rows and their order stay; it is one commit. While parts change places a reader finds fewer
    rows for a moment (a prefix of them, as ever). Returns None when there is nothing to merge.
    Raises CheckpointError when the folder is in use or damaged, SinkError.
    """
    found = read_manifest(path)
    with OutputFolder.open(path, rejects=rejects or found.rejects_path or None) as folder:
        return merge_small_parts(folder, small=small)


def merge_small_parts(
    folder: OutputFolder, *, least: int = 2, small: int = SMALL_PART
) -> Manifest | None:
    """What `compact` does, in a folder that is open, between two commits of its run.

    Does nothing, and returns None, while fewer than `least` parts would become fewer.
    """
    manifest = folder.manifest
    if manifest is None:
        return None
    groups = [list(_groups(parts, small)) for parts in (manifest.parts, manifest.rejects)]
    if max(len(group) for found in groups for group in [[], *found]) < max(2, least):
        return None
    parts = _merge(folder, folder.rows, groups[0])
    rejected = _merge(folder, folder.rejects, groups[1])
    before, after = len(manifest.parts) + len(manifest.rejects), len(parts) + len(rejected)
    _LOGGER.debug("%s: merged %d parts into %d", folder.path, before, after)
    return folder.replace(parts=parts, rejects=rejected, kept=manifest.kept)


def _merge(
    folder: OutputFolder, directory: PartDirectory, groups: Sequence[list[Part]]
) -> tuple[Part, ...]:
    return tuple(
        group[0]
        if len(group) == 1
        else _write_again(folder, directory, group[0].name, group, sum(part.rows for part in group))
        for group in groups
    )


def _groups(parts: Sequence[Part], small: int) -> Iterator[list[Part]]:
    group: list[Part] = []
    for part in parts:
        if group and (part.bytes >= small or sum(item.bytes for item in group) >= small):
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _write_again(
    folder: OutputFolder, directory: PartDirectory, name: str, parts: Sequence[Part], rows: int
) -> Part:
    """A part in staging with the first `rows` rows of the given ones, read a batch at a time."""
    if wrong := _wrong_parts(directory, parts):
        raise CheckpointError("\n".join(wrong))  # or the new part's checksum would bless it
    writer: PartWriter | None = None
    places = directory.locate(parts)
    try:
        for part in parts:
            with directory.files.open(places.get(part.name, part.name)) as source:
                for batch in part.format.batches(source, _BATCH_ROWS):
                    batch = batch.slice(0, rows)
                    rows -= batch.num_rows
                    attempt = draw_name(folder.next_commit)
                    writer = writer or directory.writer(batch.schema, attempt, part.format)
                    writer.write(batch)
        assert writer is not None
        return writer.finish().placed(name, folder.next_commit)
    except (pa.ArrowException, FileNotFoundError) as error:
        raise CheckpointError(
            f"{directory.path}: a part cannot be read: {error}. "
            f"See `streamrnn verify {folder.path}`."
        ) from error
    finally:
        if writer is not None:
            writer.abandon()
