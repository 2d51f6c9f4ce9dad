"""Read the scores of an output, and join them with the labels of its source, by stream and time."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Doubles, Floats, Ints
from streamrnn.base.display import location
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.jobs.outputs import part_batches
from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.checkpoints.manifest import decode_schema
from streamrnn.stream.sources import ticks
from streamrnn.stream.windows import SeasonalLabels


class ScoreRows(NamedTuple):
    """N rows of an output: stream, time in ticks, scores (N, M) float32, NaN for null."""

    slot: Ints
    time: Ints
    score: Floats

    def take(self, index: Array) -> "ScoreRows":
        """Return the rows of an index, or where it is true."""
        return ScoreRows._make(array[index] for array in self)


class LabelledRows(NamedTuple):
    """N rows of a source: stream, time, own value, label and seasonal forecast (N, K), weight."""

    slot: Ints
    time: Ints
    value: Doubles
    label: Doubles
    seasonal: Doubles
    weight: Doubles

    @classmethod
    def of(cls, item: SeasonalLabels) -> "LabelledRows":
        """Return the rows of labels."""
        rows, label = item.labels.rows, item.labels.label
        return cls(rows.slot, rows.time, rows.value, label, item.seasonal, rows.weight)

    def forecasts(self, target: int) -> dict[str, Doubles]:
        """Return the forecasts (N,) of a target by baseline, NaN for none."""
        return {"persistence": self.value[:, target], "seasonal": self.seasonal[:, target]}

    def take(self, index: Array) -> "LabelledRows":
        """Return the rows of an index, or where it is true."""
        return LabelledRows._make(array[index] for array in self)


class Matcher:
    """Matches score rows with source rows; both come in the order of each stream.

    Rows with the same stream and time are matched in their order. A row waits until its partner
    comes, or a later row of its stream is matched, or nothing can come any more. Few rows wait if
    the output has the order of the source; if it has not, those of an epoch do. Not `ordered`: the
    score rows of a stream are in any order (of partitions), so that a row waits until its partner
    comes, or nothing can come any more.

    `missing` is the number of score rows that have no source row.
    """

    def __init__(self, *, ordered: bool = True) -> None:
        self._remaining = _after if ordered else _but
        self._scores: list[ScoreRows] = []
        self._labels: list[LabelledRows] = []
        self._unmatched = 0
        self.waiting_scores = self.waiting_labels = 0
        self.missing = 0

    def add_scores(self, rows: ScoreRows) -> None:
        """Add the next rows of the output."""
        self._scores.append(rows)
        self.waiting_scores += len(rows.slot)

    def add_labels(self, rows: LabelledRows) -> None:
        """Add the next rows of the source."""
        self._labels.append(rows)
        self.waiting_labels += len(rows.slot)

    def match(
        self, *, scores_ended: bool, labels_ended: bool
    ) -> tuple[ScoreRows, LabelledRows] | None:
        """Return the rows that are matched now, pair by pair; None if there are none.

        As all waiting rows are sorted, nothing is matched until there are half as many new ones.
        """
        new = self.waiting_scores + self.waiting_labels - self._unmatched
        if not (scores_ended and labels_ended) and 2 * new < self._unmatched:
            return None
        found = None
        if self._scores and self._labels:
            scores = ScoreRows._make(map(np.concatenate, zip(*self._scores, strict=True)))
            labels = LabelledRows._make(map(np.concatenate, zip(*self._labels, strict=True)))
            left, right = _pairs(scores, labels)
            found = scores.take(left), labels.take(right)
            keep = self._remaining(left, scores.slot)
            self.missing += len(keep) - int(keep.sum()) - len(left)
            self._scores = [scores.take(keep)]
            self._labels = [labels.take(self._remaining(right, labels.slot))]
        if labels_ended:
            self.missing += sum(len(rows.slot) for rows in self._scores)
            self._scores = []
        if scores_ended:
            self._labels = []
        self.waiting_scores = sum(len(rows.slot) for rows in self._scores)
        self.waiting_labels = sum(len(rows.slot) for rows in self._labels)
        self._unmatched = self.waiting_scores + self.waiting_labels
        return found


def _pairs(scores: ScoreRows, labels: LabelledRows) -> tuple[Ints, Ints]:
    """Return the indices of rows with the same stream and time, and number among such rows."""
    n = len(scores.slot)
    _, rank = np.unique(np.concatenate([scores.time, labels.time]), return_inverse=True)
    code = np.concatenate([scores.slot, labels.slot]) * (len(rank) + 1) + rank
    order, other = np.argsort(code[:n], kind="stable"), np.argsort(code[n:], kind="stable")
    wanted, offered = code[:n][order], code[n:][other]
    nth = np.arange(n) - np.searchsorted(wanted, wanted)
    place = np.searchsorted(offered, wanted) + nth
    found = place < len(offered)
    found[found] = offered[place[found]] == wanted[found]
    return order[found], other[place[found]]


def _after(matched: Ints, slot: Ints) -> Array:
    """Return which rows come after the last matched row of their stream."""
    last = np.full(int(slot.max(initial=-1)) + 1, -1)
    np.maximum.at(last, slot[matched], matched)
    return np.arange(len(slot)) > last[slot]


def _but(matched: Ints, slot: Ints) -> Array:
    """Return which rows are not matched."""
    keep = np.ones(len(slot), bool)
    keep[matched] = False
    return keep


class ScoreColumns(NamedTuple):
    """The columns of an output that are read; `time` has the type of the source's."""

    keys: tuple[str, ...]
    time: pa.Field
    scores: tuple[str, ...]


def score_rows(
    path: str,
    manifest: Manifest,
    wanted: ScoreColumns,
    find: Callable[[Sequence[pa.Array]], Ints],
) -> Iterator[ScoreRows]:
    """Read key, time and scores of the committed parts, in order (within each partition).

    Raises CheckpointError for a missing or damaged part, ConfigError for a missing column.
    """
    written = decode_schema(manifest.schema).names
    columns = [*wanted.keys, wanted.time.name, *wanted.scores]
    for part, batch in part_batches(path, manifest, columns):
        _check_columns(batch.schema, wanted, path, written)
        try:
            time = batch.column(wanted.time.name).cast(wanted.time.type)
        except pa.ArrowException as error:
            raise CheckpointError(
                f"{location(path)}: {part.name} cannot be read: {error}"
            ) from error
        keys = [batch.column(name) for name in wanted.keys]
        scores = [batch.column(name).to_numpy(zero_copy_only=False) for name in wanted.scores]
        score = [values.astype(np.float32) for values in scores]  # NaN for null
        yield ScoreRows(find(keys), ticks(time), np.stack(score, axis=1))


def _check_columns(
    schema: pa.Schema, wanted: ScoreColumns, path: str, written: Sequence[str]
) -> None:
    present = f"(columns: {', '.join(written)})"
    if missing := [name for name in (*wanted.keys, wanted.time.name) if name not in schema.names]:
        raise ConfigError(
            f"{location(path)} has no column {missing[0]!r} {present}. Scores are joined with "
            f"labels by key and time: add {', '.join(map(repr, missing))} to [output] columns, and "
            "score again with --full-refresh"
        )
    for name in wanted.scores:
        if name not in schema.names:
            raise ConfigError(
                f"[output] names: {location(path)} has no column {name!r} {present}. Set the names "
                "that it was written with"
            )
