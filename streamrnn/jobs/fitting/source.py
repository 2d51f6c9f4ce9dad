"""The source of a fit, with the columns of [target]; and the state after its last row."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from streamrnn.errors import CheckpointError
from streamrnn.jobs.fitting.commit import FitFile
from streamrnn.jobs.fitting.staging import Limit, Reader
from streamrnn.jobs.fitting.summary import FitSummary
from streamrnn.jobs.preflight import (
    file_source,
    open_source,
    plan_first_run,
    seen_by_init,
    with_target,
)
from streamrnn.stream.checkpoints import SeenFiles, SourcePlan, UsedFile, with_seen
from streamrnn.stream.scoring import (
    BoundPipeline,
    BoundTarget,
    LoadedPipeline,
    RunOptions,
    Scorer,
    starting_table,
)
from streamrnn.stream.sources import Position, Reading, SourceBatch, SourceFile, SourceOfFiles
from streamrnn.stream.states import StateTable


@dataclass
class FitSource:
    """The rows that a fit reads, of files that its initial state has not seen.

    `files` are the name, size and time of all files, in order; `later` the number of those that
    came after the fit began, which are not read. `plain` reads the files to use as a run does,
    `wide` also reads the columns of [target]; `seen` came with the initial state.
    """

    bound: BoundPipeline
    loaded: LoadedPipeline
    files: list[FitFile]
    later: int
    plan: SourcePlan
    plain: SourceOfFiles
    seen: SeenFiles | None
    wide: SourceOfFiles
    target: BoundTarget

    @classmethod
    def of(cls, loaded: LoadedPipeline, began_with: list[FitFile] | None = None) -> Self:
        """Open the source of a loaded pipeline. Raises what a first run raises.

        `began_with`: the files of a fit that is resumed; others are not read.
        """
        source = open_source(loaded, RunOptions())
        files = source.of_files
        assert files is not None  # checked before
        listed = list(files.files)
        if began_with is not None:
            names = {file.name for file in began_with}
            files.files = [file for file in listed if file.name in names]
        later, kept = len(listed) - len(files.files), _fit_files(files.files)
        seen = seen_by_init(loaded, files)
        readable = list(files.files)
        bound, plan = plan_first_run(loaded, files)
        new = files.files
        files.files = new or readable  # any file has the types of the columns
        wide, target = with_target(bound, files)
        assert target is not None  # checked before
        wide.files, files.files = list(new), new
        return cls(bound, loaded, kept, later, plan, files, seen, wide, target)

    def reader(self, table: StateTable, rows: int | None = None) -> Reader:
        """Return a reader of the rows before [train] until, at most `rows`, from these states."""
        source, until = self.loaded.config.source, self.loaded.config.train.until
        limit = Limit(source.time, until, rows, source.time_zone)
        return Reader(Scorer(self.bound, table), self.target, limit)

    def batches(self) -> Iterator[SourceBatch]:
        """Read all record batches, with the columns of [target]."""
        return self.wide.batches(self.plan.position, self.plan.before)

    def refuse_changes(self) -> None:
        """Raise CheckpointError if one of the files that were read has changed."""
        now = {file.name: file for file in _fit_files(file_source(self.loaded, RunOptions()).files)}
        for file in self.files:
            if now.get(file.name) != file:
                raise CheckpointError(
                    f"{file.name} changed while the fit read it. Rerun the same command if its "
                    "rows are the same, else start over with --full-refresh."
                )


def _fit_files(files: Sequence[SourceFile]) -> list[FitFile]:
    return [FitFile(file.name, file.size, file.mtime_ns) for file in files]


def until_stopped(
    batches: Iterator[SourceBatch], stop: threading.Event, summary: FitSummary
) -> Iterator[SourceBatch]:
    """Yield batches until `stop` is set, which `summary` then records."""
    for batch in batches:
        if stop.is_set():
            summary.interrupted = True
            return
        yield batch


def trained_state(
    loaded: LoadedPipeline,
    source: FitSource,
    reader: Reader,
    stop: threading.Event,
    home: str,
    summary: FitSummary,
) -> pa.Table:
    """Score the rows of a fit with the trained model, and return the state after them.

    The table lists the files that it has seen, so that a run starts on the next row. It does not if
    rows that were left out come before rows that were read; a note in `summary` says so.
    """
    bound = loaded.bind(source.plain.schema, source.plain.name)
    scorer = Scorer(bound, starting_table(bound, None, "", on_change="carry"))
    readings: dict[str, Reading] = {}
    batches = source.plain.batches(source.plan.position, source.plan.before)
    for batch in reader.batches(until_stopped(batches, stop, summary)):
        scorer.score(loaded.contract.read(batch.batch, batch.origin))
        readings |= batch.readings
    table = scorer.table.to_arrow()
    if reader.mixed:
        summary.notes.append(
            "rows before and after [train] until alternate in the files, so the saved state does "
            "not record what it has seen: start a run from it with [source] after"
        )
        return table
    used, position = _used(source, readings, reader.left)
    schema = {field.name: str(field.type) for field in source.bound.schema}
    earlier = () if source.seen is None else source.seen.sources
    names = {file.path for file in used}
    sources = (*(file for file in earlier if file.path not in names), *used)
    return with_seen(table, SeenFiles(sources, position, home, schema))


def _used(
    source: FitSource, readings: dict[str, Reading], left: tuple[str, int] | None
) -> tuple[list[UsedFile], Position | None]:
    """Return the files that were read, and the position in the last one; None at its end."""
    used = []
    for file in source.plain.files:
        if left is None or file.path != left[0]:
            used.append(UsedFile.of(file, readings.get(file.name)))
            continue
        row = left[1]
        if not row:
            return used, None
        content = source.plain.content(file, row)
        opened = time.time_ns()
        used.append(UsedFile.of(file, Reading(content, opened_ns=opened)))
        group = first = 0
        for rows in source.plain.footer(file).groups:
            if row < first + rows:
                break
            group, first = group + 1, first + rows
        return used, Position(file.name, group, row - first, row, False)
    return used, None
