"""The output folder of a run: write rows, and commit them."""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

import pyarrow as pa

from streamrnn.base.display import count, location
from streamrnn.base.storage.store import AnyPath, open_files
from streamrnn.errors import CheckpointError, SinkError
from streamrnn.stream.checkpoints.attempt import (
    Attempt,
    Facts,
    Ledger,
    draw_name,
    in_order,
    shards_after,
)
from streamrnn.stream.checkpoints.directory import MANIFEST, PartDirectory
from streamrnn.stream.checkpoints.filters import row_filters
from streamrnn.stream.checkpoints.lock import LockSet, empty, now
from streamrnn.stream.checkpoints.manifest import (
    Manifest,
    NamedOutput,
    SeenFiles,
    Shard,
    StateFile,
    encode_schema,
)
from streamrnn.stream.checkpoints.partitioning import layout_in, partitioning_in
from streamrnn.stream.checkpoints.reading import lists_manifest, read_manifest
from streamrnn.stream.checkpoints.starting import (
    NOT_OURS,
    are_ours,
    check_files,
    check_same_pipeline,
    check_schema,
    free_number,
    last_manifest,
    plain,
    refuse_foreign_entries,
)
from streamrnn.stream.checkpoints.used import (
    Select,
    SourcePlan,
    UsedFileIndex,
    plan_sources,
    select_all,
)
from streamrnn.stream.checkpoints.versions import (
    Snapshot,
    StateDelta,
    check_shards,
    delta_since,
    read_schema,
    read_shards,
    write_version,
)
from streamrnn.stream.config import SIDE_OUTPUTS, side_filters, side_folder, to_record, value_of
from streamrnn.stream.sinks import PART_FORMATS, Partitioning, refuse_unwritable
from streamrnn.stream.sources import FileSource, Position, Reading, SourceFile, canonical_name
from streamrnn.stream.states.positions import PositionPairs

_LOGGER = logging.getLogger("streamrnn.checkpoints")


