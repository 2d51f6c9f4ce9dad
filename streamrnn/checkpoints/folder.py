"""The output folder of a run: rows go in, commits come out."""

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa

from streamrnn.checkpoints.area import INSIDE, LOCK, STAGING, Area
from streamrnn.checkpoints.lock import Lock
from streamrnn.checkpoints.manifest import (
    Manifest,
    Shard,
    StateFile,
    UsedFile,
    encode_schema,
    with_used,
)
from streamrnn.checkpoints.reading import MANIFEST, find_manifest
from streamrnn.checkpoints.resume import check_same, check_schema, plain
from streamrnn.checkpoints.starting import (
    free_number,
    has_manifest,
    last_manifest,
    refuse_strangers,
)
from streamrnn.checkpoints.used import SourcePlan, plan_sources, readings_of
from streamrnn.checkpoints.versions import (
    Snapshot,
    Taken,
    check_shards,
    read_schema,
    read_shards,
    take,
    write_version,
)
from streamrnn.config import rejects_beside, value_of
from streamrnn.errors import CheckpointError, SinkError
from streamrnn.sinks import Part, PartWriter
from streamrnn.sources import FileSource, Position, Reading, SourceFile, canonical_name
from streamrnn.storage.opening import open_files

NOT_OURS = "what it holds is not of this output"


