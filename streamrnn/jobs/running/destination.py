"""Where the rows of a run go, and what was committed there."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pyarrow as pa

from streamrnn.errors import CheckpointError
from streamrnn.jobs.engines import FolderTarget, StreamTarget
from streamrnn.jobs.outputs import log_folder, merge_small_parts, refuse_behind
from streamrnn.jobs.preflight import after_rule, run_config, seen_before
from streamrnn.stream.checkpoints import (
    Manifest,
    OutputFolder,
    SeenFiles,
    SourcePlan,
    has_manifest,
    plan_sources,
    read_manifest,
)
from streamrnn.stream.config import SIDE_OUTPUTS, value_of
from streamrnn.stream.config.schema import PUBLISH_KEYS
from streamrnn.stream.scoring import BoundPipeline, LoadedPipeline, RowSink, RunOptions
from streamrnn.stream.sources import Source, SourceFile

_SMALL_PARTS = 100  # --follow merges the small parts of one output when it has this many


class Destination:
    """Where a run writes to.

    By default there are no commits; `plan` and `target` have no default. `folder` is the output
    folder, `place` where the state is stored, `last` the last commit; each is None if there is
    none. `resumable`: a run can commit before its end, and another run can resume from that commit.
    `recovered` lists what was repaired when the destination was opened.
    """

    resumable = False
    recovered: Sequence[str] = ()
    folder: OutputFolder | None = None

    @property
    def place(self) -> str | None:
        """Where the state is stored; None if it is stored nowhere."""
        return None if self.folder is None else self.folder.path

    @property
    def last(self) -> Manifest | None:
        """The last commit, None if there is none."""
        return None if self.folder is None else self.folder.manifest

    def plan(self, source: Source, force: bool, seen: SeenFiles | None) -> SourcePlan:
        """Find the new files of the source to read, and the position to start from.

        Before the first commit, `seen` are the files that the initial state has seen. Raises what
        `OutputFolder.check_sources` raises.
        """
        raise NotImplementedError

    def begin(self, bound: BoundPipeline) -> None:
        """Prepare for the rows of this pipeline.

        Raises CheckpointError if another pipeline wrote here.
        """

    def load_state(self) -> pa.Table | None:
        """Return the state table of the last commit, None if there is none."""
        return None if self.folder is None else self.folder.load_state()

    def commit_sources(self, plan: SourcePlan, last: bool) -> None:
        """Commit what `plan` learned about used files if no file is new; `last`: the run ends."""

    def target(self, files: Sequence[SourceFile], *, pipe: bool = False) -> RowSink:
        """Return the sink that the loop writes to while it reads these files, or a pipe."""
        raise NotImplementedError

    def merge_parts(self) -> bool:
        """Merge small parts if there are many; return whether any were merged."""
        return False

    def record_tables(self, config: Mapping[str, Any]) -> None:
        """Commit which tables index the output, for commands that have no pipeline file."""


class FolderDestination(Destination):
    """An output folder, locked by this run."""

    resumable = True
    folder: OutputFolder

    def __init__(self, folder: OutputFolder, loaded: LoadedPipeline, new_model: bool) -> None:
        self.folder = folder
        self._loaded = loaded
        self._new_model = new_model
        self.recovered = folder.recovered

    def plan(self, source: Source, force: bool, seen: SeenFiles | None) -> SourcePlan:
        earlier = {} if seen is None else seen.schema
        source.earlier = earlier if self.last is None else self.last.config.get("source.schema", {})
        files = source.of_files
        if files is None:
            return SourcePlan(())
        return self.folder.check_sources(
            files.files,
            files,
            force=force,
            seen=seen,
            seen_by_init=partial(seen_before, self._loaded, source),
            select=after_rule(self._loaded, files),
        )

    def begin(self, bound: BoundPipeline) -> None:
        self.folder.begin(
            bound.emitter.schema,
            model=bound.loaded.fingerprint,
            config=run_config(bound),
            new_model=self._new_model,
        )

    def commit_sources(self, plan: SourcePlan, last: bool) -> None:
        if plan.changed or plan.rewritten:
            self.folder.commit(complete=True)
        elif plan.refreshed and last and self.last is not None:
            self.folder.refresh_sources()

    def target(self, files: Sequence[SourceFile], *, pipe: bool = False) -> FolderTarget:
        return FolderTarget(self.folder, files, pipe=pipe)

    def merge_parts(self) -> bool:
        return merge_small_parts(self.folder, least=_SMALL_PARTS) is not None

    def record_tables(self, config: Mapping[str, Any]) -> None:
        """Commit the keys of [publish], and nothing else, if the last commit's differ."""
        last = self.last
        now = {key: config[key] for key in PUBLISH_KEYS}
        if last is None or now == {key: value_of(key, last.config) for key in PUBLISH_KEYS}:
            return
        self.folder.replace(
            time=last.time,
            kept=last.kept,
            end_of_run=last.end_of_run,
            config={**last.config, **now},
        )


class StreamDestination(Destination):
    """Stdout: every row is new, and nothing is kept after the run."""

    def __init__(self, target: StreamTarget, loaded: LoadedPipeline) -> None:
        self._target = target
        self._loaded = loaded

    def plan(self, source: Source, force: bool, seen: SeenFiles | None) -> SourcePlan:
        """Plan to read the files that the initial state has not seen, and that `after` selects."""
        files = source.of_files
        if files is None:
            return SourcePlan(())
        home, select = "", after_rule(self._loaded, files)
        if seen is not None:
            home, source.earlier = seen.home, seen.schema
        return plan_sources(seen, files.files, files, home=home, force=force, select=select)

    def target(self, files: Sequence[SourceFile], *, pipe: bool = False) -> StreamTarget:
        return self._target


@contextmanager
def open_destination(
    loaded: LoadedPipeline, options: RunOptions, source: Source
) -> Iterator[Destination]:
    """Open the destination that the pipeline file names.

    Raises CheckpointError, SinkError and, for a stream (which starts with its schema), what
    `LoadedPipeline.bind` raises.
    """
    config = loaded.config
    if config.sink.folder is None:
        schema = loaded.bind(source.schema, source.name).emitter.schema
        target = StreamTarget(schema, config.sink.rejects, loaded.fingerprint)
        try:
            yield StreamDestination(target, loaded)
        finally:
            target.close()
        return
    with open_folder(loaded, options) as folder:
        yield folder


@contextmanager
def open_folder(loaded: LoadedPipeline, options: RunOptions) -> Iterator[FolderDestination]:
    """Open the output folder that the pipeline file names. Raises CheckpointError, SinkError."""
    config = loaded.config
    output, side, last = str(config.sink.folder), config.side_folders, None
    # A side output without a filter may have earlier rows; --full-refresh forgets the last commit.
    if side.keys() != SIDE_OUTPUTS.keys() or options.full_refresh:
        with suppress(CheckpointError):  # raised when the output is opened
            if has_manifest(output):
                last = read_manifest(output)
                side = {**last.side_folders(output), **side}
    with OutputFolder.open(
        output, side=side, keep=config.checkpoint.keep, full_refresh=options.full_refresh
    ) as folder:
        refuse_behind(output, folder.manifest or last, log_folder(config))
        yield FolderDestination(
            folder, loaded, new_model=options.on_change(config.model) != "error"
        )
