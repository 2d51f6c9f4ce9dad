"""The labels of a pipeline's rows, as `[target]` defines them, for a fit or beside scores."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Doubles, Ints
from streamrnn.errors import DTypeError
from streamrnn.stream.config.notations import format_duration
from streamrnn.stream.scoring.bind import BoundPipeline, LoadedPipeline
from streamrnn.stream.scoring.scorer import Scorer
from streamrnn.stream.sources import Rows, SourceBatch, TargetColumns
from streamrnn.stream.sources.formats.base import TICKS
from streamrnn.stream.windows import (
    LabelJoin,
    Labels,
    SeasonalLabels,
    StreamBatch,
    TargetRows,
    with_seasons,
)


def target_columns(loaded: LoadedPipeline) -> TargetColumns | None:
    """Return the columns of `[target]`, None if it is not set."""
    target = loaded.config.target
    return TargetColumns(target.column, target.weight) if target.column else None


@dataclass(frozen=True)
class BoundTarget:
    """The columns of `[target]`, and how a row is joined with its labels (see `LabelJoin`).

    `names` are the names of the K labels, and `season` is the season of the seasonal naive
    forecast, in ticks (0: no forecast). `change`: models learn changes from the present values.
    """

    columns: TargetColumns
    names: tuple[str, ...]
    horizons: tuple[int, ...] = ()
    rows: int = 0
    max_gap: int | None = None
    season: int = 0
    change: bool = False

    @classmethod
    def of(cls, bound: BoundPipeline, schema: pa.Schema) -> "BoundTarget":
        """Bind `[target]`, which is set, to the columns of a source.

        Raises DataError for a missing column, DTypeError for one without numbers, or for a time
        column whose type cannot express the horizon or the season.
        """
        columns, target = target_columns(bound.loaded), bound.loaded.config.target
        assert columns is not None
        columns.check(schema, bound.path)
        horizons = tuple(ticks_of(length, bound, "horizon") for length in target.horizon)
        season = ticks_of(target.season, bound, "season") if target.season else 0
        most, change = bound.policy.max_gap, target.as_ == "change"
        return cls(columns, target.labels, horizons, target.rows, most, season, change)

    def learned(self, labels: Labels) -> Doubles:
        """Return what a model learns (N, K): labels, or how they differ from the present values."""
        return labels.label - labels.rows.value if self.change else labels.label


class LabelReader:
    """Finds the labels of the rows of successive record batches."""

    def __init__(self, target: BoundTarget) -> None:
        self._target = target
        self._join = LabelJoin(target.horizons, target.rows, target.max_gap)
        self._read = 0

    def add(self, rows: Rows, by_stream: StreamBatch) -> Labels:
        """Add a record batch; return the rows, earlier ones included, whose labels are now known.

        Rejected and dropped rows are left out. Raises DataError for values that cannot be used.
        """
        kept = by_stream.kept
        value, weight = self._target.columns.read(rows.batch)
        self._target.columns.refuse(rows, value, weight, kept)
        nothing = np.zeros(len(rows), np.int64)
        target = TargetRows(
            np.arange(self._read, self._read + len(rows)),
            by_stream.slot_N,
            nothing if rows.time is None else rows.time,
            nothing.astype(bool) if rows.reset is None else rows.reset,
            np.repeat(value, max(1, len(self._target.horizons)), axis=1),
            weight,
        )
        self._read += len(rows)
        return self._join.add(target.take(kept))

    def finish(self) -> Labels | None:
        """Return the rows that still wait for their labels; None if there are none."""
        return self._join.finish()


def ticks_of(length: timedelta, bound: BoundPipeline, key: str) -> int:
    """Return `length`, which a key of [target] sets, in ticks of the time column.

    Raises DTypeError if the column has neither timestamps nor dates, or if the length is not a
    multiple of a tick.
    """
    time = bound.schema.field(str(bound.loaded.config.source.time))
    kind, path = time.type, bound.path
    unit = kind.unit if pa.types.is_timestamp(kind) else "ms" if pa.types.is_date64(kind) else ""
    if unit == "ns":
        return 1000 * (length // timedelta(microseconds=1))
    if not unit and not pa.types.is_date32(kind):
        advice = "Set rows (a number of rows) instead." if key == "horizon" else f"Remove {key}."
        raise DTypeError(
            f"{path}: [target] {key}: column {time.name!r}: expected a timestamp or a date, "
            f"received {kind}. {advice}"
        )
    tick = timedelta(seconds=1) / TICKS[unit] if unit else timedelta(days=1)
    ticks, rest = divmod(length, tick)
    if rest:
        raise DTypeError(
            f"{path}: [target] {key}: column {time.name!r}: expected a multiple of "
            f"{format_duration(tick)}, as its type is {kind}, received {format_duration(length)}"
        )
    return ticks


class SourceLabels:
    """The labels of successive rows of a source; rejected and dropped rows are left out.

    `scorer` sorts the rows, and computes nothing. Rows are missing between two `runs` of record
    batches, so a row never gets a label from another run.
    """

    def __init__(
        self, scorer: Scorer, runs: Iterable[Iterator[SourceBatch]], target: BoundTarget
    ) -> None:
        self._scorer = scorer
        self._runs = runs
        self._reader = LabelReader(target)
        self._season = target.season

    def __iter__(self) -> Iterator[SeasonalLabels]:
        return with_seasons(self._labels(), self._season)

    def _labels(self) -> Iterator[Labels]:
        contract = self._scorer.bound.loaded.contract
        for run in self._runs:
            for batch in run:
                rows = contract.read(batch.batch, batch.origin)
                yield self._reader.add(rows, self._scorer.sort(rows))
            if (rest := self._reader.finish()) is not None:
                yield rest

    def find(self, keys: Sequence[pa.Array]) -> Ints:
        """Return the slot (N,) of each of N keys; new ones are added."""
        return self._scorer.table.find(keys, room=False)

    def key_arrays(self) -> list[pa.Array]:
        """Return the key columns, one value per slot."""
        return self._scorer.table.key_arrays()