class OutputFolder:
    """An output folder, locked for this run. Make it with `open`; leave it with `close` or `with`.

    `manifest` is the last commit (None before the first), `recovered` says what the start had to
    put right (empty after a clean end). Not for use by two threads at once.
    """

    def __init__(self, path: str, rejects: str | None, keep: int) -> None:
        self.path = path
        self.rejects_path = rejects or ""
        self.keep = keep
        self.manifest: Manifest | None = None
        self.recovered: list[str] = []
        self.rows = Area(open_files(path))
        self.rejects = Area(open_files(rejects or rejects_beside(path)))
        self._files = self.rows.files
        self._locks: list[tuple[Area, Lock]] = []
        self._new_folders: list[Area] = []
        self._schema: pa.Schema | None = None
        self._model = ""
        self._config: dict[str, Any] = {}
        self._state_schema: pa.Schema | None = None
        self._writer: PartWriter | None = None
        self._rejects_writer: PartWriter | None = None
        self._known: tuple[UsedFile, ...] | None = None  # None: not looked at by this run
        self._forced: dict[SourceFile, Reading | None] = {}
        self._output = ""
        self._commit = 1
        self._settled = True
        self._broken = False

    @classmethod
    def open(
        cls,
        path: str,
        *,
        rejects: str | None = None,
        keep: int = 1,
        full_refresh: bool = False,
        check: Literal["all", "manifest"] = "all",
    ) -> "OutputFolder":
        """Lock the folder at `path` (made if it is not there) and put right what a dead run left.

        `rejects` is where rejected rows go (default: `path` + ".rejects"), `keep` how many earlier
        commits, and ends of earlier runs, can be gone back to. With `full_refresh` the folder
        counts as empty; what it holds is removed by the first commit.

        Sizes of all files and checksums of manifest and state are checked; with `check` "manifest"
        that alone is, and the folder is left as it is until a commit (for `rewind`). Raises
        CheckpointError when the folder is in use, damaged, or holds what is not ours; SinkError
        when it cannot be written.
        """
        folder = cls(path, rejects, keep)
        try:
            folder._start(full_refresh, check == "all")
        except BaseException:
            folder.close()
            raise
        return folder

    # -- the start ---------------------------------------------------------------------------

    def _start(self, full_refresh: bool, check: bool) -> None:
        self._refuse_strangers(full_refresh)
        self._take(self.rows)
        self._refuse_strangers(full_refresh)
        last = last_manifest(self._files, full_refresh)
        self._commit = free_number(self._files, last)
        self._output = last.output if last else secrets.token_hex(8)
        self._take_rejects(last, full_refresh)
        if full_refresh:
            self._settled = False
        elif last is None:
            for area, _ in self._locks:
                self._empty(area)
        else:
            self.manifest = last
            if check:
                self._check(last)
                self._recover(last)

    def _refuse_strangers(self, full_refresh: bool) -> None:
        if not has_manifest(self._files):
            refuse_strangers(self.rows, f"has no {MANIFEST}", ours_may_stay=full_refresh)

    def _take_rejects(self, last: Manifest | None, full_refresh: bool) -> None:
        """Lock the folder of rejects if it is there, unless it is another output's."""
        lost = full_refresh and last is None and bool(self.rows.strangers())
        if last is not None and last.rejects and not full_refresh:
            self._check_rejects_path(last)
        elif not lost and (last is None or self.rejects.owner() != last.output):
            if last is not None and not full_refresh and self.rejects.strangers():
                return  # `reject` refuses them, if there is ever a row to reject
            refuse_strangers(self.rejects, NOT_OURS)
        if INSIDE in self.rejects.files.entries(""):
            self._take(self.rejects)

    def _check(self, manifest: Manifest) -> None:
        self.rows.check(manifest.parts)
        if manifest.rejects:
            self.rejects.check(manifest.rejects)
        check_shards(self._files, INSIDE, manifest.shards, whole=True)
        for kept in manifest.kept:
            check_shards(self._files, INSIDE, kept.shards, whole=False)
        self._state_schema = read_schema(self._files, INSIDE, manifest.shards)

    def _empty(self, area: Area) -> None:
        area.settle(())
        for name in sorted(area.files.sizes(INSIDE).keys() - {"lock"}):
            area.files.delete(f"{INSIDE}/{name}")

    def _take(self, area: Area) -> None:
        if any(held is area for held, _ in self._locks):
            return
        if not area.files.entries(""):
            self._new_folders.append(area)
        area.prepare()
        self._locks.append((area, Lock(area.files, LOCK)))

    def _check_rejects_path(self, manifest: Manifest) -> None:
        if manifest.rejects_path != self.rejects_path:
            raise CheckpointError(
                f"the rejects of {self.path} are in "
                f"{manifest.rejects_path or rejects_beside(self.path)} "
                f"({manifest.rejected} rows); sink.rejects now says {self.rejects.path}. "
                "Change it back, or start over with --full-refresh."
            )

    def _recover(self, manifest: Manifest) -> None:
        finished, removed = self._settle(manifest)
        if finished:
            self.recovered.append(f"finished commit {manifest.commit}: {finished} parts in place")
        if removed:
            self.recovered.append(f"removed {removed} files that no commit names")

    def _settle(self, manifest: Manifest) -> tuple[int, int]:
        """Make the folder what the manifest says; how many parts were moved, and files removed."""
        finished, removed = self.rows.settle(manifest.parts)
        if any(held is self.rejects for held, _ in self._locks):
            more_finished, more_removed = self.rejects.settle(manifest.rejects)
            finished, removed = finished + more_finished, removed + more_removed
        named = manifest.state_names() | {"manifest.json", "lock"}
        for name in sorted(self._files.sizes(INSIDE).keys() - named):
            self._files.delete(f"{INSIDE}/{name}")
            removed += 1
        self._settled = True
        return finished, removed

    # -- what a run asks -----------------------------------------------------------------------

    def begin(self, schema: pa.Schema, *, model: str, config: Mapping[str, Any]) -> None:
        """Say what is about to write here: the schema of the rows, the model's fingerprint, the
        config (dotted key -> value). To be called once, before `write`.

        Raises CheckpointError with both sides when the last commit was made by another pipeline.
        """
        if self.manifest is not None:
            check_same(self.manifest, model, config, self.path)
            check_schema(self.manifest, schema, self.path)
        self._schema, self._model, self._config = schema, model, plain(config)

    @property
    def _format(self) -> str:
        return str(value_of("sink.format", self._config))

    @property
    def home(self) -> str:
        """Where this folder is, however its path was spelled."""
        return canonical_name(self.path)

    def check_sources(
        self, present: Sequence[SourceFile], reader: FileSource, *, force: bool = False
    ) -> SourcePlan:
        """What of the files `present` (in the order to read) is to be read, and from where.

        `reader` reads what it takes to know a used file again. Raises CheckpointError, naming them,
        when used files changed or new ones hold used rows (not with `force`), or when the file
        being read is gone.
        """
        plan = plan_sources(self.manifest, present, reader, home=self.home, force=force)
        readings = readings_of(plan, reader)
        rewritten = (file for rewrite in plan.rewritten for file in rewrite.new)
        self._known = plan.known
        self._forced = {f: readings.get(f.name) for f in (*plan.changed, *rewritten)}
        return plan

    def refresh_sources(self) -> None:
        """Commit what `check_sources` found of used files that are as they were.

        They are then known without being read again. What can be gone back to stays.
        """
        assert self.manifest is not None
        assert self._known is not None
        self.replace(sources=self._known, home=self.home, kept=self.manifest.kept)

    def load_state(self) -> pa.Table | None:
        """The state table of the last commit; None before the first, or where there is no state."""
        return read_shards(self._files, INSIDE, self.manifest.shards if self.manifest else ())

    # -- rows ----------------------------------------------------------------------------------

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, in the order of the output; readers find them after the next commit.

        Raises SinkError; what was written since the last commit is then as if never written.
        """
        if self._schema is None:
            raise ValueError("call begin() before write()")
        if self._writer is None:
            parts = self.manifest.parts if self.manifest else ()
            self._writer = self.rows.writer(self._schema, parts, self._commit, self._format)
        self._writer.write(batch)

    def reject(self, batch: pa.RecordBatch) -> None:
        """Add rows to the rejects; they are committed with the others. Raises SinkError."""
        if self._rejects_writer is None:
            if not any(held is self.rejects for held, _ in self._locks):
                refuse_strangers(self.rejects, NOT_OURS)
                self._take(self.rejects)
            self.rejects.mark(self._output)
            parts = self.manifest.rejects if self.manifest else ()
            self._rejects_writer = self.rejects.writer(
                batch.schema, parts, self._commit, self._format
            )
        self._rejects_writer.write(batch)

    def take(self, state: Snapshot) -> Taken:
        """Copy now what the next commit needs of the state, so that it can go on meanwhile.

        No other commit may come between. Raises StateError when a column is named like ours.
        """
        return take(state, self._last_state(), self._state_schema)

    def _last_state(self) -> tuple[StateFile, ...]:
        """The files that a version of the whole state may build on: those of the only shard."""
        shards = self.manifest.shards if self.manifest else ()
        return shards[0].files if len(shards) == 1 else ()

    # -- the commit ----------------------------------------------------------------------------

    def commit(
        self,
        *,
        state: Snapshot | Taken | None = None,
        sources: Sequence[SourceFile] = (),
        readings: Mapping[str, Reading] | None = None,
        position: Position | None = None,
        counters: Mapping[str, Any] | None = None,
        complete: bool = False,
    ) -> Manifest:
        """Commit the rows written, the position and the state, all together.

        `sources` are the files begun or finished since the last commit (it does no harm to name
        one again), `readings` what was read of them, by name; without a `position`, or with one at
        the end of a file, all files so far are done. `state` None leaves it as it is, `counters`
        None too. `complete` says that the input has ended: if there is no row at all, an empty part
        with the schema is written.

        Raises SinkError or CheckpointError; the folder takes no more rows or commits then, and the
        next start finds this commit either whole or not at all.
        """
        if self._schema is None:
            raise ValueError("call begin() before commit()")
        if self._broken:
            raise SinkError(f"{self.path}: an earlier commit of this run failed; start again")
        self._broken = True
        last = self.manifest
        parts, rejects = self._finish_parts(last, complete)
        shards = last.shards if last else ()
        if state is not None:
            taken = self.take(state) if isinstance(state, Snapshot) else state
            shards = (Shard(taken.rows, self._write_state(taken, self._last_state())),)
        manifest = Manifest(
            output=self._output,
            commit=self._commit,
            time=_now(),
            complete=complete,
            model=self._model,
            config=self._config,
            schema=encode_schema(self._schema),
            sources=self._used(sources, readings or {}),
            position=None if position is None or position.done else position,
            parts=(*(last.parts if last else ()), *parts),
            rejects_path=self.rejects_path,
            rejects=(*(last.rejects if last else ()), *rejects),
            shards=shards,
            counters=plain(counters if counters is not None else last.counters if last else {}),
            kept=last.kept_after(self.keep) if last else (),
            # Names in the manifest are as this run knows them only if it has looked.
            home=self.home if last is None or self._known is not None else last.home,
        )
        self._install(manifest, parts, rejects)
        self._forced = {}
        if self._known is not None:
            self._known = manifest.sources
        self._broken = False
        return manifest

    def _used(
        self, sources: Sequence[SourceFile], readings: Mapping[str, Reading]
    ) -> tuple[UsedFile, ...]:
        """All used files, those of the next commit among them."""
        known = self._known
        if known is None:
            known = self.manifest.sources if self.manifest else ()
        forced = {file.name: found for file, found in self._forced.items() if found is not None}
        return with_used(known, (*self._forced, *sources), {**forced, **readings})

    def replace(self, **changes: Any) -> Manifest:
        """Commit the last commit with some fields of its manifest changed: for maintenance.

        Parts that it names and that are new must be finished in staging. Everything else is as in
        `commit`. Raises SinkError, CheckpointError.
        """
        if self.manifest is None:
            raise CheckpointError(f"{self.path} has no commit yet, so nothing of it to replace")
        changes = {"kept": self.manifest.kept_after(self.keep), **changes}
        manifest = replace(self.manifest, commit=self._commit, time=_now(), **changes)
        self._settled = False
        self._install(manifest, (), ())
        return manifest

    def replace_state(self, table: pa.Table) -> Manifest:
        """Commit another state table in place of the last one; rows and position stay.

        Raises CheckpointError when nothing was committed yet, SinkError.
        """
        version = self._write_state(Taken(len(table), None, table), ())
        return self.replace(shards=(Shard(len(table), version),))

    def _write_state(self, taken: Taken, last: tuple[StateFile, ...]) -> tuple[StateFile, ...]:
        if taken.table is not None:
            self._state_schema = taken.table.schema
        return write_version(self._files, INSIDE, self._commit, taken, last)

    @property
    def next_commit(self) -> int:
        """The number that the next commit will have."""
        return self._commit

    def _finish_parts(
        self, last: Manifest | None, complete: bool
    ) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
        if complete and self._writer is None and not (last and last.parts):
            assert self._schema is not None
            self._writer = self.rows.writer(self._schema, (), self._commit, self._format)
        parts = (self._writer.finish(),) if self._writer else ()
        rejects = (self._rejects_writer.finish(),) if self._rejects_writer else ()
        self._writer = self._rejects_writer = None
        return parts, rejects

    def _install(self, manifest: Manifest, parts: Sequence[Part], rejects: Sequence[Part]) -> None:
        """Steps 3 to 5 of a commit, after syncing the names that the manifest relies on."""
        for area, lock in self._locks:
            if not self._settled or (parts if area is self.rows else rejects):
                area.sync_names()
            lock.renew()
        self._files.sync(INSIDE)
        self._refuse_another_writer()
        self._files.put(MANIFEST, manifest.to_bytes())
        last, self.manifest = self.manifest, manifest
        self._commit = manifest.commit + 1
        if not self._settled:
            self._settle(manifest)
            return
        self.rows.publish(parts)
        self.rejects.publish(rejects)
        gone = (last.state_names() if last else set()) - manifest.state_names()
        for name in sorted(gone):
            self._files.delete(f"{INSIDE}/{name}")

    def _refuse_another_writer(self) -> None:
        """On an object store, where the lock is a courtesy, look once more before it counts."""
        if self._files.local:
            return
        with suppress(CheckpointError):
            found = find_manifest(self._files)
            if found is None or found.commit < self._commit:
                return
        raise CheckpointError(
            f"{self.path}: another run has committed since this one started. Two runs must not "
            "write to one output; this one stops, and nothing of it is committed any more."
        )

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Give up what is not committed, and let others in. May be called again."""
        for writer in (self._writer, self._rejects_writer):
            if writer is not None:
                with suppress(SinkError):
                    writer.abandon()
        self._writer = self._rejects_writer = None
        while self._locks:
            area, lock = self._locks.pop()
            # A run that failed before its first commit leaves nothing behind.
            unused = area in self._new_folders and not has_manifest(self._files)
            with suppress(SinkError):
                try:
                    if unused:
                        self._empty(area)
                finally:
                    lock.release(remove=unused)
            if unused:
                for folder in (STAGING, INSIDE, ""):
                    area.files.clear(folder)

    def __enter__(self) -> "OutputFolder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
