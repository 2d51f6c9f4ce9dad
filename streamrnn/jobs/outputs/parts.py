"""Verify the parts of an output folder, and merge small ones, between runs."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import pyarrow as pa

from streamrnn.base.display import count, first_of, location
from streamrnn.base.storage.files import Files
from streamrnn.base.storage.store import AnyPath, open_files
from streamrnn.errors import CheckpointError, PublishError
from streamrnn.jobs.outputs.publisher import Publisher
from streamrnn.stream.checkpoints import partitioning_of
from streamrnn.stream.checkpoints.attempt import draw_name
from streamrnn.stream.checkpoints.directory import RESTORE, STAGING, PartDirectory
from streamrnn.stream.checkpoints.folder import OutputFolder
from streamrnn.stream.checkpoints.manifest import Manifest
from streamrnn.stream.checkpoints.partitioning import layout_in, row_directory
from streamrnn.stream.checkpoints.reading import consistent_read
from streamrnn.stream.checkpoints.versions import check_shards, read_shards
from streamrnn.stream.config import SIDE_OUTPUTS
from streamrnn.stream.sinks import PART_FORMATS, Part, PartFormat, PartWriter
from streamrnn.stream.sources.content import Content, sum_of
from streamrnn.stream.sources.tables import DELTA_LOG

_LOGGER = logging.getLogger("streamrnn.outputs")
# Parts below this size are merged until together they reach it.
SMALL_PART = 128 << 20
_BATCH_ROWS = 65536
READ_ROWS = 131072
"""Number of rows of a record batch of `part_batches`."""
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Verified:
    """What `verify` has read and found intact.

    `rows_checksum` and `state_checksum` cover the decoded values, whatever the order of the rows
    and their division into parts: outputs with equal rows and states have equal checksums. `live`
    rows were scored in sessions. `behind`: how tables of [publish] differ from the output; `left`
    describes a table in the folder that is not in [publish].
    """

    commit: int
    parts: int
    rows: int
    rejected: int
    state_rows: int
    bytes: int
    rows_checksum: str
    state_checksum: str
    live: int = 0
    behind: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def verify(path: AnyPath, *, rejects: AnyPath | None = None) -> Verified:
    """Read every file that the last commit names, and check its checksum and number of rows.

    A run may write meanwhile. `rejects` is the folder of rejected rows (default: as in the last
    commit). Tables of [publish] are compared by the files that they list; differences are returned,
    not raised, as a table is behind for a moment while a run commits. Raises CheckpointError, which
    names all missing or damaged files and, for each folder, up to 5 files with rows that readers
    find but no commit names.

    >>> found = verify("out/weather")
    >>> found.commit, found.parts, found.rows, found.state_rows
    (2, 2, 80, 3)
    """
    path = os.fspath(path)

    def read(manifest: Manifest, files: Files) -> Verified:
        directories = {"rows": row_directory(manifest, files)}
        for name, place in manifest.side_folders(path, rejects=rejects).items():
            directories[name] = PartDirectory(open_files(place))
        wrong = []
        for name, directory in directories.items():
            parts = manifest.named(name).parts
            wrong += _wrong_parts(directory, parts)
            copies = name in SIDE_OUTPUTS and SIDE_OUTPUTS[name].where
            if copies and (parts or directory.owner() == manifest.output):
                wrong += _foreign(directory, parts)
        for shards in (manifest.shards, *(kept.shards for kept in manifest.kept)):
            try:
                check_shards(files, shards, whole=True)
            except CheckpointError as error:
                wrong.append(str(error))
        wrong += _foreign(directories["rows"], manifest.parts)
        if wrong:
            raise CheckpointError("\n".join(dict.fromkeys(wrong)))
        states = read_shards(files, manifest.shards)
        tables = Publisher.of(manifest.config, path)
        return Verified(
            manifest.commit,
            len(manifest.parts),
            manifest.rows,
            manifest.named("rejects").rows,
            manifest.state_rows,
            sum(part.bytes for output in manifest.outputs.values() for part in output.parts)
            + sum(file.bytes for shard in manifest.shards for file in shard.files),
            _checksum(batch for _, batch in part_batches(path, manifest)),
            _checksum(() if states is None else states.to_batches()),
            manifest.live,
            tuple(tables.problems(manifest)),
            tuple(tables.abandoned_tables({"publish.delta": bool(files.entries(DELTA_LOG))})),
        )

    return consistent_read(path, read)


def _checksum(batches: Iterable[pa.RecordBatch]) -> str:
    return f"{sum_of(Content.of(batch, None) for batch in batches).digest:016x}"


def _foreign(directory: PartDirectory, parts: Sequence[Part]) -> list[str]:
    """Describe data files that are not parts, but that readers of the folder see."""
    ours = {part.name for part in parts}
    suffixes = (".pq", *(format.suffix for format in PART_FORMATS.values()))
    foreign = [
        name
        for name in directory.files.tree()
        if name.lower().endswith(suffixes)
        and name not in ours
        and not any(piece[0] in "._" for piece in name.split("/"))
    ]
    if not foreign:
        return []
    return [
        f"{directory.path} holds files with rows that none of its commits names: "
        f"{first_of(foreign, 5)}. Readers of the folder find these rows, too. Move the files "
        "elsewhere."
    ]


def _wrong_parts(directory: PartDirectory, parts: Sequence[Part]) -> list[str]:
    locations = directory.locate(parts)
    return [directory.lost(part) for part in parts if part.name not in locations] + [
        f"{directory.files.show(part.name)} {fault}"
        for part in parts
        if part.name in locations and (fault := _fault(directory, locations[part.name], part))
    ]


def _fault(directory: PartDirectory, location: str, part: Part) -> str:
    """Describe how a file differs from what the manifest records; "" if it does not."""
    digest = _read(directory.files.sha256, location, part) or "nothing"
    if digest != part.sha256:
        return (
            f"is damaged: expected sha256 {part.sha256[:16]}…, found {digest[:16]}… (commit "
            f"{part.commit}). {RESTORE}"
        )
    expected = count(part.rows, "row")
    rows = _read(partial(_rows, directory.files, part.format), location, part)
    if rows in (expected, None):
        return ""
    return (
        f"has {rows}, expected {expected} as in the manifest, which was edited. Restore the "
        "manifest from a backup, or start over with --full-refresh."
    )


def _rows(files: Files, format: PartFormat, name: str) -> str:
    """Return the number of rows of a file in words."""
    with suppress(pa.ArrowException), files.open(name) as file:
        return count(format.rows(file), "row")
    return "no readable rows"


def _read(read: Callable[[str], _Found], location: str, part: Part) -> _Found | None:
    """Read the file of a part; None if a run has removed it meanwhile."""
    # A run may move the part into place, or back to staging, meanwhile.
    for name in (location, part.name, f"{STAGING}/{part.staged}"):
        with suppress(FileNotFoundError):
            return read(name)
    return None


def compact(
    path: AnyPath, *, rejects: AnyPath | None = None, small: int = SMALL_PART
) -> Manifest | None:
    """Merge adjacent parts that are smaller than `small` bytes, in one commit.

    Rows and their order stay as they are. In a partitioned output, parts are merged within a
    partition, and not across retained commits, because `rewind` keeps the first parts. While parts
    are replaced, readers find a prefix of the rows. Returns None if there is nothing to merge.
    Raises CheckpointError if the folder is in use or damaged; SinkError; PublishError if the parts
    are merged, but a table of [publish] could not be updated.

    >>> manifest = compact("out/weather")
    >>> len(manifest.parts), manifest.rows
    (1, 80)
    """
    path = os.fspath(path)
    with OutputFolder.reopen(path, rejects=rejects) as folder:
        assert folder.manifest is not None
        tables = Publisher.of(folder.manifest.config, path)
        up_to_date = True
        try:
            tables.publish(folder.manifest)
        except PublishError as error:
            up_to_date = False
            _LOGGER.warning("%s", error)
        manifest = merge_small_parts(folder, small=small)
        if manifest is not None:
            tables.publish(manifest, merged=up_to_date)
        return manifest


def merge_small_parts(
    folder: OutputFolder, least: int = 2, small: int = SMALL_PART, *, across: bool = False
) -> Manifest | None:
    """Merge small parts of an open folder, between two commits of its run.

    Does nothing and returns None unless at least `least` parts can be merged in some partition.
    With `across`, parts of a partitioned output are also merged across the commits within a run:
    then only the commits at the ends of runs stay retained.
    """
    manifest = folder.manifest
    if manifest is None:
        return None
    kept, partitioned = manifest.kept, bool(layout_in(manifest.config))
    if across and partitioned:
        kept = tuple(commit for commit in kept if commit.end_of_run)
    ends = {commit.rows for commit in kept} if partitioned else set()
    groups = {
        name: _groups(output.parts, small, ends if name == "rows" else ())
        for name, output in manifest.outputs.items()
    }
    numbers = Counter[tuple[str, str]]()
    for name, lists in groups.items():
        for group in lists:
            numbers[name, group[0].folder] += len(group) if len(group) > 1 else 0
    if max(numbers.values(), default=0) < least:
        return None
    outputs = {}
    for name, output in manifest.outputs.items():
        directory = folder.directories[name]
        parts = tuple(
            rewritten(folder, directory, group[0].name, group, sum(part.rows for part in group))
            if len(group) > 1
            else group[0]
            for group in groups[name]
        )
        outputs[name] = replace(output, parts=parts)
    before, after = (
        sum(len(out.parts) for out in of.values()) for of in (manifest.outputs, outputs)
    )
    _LOGGER.debug("%s: merged %d parts into %d", folder.path, before, after)
    return folder.replace(outputs=outputs, kept=kept, end_of_run=manifest.end_of_run)


def _groups(parts: Sequence[Part], small: int, ends: Collection[int]) -> list[list[Part]]:
    """Return the groups of parts to merge, by their first parts.

    A group is of one partition and one model, and does not cross `ends` (in rows).
    """
    groups: list[list[Part]] = []
    last: dict[tuple[int, str], list[Part]] = {}
    rows = crossed = 0
    for part in parts:
        crossed += rows in ends
        group = last.get((crossed, part.folder), [])
        full = part.bytes >= small or sum(item.bytes for item in group) >= small
        if not group or full or part.model != group[0].model:
            group = last[crossed, part.folder] = []
            groups.append(group)
        group.append(part)
        rows += part.rows
    return groups


def rewritten(
    folder: OutputFolder, directory: PartDirectory, name: str, parts: Sequence[Part], rows: int
) -> Part:
    """Write the first `rows` rows of the parts to a new part in staging, batch by batch.

    A column that has a type in only some of the parts, and no values in the others, gets that type;
    one of integers in some and floats in others has floats.
    """
    if wrong := _wrong_parts(directory, parts):
        raise CheckpointError("\n".join(wrong))  # otherwise the new checksum would hide the damage
    writer: PartWriter | None = None
    locations = directory.locate(parts)
    places = [locations.get(part.name, part.name) for part in parts]
    try:
        schemas = []
        for part, place in zip(parts, places, strict=True):
            with directory.files.open(place) as source:
                schemas.append(part.format.schema(source))
        schema = pa.unify_schemas(schemas, promote_options="permissive")
        for part, place in zip(parts, places, strict=True):
            with directory.files.open(place) as source:
                for batch in part.format.batches(source, _BATCH_ROWS):
                    batch = batch.slice(0, rows).cast(schema)
                    rows -= batch.num_rows
                    attempt = draw_name(folder.next_commit)
                    writer = writer or directory.writer(schema, attempt, part.format)
                    writer.write(batch)
        assert writer is not None
        return writer.finish().placed(name, folder.next_commit, parts[0].model)
    except (pa.ArrowException, FileNotFoundError) as error:
        raise CheckpointError(
            f"{directory.path}: a part cannot be read: {error}. "
            f"Run `streamrnn verify {folder.path}`."
        ) from error
    finally:
        if writer is not None:
            writer.abandon()


def part_batches(
    path: str,
    manifest: Manifest,
    columns: Sequence[str] | None = None,
    parts: Sequence[Part] | None = None,
) -> Iterator[tuple[Part, pa.RecordBatch]]:
    """Read the parts of a folder in order, with the `columns` that a part or its folders have.

    `parts` defaults to the output's parts; others, such as rejects, are not partitioned. Raises
    CheckpointError for a missing or damaged part.
    """
    files = open_files(path)
    partitioning = partitioning_of(manifest) if parts is None else None
    directory = row_directory(manifest, files) if parts is None else PartDirectory(files)
    wanted = manifest.parts if parts is None else parts
    stored = columns
    if partitioning is not None and columns is not None:
        names = partitioning.file_schema.names
        stored = [name for name in columns if name in names] or names[:1]  # else no rows are read
    locations = directory.locate(wanted)
    for part in wanted:
        if part.name not in locations:
            raise CheckpointError(directory.lost(part))
        try:
            with directory.files.open(locations[part.name]) as source:
                for batch in part.format.batches(source, READ_ROWS, stored):
                    if partitioning is not None:
                        batch = partitioning.complete(batch, part.name)
                    yield part, batch
        except (pa.ArrowException, FileNotFoundError) as error:
            raise CheckpointError(
                f"{directory.files.show(part.name)} cannot be read: {error}. "
                f"Run `streamrnn verify {location(path)}`."
            ) from error
