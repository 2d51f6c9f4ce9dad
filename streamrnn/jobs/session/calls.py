"""Calls of `process`: the data of each call is scored by one scorer, wholly or not at all."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import pyarrow as pa

from streamrnn.errors import DataError, DTypeError
from streamrnn.jobs.running import MetricsFile, ProcessMetrics
from streamrnn.jobs.session.data import (
    BATCH,
    REQUEST,
    CheckedSchema,
    batches_of,
    table_of_dicts,
    with_nulls_for_unfit,
)
from streamrnn.stream.scoring import BoundPipeline, LoadedPipeline, RowCounts, Scorer
from streamrnn.stream.scoring.scorer import Scored
from streamrnn.stream.sources import new_names, used_schema, with_new_names, with_values
from streamrnn.stream.states.arrays import PAUSE
from streamrnn.stream.states.positions import CallPosition, next_position


class Answer(NamedTuple):
    """The results of a call, one per record batch, and its output as the caller receives it."""

    scored: list[Scored]
    output: pa.RecordBatch | pa.Table


class Calls:
    """Scores the data of calls, one after another; `scorer` is None before the first.

    `start(schema)` returns the scorer of the first call; `bound` is called with the pipeline,
    before rows are scored, whenever the types of its columns change. Calls of several threads must
    not overlap.
    """

    def __init__(
        self,
        load: Callable[[], LoadedPipeline],
        start: Callable[[pa.Schema], Scorer],
        bound: Callable[[BoundPipeline], None] = lambda _: None,
    ) -> None:
        self.scorer: Scorer | None = None
        self._load = load
        self._start = start
        self._bound = bound
        self._checked: CheckedSchema | None = None
        self._metrics: dict[str, ProcessMetrics] = {}

    def process(
        self,
        data: object,
        position: CallPosition | None,
        align: bool,
        requests: bool = False,
        unfit: Mapping[int, str] | None = None,
    ) -> Answer:
        """Score the data of a call as `Pipeline.process` does, and raise what it raises.

        The data may be rows of `requests`, which have no position of their own: then a row at which
        a run would stop raises the error of the run even with `align`. `unfit`: number of a row ->
        why its dict is refused.
        """
        scorer = self.scorer
        loaded = self._load() if scorer is None else scorer.bound.loaded
        refuse = not requests and (align or loaded.config.source.bad == "reject")
        if isinstance(data, list) and refuse and unfit is None:
            try:
                return self.process(data, position, align, unfit={})
            except (DataError, DTypeError):
                data, unfit = with_nulls_for_unfit(data, self._check)
                if not unfit:
                    raise
        if isinstance(data, list):
            data = table = self._table_of(data, loaded, complete=unfit is None or scorer is None)
            if not table.num_rows and scorer is None:
                bound = BoundPipeline(loaded, table.schema, BATCH)
                return Answer([], _schema(bound, align).empty_table())
        batches, schema = batches_of(data)
        if renames := loaded.renames:
            schema = with_new_names(schema, new_names(schema.names, renames, BATCH))
            batches = [batch.rename_columns(schema.names) for batch in batches]
        scorer, checked = self._bound_scorer(schema, loaded)
        schema_out = _schema(scorer.bound, align)
        last = scorer.position
        position = last if requests else next_position(position, last, sum(map(len, batches)))
        if len(batches) > 1:
            scorer = scorer.copy()  # the assignment below commits all of them, or none
        if not batches:
            scorer.position = position
        scored = []
        for batch in batches:
            name, first_row = (REQUEST, 0) if requests else (BATCH, scorer.rows_read)
            used, reasons = checked.columns(batch, first_row, refuse=refuse)
            item = scorer.process(
                used,
                name,
                first_row,
                position,
                cast=checked.changed * batch.num_rows,
                align=align,
                errors=requests,
                unfit={**reasons, **unfit} if unfit else reasons,  # `unfit` dicts are in one batch
            )
            scored.append(item)
        self.scorer = scorer
        self._checked = checked
        outputs = [item.output if item.answer is None else item.answer for item in scored]
        if isinstance(data, pa.RecordBatch):
            return Answer(scored, outputs[0])
        return Answer(scored, pa.Table.from_batches(outputs, schema_out))

    def _table_of(self, rows: list[Any], loaded: LoadedPipeline, complete: bool) -> pa.Table:
        scorer = self.scorer
        types, read = (None, 0) if scorer is None else (scorer.bound.schema, scorer.rows_read)
        return table_of_dicts(rows, loaded, types, read, complete=complete)

    def _check(self, rows: list[Any]) -> None:
        """Raise DataError or DTypeError if dicts cannot be read in the types of earlier rows.

        Before there are earlier rows, any types that the pipeline can read are accepted.
        """
        scorer = self.scorer
        loaded = self._load() if scorer is None else scorer.bound.loaded
        schema = self._table_of(rows, loaded, complete=False).schema
        if scorer is None:
            loaded.bind(schema, BATCH)
        else:
            self._checked_schema(schema, used_schema(schema, loaded.columns, BATCH), scorer)

    def _bound_scorer(
        self, schema: pa.Schema, loaded: LoadedPipeline
    ) -> tuple[Scorer, CheckedSchema]:
        """Return the scorer and the checked schema; the last call's schema is not checked again."""
        checked, scorer = self._checked, self.scorer
        if scorer is not None and checked is not None and checked.schema.equals(schema):
            return scorer, checked
        used = used_schema(schema, loaded.columns, BATCH)
        if scorer is None:
            scorer = self._start(used)
        elif (types := with_values(scorer.bound.schema, used)) != scorer.bound.schema:
            scorer = scorer.copy(loaded.bind(types, BATCH))
        if scorer is not self.scorer:
            self._bound(scorer.bound)
        return scorer, self._checked_schema(schema, used, scorer)

    def _checked_schema(self, schema: pa.Schema, used: pa.Schema, scorer: Scorer) -> CheckedSchema:
        loaded = scorer.bound.loaded
        features = loaded.contract.features_alone(loaded.config.columns)
        return CheckedSchema.of(schema, used, scorer.bound.schema, "earlier rows", features)

    def switch_to(self, scorer: Scorer) -> None:
        """Score the next calls with the scorer of another model, which may want other types."""
        self._checked = None
        self.scorer = scorer

    def drop_idle(self, lock: AbstractContextManager[object]) -> None:
        """Remove idle streams for a commit; other threads may call meanwhile, under `lock`."""
        with lock:
            scorer = self.scorer
        if scorer is None:
            return
        steps = scorer.dropping()
        while True:
            with lock:  # a call with several batches is scored by a copy, which then replaces it
                if self.scorer is not scorer or next(steps, None) is None:
                    break
            time.sleep(PAUSE)
        scorer.table.forget_removed()

    @property
    def position(self) -> CallPosition | None:
        """The position of the last call; a copy."""
        return None if self.scorer is None else copy.copy(self.scorer.position)

    @property
    def accepted(self) -> int:
        """Number of rows of all calls, without the rows that answers refused."""
        totals = {} if self.scorer is None else self.scorer.totals
        return totals.get("rows", 0) - totals.get("refused", 0)

    @property
    def counts(self) -> RowCounts:
        """What became of the rows of all calls; a copy."""
        scorer = self.scorer
        if scorer is None:
            return RowCounts()
        len(scorer.table)  # completes an interrupted change
        totals = scorer.totals
        counts = RowCounts(totals.get("rows", 0), totals.get("rows_out", 0))
        counts.add(totals)
        return counts

    def write_metrics(self, path: str | os.PathLike[str], label: str) -> None:
        """Write the counts to a file for Prometheus, as `Pipeline.write_metrics` does."""
        path = os.fspath(path)
        if path not in self._metrics:
            self._metrics[path] = ProcessMetrics(MetricsFile(path, label))
        self._metrics[path].write(self.counts, None if self.scorer is None else self.scorer.table)


def _schema(bound: BoundPipeline, align: bool) -> pa.Schema:
    return bound.emitter.aligned_schema if align else bound.emitter.schema
