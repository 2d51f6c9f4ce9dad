"""The two halves of a commit: attempts of workers at shards, and the ledger of the driver.

Nothing is committed before the driver commits the facts (`OutputFolder.commit`). The shard of a
commit may be written more than once: a worker presumed dead may wake up, or outlive its run. So
each attempt draws a random token for its file names, and never opens existing files.
"""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType

import pyarrow as pa

from streamrnn.base.storage.store import open_files
from streamrnn.errors import SinkError
from streamrnn.stream.checkpoints.directory import (
    INSIDE,
    LOCK,
    MANIFEST,
    STAGING,
    PartDirectory,
    is_later,
    name_inside,
)
from streamrnn.stream.checkpoints.filters import row_filters
from streamrnn.stream.checkpoints.lock import LockSet
from streamrnn.stream.checkpoints.manifest import Manifest, Shard, StateFile
from streamrnn.stream.checkpoints.partitioning import layout_in
from streamrnn.stream.checkpoints.records import write_segments
from streamrnn.stream.checkpoints.starting import refuse_another_writer
from streamrnn.stream.checkpoints.versions import (
    Snapshot,
    StateDelta,
    delta_since,
    read_schema,
    write_version,
)
from streamrnn.stream.sinks import (
    PART_FORMATS,
    Part,
    PartitionedWriter,
    Partitioning,
    PartWriter,
    StagedPart,
)


@dataclass(frozen=True)
class Facts:
    """What an attempt at commit number `commit` has finished, as plain values.

    `parts`: name of an output -> its parts, in staging. `state` is the version of the shard's state
    after these rows (None: the state is unchanged).
    """

    commit: int
    shard: int
    parts: Mapping[str, tuple[StagedPart, ...]]
    state: Shard | None


def draw_name(commit: int, shard: int = 0) -> str:
    """Draw a unique name for the files of one attempt."""
    return f"{commit:05d}-{shard:03d}-{secrets.token_hex(8)}"


