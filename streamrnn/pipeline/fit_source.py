"""The source of a fit, with the columns of [target]; and the state after its last row."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from streamrnn.checkpoints import SeenFiles, SourcePlan, UsedFile, with_seen
from streamrnn.fitting import Reader
from streamrnn.pipeline.preflight import open_source, plan_first_run, seen_by_init
from streamrnn.pipeline.targets import with_target
from streamrnn.scoring import (
    BoundPipeline,
    BoundTarget,
    LoadedPipeline,
    RunOptions,
    Scorer,
    starting_table,
)
from streamrnn.sources import Position, Reading, SourceBatch, SourceFile, SourceOfFiles


@dataclass
class FitSource:
    """The rows that a fit reads: those of files that its initial state has not seen.

    `listed` are all files; `plain` reads those to use as a run does, `wide` with the columns of
    [target] too; `seen` came with the initial state.
    """

    bound: BoundPipeline
    listed: list[SourceFile]
    plan: SourcePlan
    plain: SourceOfFiles
    seen: SeenFiles | None
    wide: SourceOfFiles
    target: BoundTarget

    @classmethod
    def of(cls, loaded: LoadedPipeline) -> Self:
        """Open the source of a loaded pipeline. Raises what a first run raises."""
        source = open_source(loaded, RunOptions())
        files = source.of_files
        assert files is not None  # checked before
        listed = list(files.files)
        seen = seen_by_init(loaded, files)
        bound, plan = plan_first_run(loaded, files)
        wide, target = with_target(bound, files)
        assert target is not None  # checked before
        return cls(bound, listed, plan, files, seen, wide, target)

    def batches(self) -> Iterator[SourceBatch]:
        """Read all record batches, with the columns of [target]."""
        return self.wide.batches(self.plan.position, self.plan.before)


def trained_state(loaded: LoadedPipeline, reader: Reader, home: str, notes: list[str]) -> pa.Table:
    """Score the rows of a fit with the trained model, and return the state after them.

    The table has the files that it has seen, so that a run starts on the next row. If the rows
    that were left out come before others that were read, it has not; that is added to `notes`.
    """
    source = FitSource.of(loaded)
    scorer = Scorer(source.bound, starting_table(source.bound, None, "", carry=True))
    readings: dict[str, Reading] = {}
    batches = source.plain.batches(source.plan.position, source.plan.before)
    for batch in reader.batches(batches):
        scorer.score(loaded.contract.read(batch.batch, batch.origin))
        readings |= batch.readings
    table = scorer.table.to_arrow()
    if reader.mixed:
        notes.append(
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
    """Return the files that were read, the last one maybe up to a position."""
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
        return used, _position(source, file, row)
    return used, None


def _position(source: FitSource, file: SourceFile, row: int) -> Position:
    group = first = 0
    for rows in source.plain.footer(file).groups:
        if row < first + rows:
            break
        group, first = group + 1, first + rows
    return Position(file.name, group, row - first, row, False)
