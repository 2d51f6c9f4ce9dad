"""The rows of an output beside what happened, in bounded memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Doubles, Ints
from streamrnn.jobs.evaluation.matching import (
    LabelledRows,
    Matcher,
    ScoreColumns,
    ScoreRows,
    score_rows,
)
from streamrnn.stream.checkpoints import read_manifest
from streamrnn.stream.checkpoints.partitioning import layout_in
from streamrnn.stream.windows import SeasonalLabels


class LabelledStreams(Protocol):
    """The rows of a source with their labels, and the streams that they belong to."""

    def __iter__(self) -> Iterator[SeasonalLabels]:
        """Return the labels of successive rows."""

    def find(self, keys: Sequence[pa.Array]) -> Ints:
        """Return the slot (N,) of each of N keys; new ones are added."""

    def key_arrays(self) -> list[pa.Array]:
        """Return the key columns, one value per slot."""


@dataclass(frozen=True)
class EvaluationPlan:
    """What is compared, and how.

    `keys` and `time` are columns of source and output, `scores` the M columns of the model's
    outputs, `targets` the K columns of labels, `integers` those of integers or booleans; `ahead`:
    labels are of later rows. `zone`: of months, "" for UTC. `since` and `until` limit the rows, in
    ticks: at or after, and before. `quantiles`: those that the outputs forecast. `spreads`: the
    second half of the outputs has the standard deviations of the first. `source_begins`: the
    earliest time of the source, if known: scores before it are not kept to be matched. `season`: of
    the seasonal forecasts that come with the labels, as text; "" for none. `trained_means` (K): the
    means of the labels that the model was trained on, if known.
    """

    keys: tuple[str, ...]
    time: pa.Field
    scores: tuple[str, ...]
    targets: tuple[str, ...]
    integers: frozenset[str] = frozenset()
    ahead: bool = False
    zone: str = ""
    by: Literal["stream", "month"] | None = None
    since: int | None = None
    until: int | None = None
    quantiles: tuple[float, ...] = ()
    spreads: bool = False
    source_begins: int | None = None
    season: str = ""
    trained_means: Sequence[float] | None = None

    @property
    def forecasts(self) -> tuple[str, ...]:
        """The names of the baselines that have a forecast of each row."""
        return (*(["persistence"] if self.ahead else []), *(["seasonal"] if self.season else []))


_REASONS = {
    "no_score": "without a score",
    "no_source": "without a row in the source",
    "no_label": "without a label",
    "no_weight": "with weight 0",
}


def not_compared(counts: Mapping[str, int]) -> str:
    """Return in words how many rows were not compared, and why; "" if all were.

    >>> not_compared({"rows": 9, "no_label": 2, "no_weight": 0})
    '2 without a label'
    """
    return ", ".join(
        f"{counts[name]:,} {reason}" for name, reason in _REASONS.items() if counts.get(name)
    )


@dataclass
class ComparedCounts:
    """Rows that were compared, and those that were not (see `Evaluation`)."""

    rows: int = 0
    no_score: int = 0
    no_source: int = 0
    no_label: int = 0
    no_weight: int = 0


class LabelsBefore:
    """The streams of `labels`; sums up those that were known before a time, as they are read."""

    def __init__(self, labels: LabelledStreams, time: int) -> None:
        self._streams, self._time = labels, time
        self._rest: Iterator[SeasonalLabels] = iter(())
        self._weight = 0.0
        self._sums: Doubles | float = 0.0

    def __iter__(self) -> Iterator[SeasonalLabels]:
        self._rest = self._read()
        return self._rest

    def _read(self) -> Iterator[SeasonalLabels]:
        for item in self._streams:
            labels = item.labels
            earlier = np.maximum(labels.at, labels.rows.time) < self._time
            earlier &= ~np.isnan(labels.label).any(axis=1)
            weight = labels.rows.weight[earlier]
            self._weight += float(weight.sum())
            self._sums = self._sums + (weight[:, np.newaxis] * labels.label[earlier]).sum(axis=0)
            yield item

    def means(self) -> list[float] | None:
        """Read what is left; return the mean (K) of each target, None if there were no labels."""
        for _ in self._rest:
            pass
        return np.divide(self._sums, self._weight).tolist() if self._weight else None

    def find(self, keys: Sequence[pa.Array]) -> Ints:
        """Return the slot (N,) of each of N keys; new ones are added."""
        return self._streams.find(keys)

    def key_arrays(self) -> list[pa.Array]:
        """Return the key columns, one value per slot."""
        return self._streams.key_arrays()


def compared_rows(
    path: str, labels: LabelledStreams, plan: EvaluationPlan, counts: ComparedCounts
) -> Iterator[tuple[ScoreRows, LabelledRows]]:
    """Read both sides, whichever is behind, until nothing more can match; yield pairs of rows.

    Pairs are complete: scores are finite, labels are there, weights are above zero. The others are
    added to `counts`, which are final at the end. Raises what `evaluate` raises.
    """
    manifest = read_manifest(path)
    matcher = Matcher(ordered=set(layout_in(manifest.config)) <= set(plan.keys))
    columns = ScoreColumns(plan.keys, plan.time, plan.scores)
    scores = score_rows(path, manifest, columns, labels.find)
    labelled = iter(labels)
    more_scores = more_labels = True
    while more_scores or (more_labels and matcher.waiting_scores):
        behind = matcher.waiting_scores <= matcher.waiting_labels
        if more_scores and (behind or not more_labels):
            rows = next(scores, None)
            more_scores = rows is not None
            if rows is not None:
                matcher.add_scores(_wanted(rows, plan, counts))
        else:
            found = next(labelled, None)
            more_labels = found is not None
            if found is not None:
                matcher.add_labels(_wanted(LabelledRows.of(found), plan, counts))
        pairs = matcher.match(scores_ended=not more_scores, labels_ended=not more_labels)
        if pairs is not None:
            yield _complete(*pairs, plan, counts)
    counts.no_source += matcher.missing


def _wanted(rows: Any, plan: EvaluationPlan, counts: ComparedCounts) -> Any:
    """Return the rows from `since` to `until`."""
    time = rows.time
    chosen = np.ones(len(time), bool)
    if plan.since is not None:
        chosen &= time >= plan.since
    if plan.until is not None:
        chosen &= time < plan.until
    if isinstance(rows, ScoreRows) and plan.source_begins is not None:
        early = chosen & (time < plan.source_begins)
        counts.no_source += int(early.sum())
        chosen &= ~early
    return rows.take(chosen)


def _complete(
    scores: ScoreRows, labels: LabelledRows, plan: EvaluationPlan, counts: ComparedCounts
) -> tuple[ScoreRows, LabelledRows]:
    """Return the pairs that can be compared; count the others."""
    present = {
        "no_score": np.isfinite(scores.score).all(axis=1),
        "no_label": ~np.isnan(labels.label).any(axis=1),
        "no_weight": labels.weight > 0,
    }
    valid = np.ones(len(scores.slot), bool)
    for name, good in present.items():
        setattr(counts, name, getattr(counts, name) + int((valid & ~good).sum()))
        valid &= good
    return scores.take(valid), labels.take(valid)
