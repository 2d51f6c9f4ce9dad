"""Where the rows of a run go, and what is known there of earlier runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

from streamrnn.checkpoints import Manifest, OutputFolder, SourcePlan
from streamrnn.engines import FolderTarget, StreamTarget
from streamrnn.outputs import merge_small_parts
from streamrnn.pipeline.preflight import run_config
from streamrnn.scoring import BoundPipeline, LoadedPipeline, RunOptions, Target
from streamrnn.sources import Source, SourceFile

_SMALL_PARTS = 100  # of one output, before --follow merges them


class Destination(Protocol):
    """What a run writes to: a folder with commits, or a stream.

    `place` is where the state stays, None if nowhere; `last` is the last commit, None if there is
    none. `resumable`: a run can commit on its way, and another one resume from there. `recovered`
    names what opening it repaired.
    """

    resumable: bool
    recovered: Sequence[str]

    @property
    def place(self) -> str | None: ...

    @property
    def last(self) -> Manifest | None: ...

    def plan(self, source: Source, force: bool) -> SourcePlan:
        """Which files of the source are new, and from where. Raises what `check_sources` does."""

    def begin(self, bound: BoundPipeline) -> None:
        """Take rows of these parts from now on. Raises CheckpointError if others wrote here."""

    def load_state(self) -> pa.Table | None:
        """The state table of the last commit; None if there is none."""

    def remember(self, plan: SourcePlan, last: bool) -> None:
        """Commit what `plan` found of used files, as nothing is new; `last`: the run ends."""

    def target(self, files: Sequence[SourceFile]) -> Target:
        """What the loop writes to while it reads these files."""

    def merge_parts(self) -> None:
        """Merge small parts, if there are many."""


class FolderDestination:
    """An output folder that is open for this run alone."""

    resumable = True

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder
        self.recovered: Sequence[str] = folder.recovered
        self.load_state = folder.load_state

    @property
    def place(self) -> str:
        """The folder."""
        return self._folder.path

    @property
    def last(self) -> Manifest | None:
        """The last commit."""
        return self._folder.manifest

    def plan(self, source: Source, force: bool) -> SourcePlan:
        """The files that are not in the output yet. Of a stream all is new, and nothing a file."""
        files = source.of_files
        if files is None:
            return SourcePlan(())
        # Columns come in the order in which earlier runs used them: another file has another.
        files.order = [] if self.last is None else list(self.last.config.get("source.schema", ()))
        return self._folder.check_sources(files.files, files, force=force)

    def begin(self, bound: BoundPipeline) -> None:
        """Say what writes here."""
        self._folder.begin(
            bound.emitter.schema, model=bound.loaded.fingerprint, config=run_config(bound)
        )

    def remember(self, plan: SourcePlan, last: bool) -> None:
        """Commit the used files as they are now."""
        if plan.changed or plan.rewritten:
            self._folder.commit(complete=True)
        elif plan.refreshed and last:
            self._folder.refresh_sources()

    def target(self, files: Sequence[SourceFile]) -> FolderTarget:
        """The parts of the folder."""
        return FolderTarget(self._folder, files)

    def merge_parts(self) -> None:
        """Merge small parts, if there are many."""
        merge_small_parts(self._folder, least=_SMALL_PARTS)


class StreamDestination:
    """Stdout: all rows are new to it, and nothing of a run stays."""

    resumable = False
    recovered: Sequence[str] = ()
    place = None
    last = None

    def __init__(self, target: StreamTarget) -> None:
        self._target = target

    def plan(self, source: Source, force: bool) -> SourcePlan:
        """All files."""
        return SourcePlan(tuple(source.files))

    def begin(self, bound: BoundPipeline) -> None:
        """Nothing: the stream began with its schema."""

    def load_state(self) -> None:
        """None: there is none."""

    def remember(self, plan: SourcePlan, last: bool) -> None:
        """Nothing: no file was used before."""

    def target(self, files: Sequence[SourceFile]) -> StreamTarget:
        """The stream."""
        return self._target

    def merge_parts(self) -> None:
        """Nothing: a stream has no parts."""


@contextmanager
def open_destination(
    loaded: LoadedPipeline, options: RunOptions, source: Source
) -> Iterator[Destination]:
    """Where the pipeline file sends the rows of a source, open. Raises CheckpointError, SinkError,
    and, as a stream begins with its schema, what `LoadedPipeline.bind` does."""
    config = loaded.config
    if config.sink.folder is None:
        schema = loaded.bind(source.schema, source.name).emitter.schema
        target = StreamTarget(schema, config.sink.rejects, loaded.fingerprint)
        try:
            yield StreamDestination(target)
        finally:
            target.close()
        return
    with OutputFolder.open(
        config.sink.folder,
        rejects=config.sink.rejects,
        keep=config.checkpoint.keep,
        full_refresh=options.full_refresh,
    ) as folder:
        yield FolderDestination(folder)