class OutputFolder:
    """An output folder, locked by this run from `open` to `close`. Use it in one thread only.

    `recovered` lists what was repaired on opening (empty after a clean end); it is also logged.
    """

    def __init__(self, path: str, side: Mapping[str, str | None], keep: int) -> None:
        self.path = location(path)
        places = {name: side.get(name) or side_folder(path, name) for name in SIDE_OUTPUTS}
        self._recorded = {
            name: to_record(place, side_folder(path, name)) for name, place in places.items()
        }
        self.keep = keep
        self.recovered: list[str] = []
        self.directories = {
            name: PartDirectory(open_files(place))
            for name, place in {"rows": path, **places}.items()
        }
        self.rows = self.directories["rows"]
        self._files = self.rows.files
        self._locks = LockSet()
        self._ledger = Ledger(self.directories, self._locks)
        self._schema: pa.Schema | None = None
        self._table = ""
        self.partitioning: Partitioning | None = None
        self._model = ""
        self._config: dict[str, Any] = {}
        self._state_schema: tuple[str, pa.Schema] | None = None  # file name, schema
        self._attempt: Attempt | None = None
        self._used = UsedFileIndex()
        self._output = ""
        self._prepared = set[str]()
        self._filters: Mapping[str, str] = {}
        self._broken = False

    @classmethod
    def open(
        cls,
        path: str,
        *,
        side: Mapping[str, str | None] = MappingProxyType({}),
        keep: int = 7,
        full_refresh: bool = False,
        check: Literal["all", "manifest"] = "all",
    ) -> "OutputFolder":
        """Lock the folder at `path` (created if missing), and repair what a dead run left behind.

        `side`: name of a side output -> its folder, created when it may get rows (default: `path` +
        ".rejects", `path` + ".alerts"). `keep` is the number of ends of earlier runs that `rewind`
        can go back to. With `full_refresh`, the folder counts as empty, and the first commit
        removes the earlier output; nothing of it is checked. Otherwise the sizes of all files and
        the checksums of manifest and state are checked. With `check="manifest"`, only the manifest
        is checked, and a committed output is not repaired.

        Raises CheckpointError if the folder is in use, damaged, or holds foreign files; SinkError
        if it cannot be written.
        """
        folder = cls(path, side, keep)
        try:
            folder._start(full_refresh, check == "all")
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def reopen(
        cls, path: str, *, rejects: AnyPath | None = None, check: Literal["all", "manifest"] = "all"
    ) -> "OutputFolder":
        """Open a folder that has commits, with the options of its last run.

        `rejects`: the folder of the rejects, if it was moved. Raises what `read_manifest` and
        `open` raise.
        """
        last = read_manifest(path)
        keep = int(value_of("checkpoint.keep", last.config))
        return cls.open(path, side=last.side_folders(path, rejects=rejects), keep=keep, check=check)

    @property
    def manifest(self) -> Manifest | None:
        """The last commit; None before the first."""
        return self._ledger.manifest

    @property
    def next_commit(self) -> int:
        """Number of the next commit."""
        return self._ledger.next_commit

    def _start(self, full_refresh: bool, check: bool) -> None:
        self._refuse_foreign_entries(full_refresh)
        self._locks.acquire(self.rows)
        self._refuse_foreign_entries(full_refresh)
        last = last_manifest(self._files, full_refresh)
        self._ledger.next_commit = free_number(self._files, last)
        self._output = last.output if last else secrets.token_hex(8)
        if last is not None:
            self.rows.layouts = frozenset([layout_in(last.config)])
            self.rows.add_kept_layouts()
        elif full_refresh:
            self.rows.layouts = None  # unknown, and everything there is ours
        for name in SIDE_OUTPUTS:
            directory = self.directories[name]
            if are_ours(name, self.rows, directory, last, full_refresh):
                self._locks.acquire(directory)
        if full_refresh:
            self._ledger.reconciled = False
        elif last is None:
            for directory in self._locks:
                empty(directory)
        else:
            self._ledger.manifest = last
            if check:
                check_files(self._files, self.directories, last)
                finished, removed = self._ledger.reconcile(last)
                if finished:
                    parts = count(finished, "part")
                    self.recovered.append(f"finished commit {last.commit}: {parts} in place")
                if removed:
                    files = count(removed, "file")
                    self.recovered.append(f"removed {files} that no commit names")
                for repair in self.recovered:
                    _LOGGER.info("%s: %s", self.path, repair)

    def _refuse_foreign_entries(self, full_refresh: bool) -> None:
        if not lists_manifest(self._files):
            refuse_foreign_entries(self.rows, f"has no {MANIFEST}", ours_may_stay=full_refresh)

    def begin(
        self, schema: pa.Schema, *, model: str, config: Mapping[str, Any], new_model: bool = False
    ) -> None:
        """Set the schema of the rows, the model's fingerprint, and the config, before `write`.

        `config` is dotted key -> value. Raises CheckpointError, with the differences, if the last
        commit is from another pipeline (with `new_model`, the model and its keys may differ);
        DTypeError if the format of the parts cannot hold the rows; ConfigError if the rows cannot
        be partitioned or filtered as the config says.
        """
        if self.manifest is not None:
            check_same_pipeline(self.manifest, model, config, self.path, new_model=new_model)
            check_schema(self.manifest, schema, self.path)
        self._schema, self._model, self._config = schema, model, plain(config)
        refuse_unwritable(schema, self._format)
        self.partitioning = partitioning_in(self._config, schema)
        self._filters = side_filters(self._config)
        row_filters(self._filters, schema)  # refuses mistakes before any row
        layouts = frozenset([layout_in(self._config)])
        if self._ledger.reconciled:
            self.rows.layouts = layouts
        elif self.rows.layouts is not None:
            self.rows.layouts |= layouts

    @property
    def _format(self) -> str:
        return str(value_of("sink.format", self._config))

    @property
    def home(self) -> str:
        """Canonical name of this folder, however its path was spelled."""
        return canonical_name(self.path)

    def check_sources(
        self,
        present: Sequence[SourceFile],
        reader: FileSource,
        *,
        force: bool = False,
        seen: SeenFiles | None = None,
        seen_by_init: Callable[[], SeenFiles | None] = lambda: None,
        select: Select = select_all,
    ) -> SourcePlan:
        """Plan what to read of the files `present`, as `plan_sources` does; raise what it raises.

        Before the first commit, `seen` are the files that the initial state has seen; later,
        `seen_by_init` returns them for a message.
        """
        last = self.manifest or seen
        home = self.home if self.manifest else seen.home if seen else ""
        plan = plan_sources(
            last, present, reader, home=home, force=force, seen=seen_by_init, select=select
        )
        self._used.update(plan, reader)
        self._table = "" if reader.table is None else reader.table.id
        return plan

    def refresh_sources(self) -> None:
        """Commit what `check_sources` learned, so that the next run need not read used files again.

        Retained commits stay.
        """
        assert self.manifest is not None
        assert self._used.files is not None
        last, table = self.manifest, self._table or self.manifest.table
        self.replace(sources=self._used.files, home=self.home, table=table, kept=last.kept)

    def load_state(self) -> pa.Table | None:
        """Return the state table of the last commit; None without a commit or without a state."""
        return read_shards(self._files, self.manifest.shards if self.manifest else ())

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, in the order of the output; readers find them after the next commit.

        Raises SinkError, and DataError for a value that cannot name a partition folder. After an
        error, do not commit: some rows may be missing.
        """
        self._writing().write(batch)

    def reject(self, batch: pa.RecordBatch) -> None:
        """Add rejected rows, to be committed with the output rows. Raises what `prepare` raises."""
        self.prepare("rejects")
        self._writing().reject(batch)

    def prepare(self, name: str) -> None:
        """Create and lock the folder of a side output. Call it before workers' attempts use it.

        Raises SinkError, and CheckpointError if the folder is in use or has foreign files.
        """
        if name in self._prepared:
            return
        directory = self.directories[name]
        if directory not in self._locks:
            refuse_foreign_entries(directory, NOT_OURS)
            self._locks.acquire(directory)
        directory.mark(self._output)
        self._prepared.add(name)

    def renew(self) -> None:
        """Renew the locks of a long run between commits (on object stores)."""
        self._locks.renew()

    def _writing(self) -> Attempt:
        if self._schema is None:
            raise ValueError("call begin() before write()")
        if self._attempt is None:
            for name in self._filters:
                self.prepare(name)
            self._attempt = Attempt(
                self.directories,
                schema=self._schema,
                format=self._format,
                commit=self.next_commit,
                last=self._last_state(),
                partitioning=self.partitioning,
                filters=self._filters,
            )
        return self._attempt

    def delta(self, state: Snapshot) -> StateDelta:
        """Copy what the next commit must write of the state; the state may change afterwards.

        Raises StateError if a column has a reserved name.
        """
        last, schema = self._last_state(), None
        if last:
            if self._state_schema is None or self._state_schema[0] != last[-1].name:
                self._state_schema = last[-1].name, read_schema(self._files, last)
            schema = self._state_schema[1]
        return delta_since(state, last, schema)

    def _last_state(self) -> tuple[StateFile, ...]:
        """Return the state files that the next version builds on; () unless there is one shard."""
        shards = self.manifest.shards if self.manifest else ()
        return shards[0].files if len(shards) == 1 else ()

    def commit(
        self,
        facts: Sequence[Facts] | None = None,
        *,
        state: Snapshot | StateDelta | None = None,
        sources: Sequence[SourceFile] = (),
        readings: Mapping[str, Reading] | None = None,
        position: Position | None = None,
        positions: PositionPairs | None = None,
        counters: Mapping[str, Any] | None = None,
        complete: bool = False,
        end_of_run: bool = True,
    ) -> Manifest:
        """Commit the rows written, the position and the state, all together.

        `facts` are from one attempt per shard; None: this process wrote the rows, as one shard,
        with `state`. Parts are placed in the order of the shards. `sources` are the files begun or
        finished since the last commit (or before), `readings` what was read of them, by name;
        without a `position`, or with one at the end of a file, all of these files are done.
        `state`, `positions` (of calls) and `counters` are unchanged if None. `end_of_run` is as in
        `Manifest`. `complete`: the input has ended; if the output has no part, an empty one with
        the schema is written, unless the output is partitioned.

        Raises SinkError or CheckpointError; StateError as `delta` does; ValueError before `begin`,
        and unless the facts are from this commit, one per shard. If a commit fails, the folder
        refuses later commits, and the next start finds the commit either complete or not at all.
        """
        if self._schema is None:
            raise ValueError("call begin() before commit()")
        if self._broken:
            raise SinkError(
                f"{self.path}: an earlier commit of this run failed. Rerun the command; it resumes "
                "from the last commit"
            )
        self._broken = True  # unless this commit completes
        facts = [self._finish(state)] if facts is None else self._checked(facts)
        last = self.manifest
        outputs = {name: self._output_after(name, facts, complete) for name in self.directories}
        manifest = Manifest(
            output=self._output,
            commit=self.next_commit,
            time=now(),
            complete=complete,
            model=self._model,
            config=self._config,
            schema=encode_schema(self._schema),
            sources=self._used.after(last, sources, readings or {}),
            position=None if position is None or position.done else position,
            outputs=outputs,
            shards=shards_after(last.shards if last else (), facts),
            counters=plain(counters if counters is not None else last.counters if last else {}),
            kept=last.kept_after(self.keep, end_of_run) if last else (),
            end_of_run=end_of_run,
            # Names in the manifest are current only if this run has checked the sources.
            home=self.home if last is None or self._used.files is not None else last.home,
            table=self._table or (last.table if last else ""),
            positions=(last.positions if last else ()) if positions is None else positions,
        )
        manifest = self._ledger.install(manifest)
        self._used.commit(manifest)
        self._broken = False
        live = manifest.live - (last.live if last else 0)
        of = f" with {count(live, 'row')} of a session" if live else ""
        _LOGGER.debug("%s: commit %d%s", self.path, manifest.commit, of)
        return manifest

    def _output_after(self, name: str, facts: Sequence[Facts], complete: bool) -> NamedOutput:
        """Return an output as it will be after a commit of the parts of `facts`, in order."""
        staged = [part for item in facts for part in item.parts.get(name, ())]
        before = self.manifest.named(name).parts if self.manifest else ()
        model, path = (self._model, "") if name == "rows" else ("", self._recorded[name])
        empty = complete and not staged and not before
        if name == "rows" and empty and self.partitioning is None:
            file = draw_name(self.next_commit)
            staged = [self.rows.writer(self._schema, file, PART_FORMATS[self._format]).finish()]
        placed = self.directories[name].place(before, staged, self.next_commit, model)
        return NamedOutput(placed, path)

    def _checked(self, facts: Sequence[Facts]) -> list[Facts]:
        """Sort facts of workers by shard, and check the sizes of all files that the facts name."""
        ordered = in_order(facts, self.next_commit)
        for name, directory in self.directories.items():
            directory.check_staged([part for item in ordered for part in item.parts.get(name, ())])
        states = [item.state for item in ordered if item.state is not None]
        check_shards(self._files, states, whole=False)
        return ordered

    def _finish(self, state: Snapshot | StateDelta | None) -> Facts:
        delta = self.delta(state) if isinstance(state, Snapshot) else state
        facts = self._writing().finish(delta)
        self._attempt = None
        if delta is not None and delta.table is not None and facts.state is not None:
            self._state_schema = facts.state.files[-1].name, delta.table.schema
        return facts

    def replace(self, **changes: Any) -> Manifest:
        """Commit the last manifest with some fields changed; new parts must be in staging.

        Raises SinkError, and CheckpointError, including if nothing was committed yet.
        """
        if self.manifest is None:
            raise CheckpointError(f"{self.path} has no commit yet; there is nothing to replace")
        changes = {
            "time": now(),
            "kept": self.manifest.kept_after(self.keep, True),
            "end_of_run": True,
            **changes,
        }
        changes["config"] = plain(changes.get("config", self.manifest.config))
        manifest = replace(self.manifest, commit=self.next_commit, **changes)
        self._ledger.reconciled = False
        return self._ledger.install(manifest)

    def replace_state(self, table: pa.Table, **changes: Any) -> Manifest:
        """Commit another state table as one shard, and `changes` of other fields; see `replace`."""
        name = f"_state-{draw_name(self.next_commit)}.arrow"
        version = write_version(self._files, name, StateDelta(len(table), None, table), ())
        return self.replace(shards=(Shard(len(table), version),), **changes)

    def close(self) -> None:
        """Discard what is not committed, and release the locks. It may be called again."""
        if self._attempt is not None:
            self._attempt.abandon()
        if self.rows in self._locks:  # the first to be locked
            committed = True  # assumed if the store does not answer
            with suppress(SinkError):
                committed = self.manifest is not None or lists_manifest(self._files)
            # A run that failed before its first commit leaves nothing behind.
            self._locks.release(unused=not committed)

    def __enter__(self) -> "OutputFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
