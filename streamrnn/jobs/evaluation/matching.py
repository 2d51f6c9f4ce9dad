"""Read the scores of an output, and join them with the labels of its source, by stream and time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Bools, Doubles, Floats, Ints
from streamrnn.base.display import location
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.jobs.evaluation.measures import Ranks
from streamrnn.jobs.outputs import part_batches
from streamrnn.nn.models.mixture import crossings
from streamrnn.stream.checkpoints import Manifest, read_manifest
from streamrnn.stream.checkpoints.manifest import decode_schema
from streamrnn.stream.checkpoints.partitioning import layout_in
from streamrnn.stream.sources import ticks
from streamrnn.stream.windows import SeasonalLabels

By = Literal["stream", "month", "model"]
OF_FIT = "that the fit of this model was trained on"


class ScoreRows(NamedTuple):
    """N rows of an output: stream, time in ticks, scores (N, M) float32, NaN for null.

    `model`: the number of the model that computed each row, in `EvaluationPlan.models`.
    """

    slot: Ints
    time: Ints
    score: Floats
    model: Ints


class LabelledRows(NamedTuple):
    """N rows of a source: stream, time, weight; own value, label and seasonal forecast (N, K)."""

    slot: Ints
    time: Ints
    value: Doubles
    label: Doubles
    seasonal: Doubles
    weight: Doubles

    @classmethod
    def of(cls, item: SeasonalLabels) -> "LabelledRows":
        """Return rows with labels and seasonal forecasts."""
        of, label = item.labels.rows, item.labels.label
        return cls(of.slot, of.time, of.value, label, item.seasonal, of.weight)

    def forecasts(self, target: int) -> dict[str, Doubles]:
        """Return the forecasts (N,) of a target by baseline, NaN where a baseline has none."""
        return {"persistence": self.value[:, target], "seasonal": self.seasonal[:, target]}


_Rows = TypeVar("_Rows", ScoreRows, LabelledRows)


def _taken(rows: _Rows, index: Array) -> _Rows:
    return type(rows)._make(array[index] for array in rows)


class Matcher:
    """Matches score rows with source rows; within a stream, both come in the same order.

    Rows with the same stream and time are matched in their order. A row waits until its partner
    comes, or a later row of its stream is matched, or nothing can come any more. Few rows wait if
    the output is in the order of the source; otherwise the rows of an epoch wait. If not `ordered`,
    the score rows of a stream come in the order of partitions: then a row waits until its partner
    comes, or nothing can come any more.

    `missing` is the number of score rows that have no source row.
    """

    def __init__(self, *, ordered: bool = True) -> None:
        self._ordered = ordered
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
        """Return the rows that match now, pair by pair; None if matching was put off or impossible.

        Matching sorts all waiting rows again, so it is put off until there are at least half as
        many new rows as earlier ones, or nothing more can come.
        """
        new = self.waiting_scores + self.waiting_labels - self._unmatched
        if not (scores_ended and labels_ended) and 2 * new < self._unmatched:
            return None
        pairs = None
        if self._scores and self._labels:
            scores = ScoreRows._make(map(np.concatenate, zip(*self._scores, strict=True)))
            labels = LabelledRows._make(map(np.concatenate, zip(*self._labels, strict=True)))
            left, right = _pairs(scores, labels)
            pairs = _taken(scores, left), _taken(labels, right)
            keep = self._remaining(left, scores.slot)
            self.missing += len(keep) - int(keep.sum()) - len(left)
            self._scores = [_taken(scores, keep)]
            self._labels = [_taken(labels, self._remaining(right, labels.slot))]
        if labels_ended:
            self.missing += sum(len(rows.slot) for rows in self._scores)
            self._scores = []
        if scores_ended:
            self._labels = []
        self.waiting_scores = sum(len(rows.slot) for rows in self._scores)
        self.waiting_labels = sum(len(rows.slot) for rows in self._labels)
        self._unmatched = self.waiting_scores + self.waiting_labels
        return pairs

    def _remaining(self, matched: Ints, slot: Ints) -> Array:
        """Return which rows may still match.

        If ordered, these are the rows after the last match in their stream, else the rows without a
        match.
        """
        if self._ordered:
            last = np.full(int(slot.max(initial=-1)) + 1, -1)
            np.maximum.at(last, slot[matched], matched)
            return np.arange(len(slot)) > last[slot]
        keep = np.ones(len(slot), bool)
        keep[matched] = False
        return keep


def _pairs(scores: ScoreRows, labels: LabelledRows) -> tuple[Ints, Ints]:
    """Return the indices of pairs: the nth score and the nth label of the same stream and time."""
    n = len(scores.slot)
    _, rank = np.unique(np.concatenate([scores.time, labels.time]), return_inverse=True)
    code = np.concatenate([scores.slot, labels.slot]) * (len(rank) + 1) + rank
    order, other = np.argsort(code[:n], kind="stable"), np.argsort(code[n:], kind="stable")
    wanted, offered = code[:n][order], code[n:][other]
    nth = np.arange(n) - np.searchsorted(wanted, wanted)
    place = np.searchsorted(offered, wanted) + nth
    matched = place < len(offered)
    matched[matched] = offered[place[matched]] == wanted[matched]
    return order[matched], other[place[matched]]


@dataclass(frozen=True)
class EvaluationPlan:
    """What is compared, and how.

    `keys` and `time` are columns of source and output, `scores` the M columns of the model's
    outputs, `targets` the columns of the K `labels`, `integers` the integer or boolean targets,
    `horizons` how much later each label is; `ahead`: labels lie in later rows. `zone` is the time
    zone of months, "" for UTC. `since` (included) and `until` (not included) limit the rows, in
    ticks. `quantiles` are forecast by the outputs. `spreads`: the first half of the outputs are
    means, the second half their standard deviations. `source_begins`: the earliest time of the
    source, if known: scores before it are not kept to be matched. `season`: the season of the
    seasonal forecasts that come with the labels, as text; "" for none. `means` (K): the
    means of the labels, if known before; `shifts`: name of a baseline -> its error at each of the
    `quantiles`; `means_of` and `shifts_of` say over which labels. `trained_to`: the time of the
    last row that the model was trained on, in ticks, if known. `class_weight`: whether classes have
    weights in the training loss. `model`: the fingerprint of the
    present model; `models`: fingerprint -> number of each model that computed scores, filled as
    these are read.
    """

    keys: tuple[str, ...]
    time: pa.Field
    scores: tuple[str, ...]
    targets: tuple[str, ...]
    integers: frozenset[str] = frozenset()
    labels: tuple[str, ...] = ()
    horizons: tuple[str, ...] = ()
    ahead: bool = False
    zone: str = ""
    by: By | None = None
    since: int | None = None
    until: int | None = None
    quantiles: tuple[float, ...] = ()
    spreads: bool = False
    source_begins: int | None = None
    season: str = ""
    means: Sequence[float] | None = None
    means_of: str = "compared, known only afterwards"
    shifts: Mapping[str, Doubles] = field(default_factory=dict)
    shifts_of: str = means_of
    trained_to: int | None = None
    class_weight: bool = False
    model: str = ""
    models: dict[str, int] = field(default_factory=dict)

    @property
    def several_horizons(self) -> bool:
        """Whether each column has labels with several horizons."""
        return len(set(self.horizons)) > 1

    @property
    def forecasts(self) -> tuple[str, ...]:
        """The names of the baselines that have a forecast of their own for each row."""
        return (*(["persistence"] if self.ahead else []), *(["seasonal"] if self.season else []))


def score_rows(
    path: str, manifest: Manifest, plan: EvaluationPlan, find: Callable[[Sequence[pa.Array]], Ints]
) -> Iterator[ScoreRows]:
    """Read key, time and scores of the committed parts, in order (within each partition).

    Raises CheckpointError for a missing or damaged part; ConfigError for a missing column, or if
    the plan has the scores in another order than they were written in, as outputs are compared by
    their order.
    """
    written = decode_schema(manifest.schema).names
    in_order = [name for name in written if name in plan.scores]
    if len(in_order) == len(plan.scores) and in_order != list(plan.scores):
        raise ConfigError(
            f"[output] names: expected {', '.join(in_order)}, the order in which {location(path)} "
            f"was written, received {', '.join(plan.scores)}"
        )
    columns = [*plan.keys, plan.time.name, *plan.scores]
    for part, batch in part_batches(path, manifest, columns):
        present = f"(columns: {', '.join(written)})"
        missing = [name for name in columns if name not in batch.schema.names]
        if joined := [name for name in missing if name not in plan.scores]:
            raise ConfigError(
                f"{location(path)} has no column {joined[0]!r} {present}. Scores are joined with "
                f"labels by key and time: add {', '.join(map(repr, joined))} to [output] columns, "
                "and score again with --full-refresh"
            )
        if missing:
            raise ConfigError(
                f"[output] names: {location(path)} has no column {missing[0]!r} {present}. Set the "
                "names that it was written with"
            )
        try:
            time = batch.column(plan.time.name).cast(plan.time.type)
        except pa.ArrowException as error:
            raise CheckpointError(
                f"{location(path)}: {part.name} cannot be read: {error}"
            ) from error
        keys = [batch.column(name) for name in plan.keys]
        scores = [batch.column(name).to_numpy(zero_copy_only=False) for name in plan.scores]
        score = [values.astype(np.float32) for values in scores]  # NaN for null
        number = plan.models.setdefault(part.model, len(plan.models))
        model = np.full(len(time), number)
        yield ScoreRows(find(keys), ticks(time), np.stack(score, axis=1), model)


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
    """How many rows were compared, and how many were not, by reason (see `Evaluation`).

    `crossed` of the rows compared have quantiles that are not in ascending order.
    """

    rows: int = 0
    no_score: int = 0
    no_source: int = 0
    no_label: int = 0
    no_weight: int = 0
    crossed: int = 0


def with_earlier(plan: EvaluationPlan, rows: Iterable[SeasonalLabels]) -> EvaluationPlan:
    """Return the plan with means of labels, and quantiles of errors of baselines, that it lacks.

    They are of the rows that the model was trained on, else of those before `since`; if there are
    none, quantiles are of the rows compared.
    """
    trained_to = None if plan.means is None else plan.trained_to  # of the labels of a fit
    limit = plan.since if trained_to is None else trained_to + 1
    limit = np.iinfo(np.int64).min if limit is None else limit
    errors = {name: Ranks() for name in plan.forecasts if plan.quantiles}
    weight, sums = 0.0, np.zeros(len(plan.targets))
    for item in rows:
        row = LabelledRows.of(item)
        used = ~np.isnan(row.label).any(axis=1) & (row.weight > 0)
        earlier = used & (np.maximum(item.labels.at.max(axis=1), row.time) < limit)
        weight += float(row.weight[earlier].sum())
        sums += (row.weight[earlier, np.newaxis] * row.label[earlier]).sum(axis=0)
        for name, ranks in errors.items():
            error = row.label[:, 0] - row.forecasts(0)[name]
            some = used & ~np.isnan(error) & (earlier | _within(row.time, plan))
            group, values = np.zeros(int(some.sum()), np.int64), error[some].astype(np.float32)
            ranks.add(group, values, earlier[some], row.weight[some])
    shifts = {name: ranks.quantiles(plan.quantiles) for name, ranks in errors.items()}
    if not weight:
        return replace(plan, shifts=shifts)
    of = "before the first row compared" if trained_to is None else OF_FIT
    if plan.means is None:
        plan = replace(plan, means=(sums / weight).tolist(), means_of=of)
    return replace(plan, shifts=shifts, shifts_of=of)


def compared_rows(
    path: str,
    find: Callable[[Sequence[pa.Array]], Ints],
    labels: Iterable[SeasonalLabels],
    plan: EvaluationPlan,
    counts: ComparedCounts,
) -> Iterator[tuple[ScoreRows, LabelledRows]]:
    """Read the side that is behind until nothing more can match; yield pairs of rows.

    `find` returns the slot (N,) of each of N keys, as in the rows of `labels`; new keys are added.
    Pairs are complete: scores are finite, labels are there, weights are above zero. Other score
    rows at times of the plan are added to `counts`, which are final at the end. Raises what
    `evaluate` raises.
    """
    manifest = read_manifest(path)
    matcher = Matcher(ordered=set(layout_in(manifest.config)) <= set(plan.keys))
    scores = score_rows(path, manifest, plan, find)
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
            item = next(labelled, None)
            more_labels = item is not None
            if item is not None:
                matcher.add_labels(_wanted(LabelledRows.of(item), plan, counts))
        pairs = matcher.match(scores_ended=not more_scores, labels_ended=not more_labels)
        if pairs is not None:
            yield _complete(*pairs, plan, counts)
    counts.no_source += matcher.missing


def _wanted(rows: _Rows, plan: EvaluationPlan, counts: ComparedCounts) -> _Rows:
    """Return the rows at `since` or later, and before `until`.

    Scores from before the source begins are left out, too, and counted.
    """
    time, chosen = rows.time, _within(rows.time, plan)
    if isinstance(rows, ScoreRows) and plan.source_begins is not None:
        early = chosen & (time < plan.source_begins)
        counts.no_source += int(early.sum())
        chosen &= ~early
    return _taken(rows, chosen)


def _within(time: Ints, plan: EvaluationPlan) -> Bools:
    """Return which times (N,) are at `since` or later, and before `until`."""
    chosen = np.ones(len(time), bool)
    if plan.since is not None:
        chosen &= time >= plan.since
    if plan.until is not None:
        chosen &= time < plan.until
    return chosen


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
    if plan.quantiles:
        counts.crossed += crossings(scores.score[valid][:, np.argsort(plan.quantiles)])
    return _taken(scores, valid), _taken(labels, valid)