class Attempt:
    """Writes one shard of one commit: its parts into staging, its state beside the manifest.

    An attempt needs no lock, and changes only its own files; the next start removes them if the
    attempt's facts were not committed. `places`: name of an output -> its folder (a worker passes
    the paths of folders that its driver has created). `last`: the files of the shard's last state.
    `filters`: name of a side output -> the filter that chooses the rows copied to it. Use an
    attempt in one thread only. Methods raise SinkError; `write` also raises DataError, for a value
    that cannot name a partition folder.
    """

    def __init__(
        self,
        places: Mapping[str, PartDirectory | str],
        *,
        schema: pa.Schema,
        format: str,
        commit: int,
        shard: int = 0,
        last: Sequence[StateFile] = (),
        partitioning: Partitioning | None = None,
        filters: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.commit = commit
        self.shard = shard
        self._directories = {
            name: PartDirectory(open_files(place)) if isinstance(place, str) else place
            for name, place in places.items()
        }
        self._rows = self._directories["rows"]
        self._schema = schema
        self._format = PART_FORMATS[format]
        self._last = last
        self._name = draw_name(commit, shard)
        self._partitioning = partitioning
        self._filters = row_filters(filters, schema)
        self._writers: dict[str, PartWriter | PartitionedWriter] = {}
        self._ended: list[StagedPart] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, in the order of the output; side outputs get those that pass their filters."""
        if self._partitioning is not None and "rows" not in self._writers:
            self._writers["rows"] = self._partitioned(self._partitioning)
        self._write_to("rows", self._schema, batch)
        for name, passes in self._filters.items():
            for copies in pa.Table.from_batches([batch]).filter(passes).to_batches():
                self._write_to(name, self._schema, copies)

    def reject(self, batch: pa.RecordBatch) -> None:
        """Add rows to the rejects, in a new part if a column got its type since the last rows."""
        writer = self._writers.get("rejects")
        if isinstance(writer, PartWriter) and writer.schema != batch.schema:
            self._ended.append(writer.finish())
            self._name = draw_name(self.commit, self.shard)
            del self._writers["rejects"]
        self._write_to("rejects", batch.schema, batch)

    def _write_to(self, name: str, schema: pa.Schema, batch: pa.RecordBatch) -> None:
        if name not in self._writers:
            directory = self._directories[name]
            self._writers[name] = directory.writer(schema, self._name, self._format)
        self._writers[name].write(batch)

    def _partitioned(self, partitioning: Partitioning) -> PartitionedWriter:
        schema = partitioning.file_schema

        def create(folder: str, number: int) -> PartWriter:
            return self._rows.writer(schema, f"{self._name}-{number:05d}", self._format, folder)

        spill = f"{STAGING}/_{self._name}-spill"
        return PartitionedWriter(self._rows.files, partitioning, create, spill)

    def delta(self, state: Snapshot) -> StateDelta:
        """Copy what this attempt must write of its shard's state; the state may change afterwards.

        Raises StateError if a column has a reserved name.
        """
        schema = read_schema(self._rows.files, self._last) if self._last else None
        return delta_since(state, self._last, schema)

    def finish(self, state: StateDelta | None) -> Facts:
        """Close and sync the parts, but not their names; write the state unless it is None."""
        ended = {name: writer.finish() for name, writer in self._writers.items()}
        parts = {name: e if isinstance(e, tuple) else (e,) for name, e in ended.items()}
        if self._ended:
            parts["rejects"] = (*self._ended, *parts["rejects"])
        shard = None
        if state is not None:
            name = f"_state-{self._name}.arrow"
            version = write_version(self._rows.files, name, state, self._last)
            shard = Shard(state.rows, version)
        return Facts(self.commit, self.shard, parts, shard)

    def abandon(self) -> None:
        """Close all files, finished or not."""
        for writer in self._writers.values():
            with suppress(SinkError):
                writer.abandon()


def in_order(facts: Sequence[Facts], commit: int) -> list[Facts]:
    """Sort facts by shard.

    Raises ValueError unless all are from this commit, one for each shard from 0 on.
    """
    if late := [item for item in facts if item.commit != commit]:
        raise ValueError(
            f"expected facts of commit {commit}, received facts of commit {late[0].commit} for "
            f"shard {late[0].shard}: these rows and this state do not follow the last commit"
        )
    ordered = sorted(facts, key=lambda item: item.shard)
    shards = [item.shard for item in ordered]
    if not shards or shards != list(range(len(shards))):
        raise ValueError(f"expected facts of shards 0, 1, 2, … once each, received {shards}")
    return ordered


def shards_after(last: Sequence[Shard], facts: Sequence[Facts]) -> tuple[Shard, ...]:
    """Return the shards of the state when `facts`, in order, are committed after `last`.

    Raises ValueError if only some `facts` have a state, and `last` does not have the others.
    """
    if all(item.state is None for item in facts):
        return tuple(last)
    before = last if len(last) == len(facts) else [None] * len(facts)
    states = [item.state or old for item, old in zip(facts, before, strict=True)]
    shards = tuple(state for state in states if state is not None)
    if len(shards) < len(facts):
        raise ValueError(
            f"expected a state for each shard, received none for shard {states.index(None)}, "
            "neither in the facts nor in the last commit"
        )
    return shards


class Ledger:
    """The commits of one output.

    `manifest` is the last commit (None before the first), `next_commit` the number of the next one;
    `reconciled`: the folder matches the manifest. Methods raise SinkError, and CheckpointError if
    another run committed meanwhile.
    """

    def __init__(self, directories: Mapping[str, PartDirectory], locks: LockSet) -> None:
        self.manifest: Manifest | None = None
        self.next_commit = 1
        self.reconciled = True
        self._directories = directories
        self._locks = locks
        self._rows = directories["rows"]
        self._files = self._rows.files

    def reconcile(self, manifest: Manifest, *, running: bool = False) -> tuple[int, int]:
        """Make the folder match the manifest; return the numbers of parts moved and files removed.

        With `running`, files of attempts at later commits belong to the current run, and stay.
        """
        after = manifest.commit if running else None
        finished = removed = 0
        for name, directory in self._directories.items():
            if directory in self._locks:
                moved, deleted = directory.reconcile(manifest.named(name).parts, after)
                finished, removed = finished + moved, removed + deleted
        present = self._files.sizes(INSIDE).keys()
        named = manifest.file_names() | {name_inside(MANIFEST), name_inside(LOCK)}
        unnamed = sorted(name for name in present - named if not is_later(name, after))
        for name in unnamed:
            self._files.delete(f"{INSIDE}/{name}")
        self.reconciled = True
        return finished, removed + len(unnamed)

    def install(self, manifest: Manifest) -> Manifest:
        """Do steps 3 to 5 of a commit, after syncing the names that the manifest relies on.

        Returns the manifest with its segments. If the folder is reconciled, new parts must follow
        the parts of the last commit. Parts whose names change are moved back to staging before the
        manifest is written: both the old and the new manifest find them there.
        """
        last = self.manifest
        new: dict[str, tuple[Part, ...]] = {}
        renamed: list[tuple[PartDirectory, tuple[Part, ...]]] = []
        for name, directory in self._directories.items():
            before = last.named(name).parts if last else ()
            now = manifest.named(name).parts
            new[name] = now[len(before) :]
            if before and now and before[0].width != now[0].width:
                renamed.append((directory, before))
        if renamed:
            self.reconciled = False
        self._rows.make_folders(new["rows"])
        for name, directory in self._directories.items():
            if directory in self._locks and (not self.reconciled or new[name]):
                directory.sync_names()
        manifest = self._with_segments(manifest)
        self._locks.renew()
        self._files.sync(INSIDE)
        refuse_another_writer(self._files, self.next_commit)
        for directory, before in renamed:
            directory.withdraw(before)
        layouts = frozenset([layout_in(manifest.config)])
        if not self.reconciled:  # if this run dies, the next one finds what to remove
            for name, directory in self._directories.items():
                if name != "rows" and directory in self._locks:
                    directory.mark(manifest.output)
        if self._rows.layouts != layouts:  # parts in other layouts are removed below
            self._rows.keep_layouts()
        self._files.put(MANIFEST, manifest.to_bytes())
        self.manifest = manifest
        self.next_commit = manifest.commit + 1
        if not self.reconciled:
            self.reconcile(manifest, running=True)
            self._rows.layouts = layouts
            return manifest
        for name, directory in self._directories.items():
            directory.publish(new[name])
        gone = (last.file_names() if last else set()) - manifest.file_names()
        for name in sorted(gone):
            self._files.delete(f"{INSIDE}/{name}")
        return manifest

    def _with_segments(self, manifest: Manifest) -> Manifest:
        """Write the segments that a manifest's lists need; return the manifest with segments."""
        last, token, segments = self.manifest, secrets.token_hex(8), {}
        for name, entries in manifest.lists.items():
            file = f"{INSIDE}/_{name}-{manifest.commit:05d}-{token}"
            old = last.segments.get(name, ()) if last else ()
            before = last.lists.get(name, ()) if last else ()
            if items := write_segments(self._files, file, old, before, entries):
                segments[name] = items
        return replace(manifest, segments=segments)
