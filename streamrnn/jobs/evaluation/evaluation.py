"""Compare the committed scores of an output with what happened: see `Pipeline.evaluate`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streamrnn.base.arrays import Doubles, Ints
from streamrnn.base.display import count, location, short_model, without_options
from streamrnn.base.storage import replace_file
from streamrnn.errors import ConfigError, MissingFileError, SinkError
from streamrnn.jobs.evaluation.matching import (
    OF_FIT,
    By,
    ComparedCounts,
    EvaluationPlan,
    LabelledRows,
    ScoreRows,
    compared_rows,
    with_earlier,
)
from streamrnn.jobs.evaluation.measures import Band, Classes, Distance, Measure, Number, Pairs
from streamrnn.jobs.fitting import FitFolder, FitRecord
from streamrnn.jobs.preflight import after_rule, file_source, lenient, refuse_result, with_target
from streamrnn.nn.models.mixture import gives_moments
from streamrnn.nn.training.metrics import level_weights
from streamrnn.stream.checkpoints import current_names, read_manifest
from streamrnn.stream.config.notations import format_duration
from streamrnn.stream.scoring import LoadedPipeline, Scorer, SourceLabels
from streamrnn.stream.sources import (
    FileSource,
    SourceBatch,
    SourceFile,
    canonical_name,
    parse_time,
    shown_time,
)
from streamrnn.stream.states import StateTable


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    `table` has one row per group and output: over all rows first (null keys, month or model), then
    by stream, month or model; a key column with the name of a figure has `_` after its name.
    Figures are null where there is nothing to measure. `rows` is the number of rows compared; the
    other counts are of output rows that were not: without a score (warm-up), without a row in the
    source, without a label, with weight 0. `crossed` rows have quantiles that cross.

    A baseline, such as persistence, is compared over the `rows_persistence` for which it has a
    forecast: for numbers, `rmse_persistence` is its error, `rmse_where_persistence` the model's
    error over these rows, `better_persistence` the share by which the model's error is smaller.
    `better` is the smallest such share: by how much the model beats the `best_baseline`. Figures
    that name no baseline are over all rows. Months are in `zone`: [source] time_zone, else UTC; ""
    for times without a zone. `baselines` describes the baselines by name; `notes` say what else a
    reader of the figures has to know.
    """

    output: str
    table: pa.Table
    rows: int
    no_score: int
    no_source: int
    no_label: int
    no_weight: int
    crossed: int
    baselines: dict[str, str]
    zone: str = ""
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return the counts of rows by name."""
        return {of.name: getattr(self, of.name) for of in fields(ComparedCounts)}


_MARK = b"streamrnn.evaluation"
"""The metadata key that shows that a Parquet file is the table of an evaluation."""


def _is_table(file: BinaryIO) -> bool:
    try:
        return _MARK in (pq.read_schema(file).metadata or {})
    except pa.ArrowInvalid:
        return False


def evaluate_pipeline(
    loaded: LoadedPipeline,
    by: By | None,
    since: str | datetime | int | None,
    until: str | datetime | int | None,
    quantiles: Sequence[float],
    file: str | None,
) -> Evaluation:
    """Open source and output, and compare them: see `Pipeline.evaluate`."""
    if by is not None and by not in get_args(By):
        raise ConfigError(f'by: expected "stream", "month" or "model", received {by!r}')
    config = loaded.config
    if not config.target.column:
        raise ConfigError(
            "evaluate: [target] column is missing: the column to compare the scores with. Add a "
            'table such as\n  [target]\n  column = "temp"\n  horizon = "3h"'
        )
    if config.source.time is None:
        raise ConfigError(
            "evaluate: [source] time is missing: scores are joined with labels by key and time. "
            "Name the column of the times, and score again with --full-refresh"
        )
    if config.sink.folder is None or config.source.path is None or config.source.piped:
        raise ConfigError(
            "evaluate needs files in both [source] path and [sink] path: stdin and stdout "
            "cannot be read again"
        )
    if file is not None:
        if not without_options(file).endswith(".parquet"):
            raise ConfigError(f"{location(file)}: expected a file name ending in .parquet")
        refuse_result(file, "evaluate", "evaluation.parquet", config.canonical(), _is_table)
    output = config.sink.folder
    labels, plan = comparison(loaded, output, since, until, quantiles)
    if by == "month" and pa.types.is_integer(plan.time.type):
        raise ConfigError(
            f"by month: [source] time: column {plan.time.name!r}: expected a timestamp or a date, "
            f"received {plan.time.type}"
        )
    evaluation = _Run(output, labels, replace(plan, by=by)).result()
    if file is not None:
        try:
            with replace_file(file) as written:
                pq.write_table(evaluation.table.replace_schema_metadata({_MARK: "1"}), written)
        except (pa.ArrowException, OSError) as error:
            cause = error.__cause__ if isinstance(error, SinkError) else error
            raise SinkError(f"{location(file)}: cannot write the evaluation: {cause}") from error
    if read_manifest(output).model == loaded.fingerprint:
        return evaluation
    note = (
        f"the last rows of {location(output)} were scored by another model, or with another "
        "precision or other [output] quantiles, than the pipeline file sets now"
    )
    return replace(evaluation, notes=(note, *evaluation.notes))


def comparison(
    loaded: LoadedPipeline,
    output: str,
    since: str | datetime | int | None = None,
    until: str | datetime | int | None = None,
    quantiles: Sequence[float] = (),
    watch: Callable[[pa.RecordBatch], None] | None = None,
) -> tuple[SourceLabels, EvaluationPlan]:
    """Open the source of a pipeline with [target], and plan its comparison with the output.

    `watch` is called with each record batch that is read. Raises what `evaluate` raises.
    """
    source, runs = scored_source(loaded, output)
    bound = lenient(loaded).bind(source.schema, source.name)
    wide, target = with_target(bound, source)
    assert target is not None

    def labelled(watch: Callable[[pa.RecordBatch], None] | None) -> SourceLabels:
        batches = (wide.subset(run).batches() for run in runs)
        watched = batches if watch is None else (_watched(of, watch) for of in batches)
        scorer = Scorer(bound, StateTable(bound.layout, bound.initial()))
        return SourceLabels(scorer, watched, target)

    begins = source.times(source.files)
    complete = len(begins) == sum(source.footer(file).rows > 0 for file in source.files)
    time, zone = bound.schema.field(str(loaded.config.source.time)), loaded.config.source.time_zone
    aim = loaded.config.target
    kinds = {name: wide.schema.field(name).type for name in aim.column}
    classes = [n for n, t in kinds.items() if pa.types.is_integer(t) or pa.types.is_boolean(t)]
    if any(loaded.runner.own) and len(aim.labels) < len(loaded.names):
        classes = []  # the outputs are steps of a forecast, not probabilities
    trained = loaded.config.quantiles
    fits = len(trained) == len(loaded.names) and len(aim.labels) == 1
    fit = FitFolder(loaded.config.model.path).result()
    means = None if fit is None else _trained_means(fit, aim.labels)
    plan = EvaluationPlan(
        keys=loaded.config.source.key,
        time=time,
        scores=loaded.names,
        targets=tuple(name for name in aim.column for _ in aim.horizon or [0]),
        labels=aim.labels,
        horizons=tuple(map(format_duration, aim.horizon * len(aim.column))),
        integers=frozenset(classes),
        ahead=aim.ahead,
        zone=zone,
        since=None if since is None else parse_time(str(since), time.type, "since", zone),
        until=None if until is None else parse_time(str(until), time.type, "until", zone),
        quantiles=tuple(quantiles) or (trained if fits else ()),
        spreads=not quantiles and gives_moments(loaded.model),
        source_begins=min(of.first for of in begins) if begins and complete else None,
        season=format_duration(aim.season),
        means=means,
        trained_to=None if fit is None else fit.trained_to.get(str(time.type)),
        class_weight=loaded.config.train.class_weight is not None,
        model=loaded.fingerprint,
    )
    if means is not None:
        plan = replace(plan, means_of=OF_FIT)
    measures_of(plan)  # raises ConfigError for quantiles that are none
    if (plan.quantiles and plan.forecasts) or (means is None and since is not None):
        plan = with_earlier(plan, labelled(None))
    return labelled(watch), plan


def scored_source(loaded: LoadedPipeline, output: str) -> tuple[FileSource, list[list[SourceFile]]]:
    """Open the files that an output was scored from, in order, then the files that a run would add.

    New files may have labels for the last rows. Also return the files in sequences: between two of
    them, scored files are gone. Rows at which a run would stop raise no error. Raises
    MissingFileError if no used file is left.
    """
    loaded, manifest = lenient(loaded), read_manifest(output)
    source = file_source(loaded)
    listed = {file.name: file for file in source.files}
    names = current_names(manifest, listed, canonical_name(output))
    used = [names.get(file.path, file.path) for file in manifest.sources]
    if listed.keys().isdisjoint(used):
        raise MissingFileError(
            f"[source] path: {loaded.config.source.path}: none of the files that {output} was "
            "scored from is there. Restore them, or fix the path."
        )
    source.earlier = manifest.config.get("source.schema", {})
    read = set(used)
    new = [file for file in source.files if file.name not in read]
    new = list(after_rule(loaded, source)(new, used))
    if loaded.config.source.order == "time":
        new = list(source.in_time_order(new))
    runs: list[list[SourceFile]] = [[]]
    for name in used:
        if name in listed:
            runs[-1].append(listed[name])
        elif runs[-1]:
            runs.append([])
    runs[-1] += new
    source.files = [file for run in runs for file in run]
    return source, runs


def _watched(
    batches: Iterator[SourceBatch], watch: Callable[[pa.RecordBatch], None]
) -> Iterator[SourceBatch]:
    for batch in batches:
        watch(batch.batch)
        yield batch


def _trained_means(fit: FitRecord, labels: Sequence[str]) -> Sequence[float] | None:
    """Return the means of the labels that a fit was trained on; None if it had other labels.

    Raises ConfigError if the fit had the same labels in another order: outputs are compared by
    position.
    """
    means = fit.label_means
    if sorted(means) == sorted(labels) and list(means) != list(labels):
        raise ConfigError(
            f"[target] column and horizon: expected {', '.join(means)}, the order in which the "
            f"model was fitted, received {', '.join(labels)}"
        )
    return [means[name] for name in labels] if means.keys() >= set(labels) else None


class MeasuredOutput(NamedTuple):
    """One measure, the outputs that it reads, their name, and the target."""

    measure: Measure
    units: Sequence[int]
    name: str
    target: int
    quantile: float | None = None
    shifts: Mapping[str, float] = MappingProxyType({})


class GroupedMeasures:
    """The measures of all outputs by group, and the number of `rows` of each group."""

    def __init__(self, plan: EvaluationPlan) -> None:
        self.outputs = measures_of(plan)
        self.rows = np.zeros(1, np.int64)

    def add(self, group: Ints, scores: ScoreRows, labels: LabelledRows) -> None:
        """Add N rows; `group` (N,) counts from 0."""
        rows = np.bincount(group, minlength=len(self.rows))
        rows[: len(self.rows)] += self.rows
        self.rows = rows
        for item in self.outputs:
            score, label = scores.score[:, item.units], labels.label[:, item.target]
            forecasts = labels.forecasts(item.target)
            forecasts |= {name: forecasts[name] + shift for name, shift in item.shifts.items()}
            item.measure.add(Pairs(group, score, label, forecasts, labels.weight))

    def figures(self, groups: int, means: Sequence[float] | None) -> list[dict[str, Doubles]]:
        """Return the figures (groups,) of each output by name.

        `means`: the mean of each target, if known. If there are several quantiles, all have the
        same `crps`, which is computed from all of them together (see `level_weights`).
        """
        figures = [
            dict(item.measure.result(groups, None if means is None else means[item.target]))
            for item in self.outputs
        ]
        levels = [item.quantile for item in self.outputs if item.quantile is not None]
        if len(levels) > 1:
            weights = level_weights(levels).tolist()
            losses = [of["pinball"] for of in figures]
            crps = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
            figures = [{**of, "crps": crps} for of in figures]
        return figures


class _Run:
    """One evaluation: reads output and source, and measures the pairs of their rows."""

    def __init__(self, path: str, labels: SourceLabels, plan: EvaluationPlan) -> None:
        self.path, self.labels, self.plan = path, labels, plan
        self._measures = GroupedMeasures(plan)
        self._months: dict[int, int] = {}
        self._models: set[int] = set()
        self._trained = 0

    def result(self) -> Evaluation:
        plan, counts, find = self.plan, ComparedCounts(), self.labels.find
        for scores, labels in compared_rows(self.path, find, self.labels, plan, counts):
            counts.rows += len(scores.slot)
            self._models.update(np.unique(scores.model).tolist())
            if plan.trained_to is not None:
                present = scores.model == plan.models.get(plan.model)
                self._trained += int((present & (scores.time <= plan.trained_to)).sum())
            for groups in self._groups(scores):
                self._measures.add(groups, scores, labels)
        table = self._table()
        shift = ""
        if plan.shifts:
            shift = f", plus the quantile of its error over the labels {plan.shifts_of}"
        texts = {
            "persistence": f"the value at the row itself{shift}",
            "seasonal": f"the value {plan.season}, or a multiple of it, before the label{shift}",
            "mean": f"the mean of the labels {plan.means_of}",
            "base_rate": "the share of each class in the rows compared, known only afterwards",
        }
        return Evaluation(
            location(self.path),
            table,
            **vars(counts),
            baselines={
                name: text
                for name, text in texts.items()
                if any(column.endswith(f"_{name}") for column in table.column_names)
            },
            zone=plan.zone or ("UTC" if getattr(plan.time.type, "tz", None) else ""),
            notes=tuple(self._notes(counts.crossed, table)),
        )

    def _notes(self, crossed: int, table: pa.Table) -> Iterator[str]:
        if crossed:
            yield (
                f"quantiles cross in {count(crossed, 'row')} compared; [output] sort = true puts "
                "the quantiles of later runs in order"
            )
        if "auc_error" in table.column_names and (error := pc.max(table["auc_error"]).as_py()):
            yield (
                "there are too many scores to keep each in memory, so that near ones count as "
                f"equal: auc is exact to {error:.1g}"
            )
        if self.plan.class_weight and "log_loss" in table.column_names:
            yield (
                "[train] class_weight shifts probabilities towards classes with large weights, and "
                "with them log-loss and accuracy; auc and average precision depend on the order of "
                "rows alone"
            )
        if self._trained:
            assert self.plan.trained_to is not None
            last = shown_time(self.plan.trained_to, self.plan.time.type)
            yield (
                f"this model was trained on rows up to {last}; rows compared that are not later: "
                f"{self._trained:,}. Set --since to a later time, to judge it by rows that it has "
                "not seen"
            )
        if len(self._models) > 1 and self.plan.by != "model":
            yield (
                f"rows of {len(self._models)} models are compared together; --by model has a line "
                "for each"
            )

    def _groups(self, rows: ScoreRows) -> list[Ints]:
        """Return arrays (N,) of the rows' groups: one of zeros, the group of all rows.

        With `by`, a second one numbers the rows' streams, months or models from 1.
        """
        groups: list[Ints] = [np.zeros(len(rows.slot), np.int64)]
        if self.plan.by == "stream":
            groups.append(rows.slot + 1)
        elif self.plan.by == "model":
            groups.append(rows.model + 1)
        elif self.plan.by == "month":
            months, index = np.unique(_months(rows.time, self.plan), return_inverse=True)
            numbers = [self._months.setdefault(m, len(self._months) + 1) for m in months.tolist()]
            groups.append(np.array(numbers, np.int64)[index])
        return groups

    def _table(self) -> pa.Table:
        rows = self._measures.rows
        shown = np.unique(np.append(np.flatnonzero(rows > 0), 0))
        if self.plan.by == "month":  # groups are numbered as their months come
            months = {number: month for month, number in self._months.items()}
            shown = np.array(sorted(shown.tolist(), key=lambda g: (g > 0, months.get(g, 0))))
        names = self._group_columns(shown)
        tables = []
        results = self._measures.figures(len(rows), self.plan.means)
        for item, figures in zip(self._measures.outputs, results, strict=True):
            columns = {
                "output": pa.array([item.name] * len(shown)),
                "target": pa.array([self.plan.targets[item.target]] * len(shown)),
            }
            if self.plan.several_horizons:
                columns["horizon"] = pa.array([self.plan.horizons[item.target]] * len(shown))
            columns["rows"] = pa.array(rows[shown])
            if item.quantile is not None:
                columns["quantile"] = pa.array([item.quantile] * len(shown))
            columns |= {
                name: pa.array(values[shown].astype(np.int64))
                if name.startswith("rows_")
                else _nullable(values[shown])
                for name, values in figures.items()
            }
            columns |= _against_the_best({name: of[shown] for name, of in figures.items()})
            tables.append(pa.table(columns))
        whole = pa.concat_tables(tables, promote_options="default")
        for name, column in reversed(names.items()):
            while name in whole.column_names:  # a key column with the name of a figure
                name += "_"
            whole = whole.add_column(0, name, pa.chunked_array([column] * len(tables)))
        rank = np.tile(np.arange(len(shown)), len(tables))
        return whole.take(pa.array(np.argsort(rank, kind="stable"))).combine_chunks()

    def _group_columns(self, shown: Ints) -> dict[str, pa.Array]:
        """Return the columns that name groups; they are null for the group of all rows."""
        if self.plan.by is None:
            return {}
        if self.plan.by == "month":
            months = {number: month for month, number in self._months.items()}
            parts = [divmod(months[g], 12) if g else None for g in shown.tolist()]
            texts = [part and f"{part[0]:04}-{part[1] + 1:02}" for part in parts]
            return {"month": pa.array(texts, pa.string())}
        index = pa.array(shown - 1, mask=shown == 0)
        if self.plan.by == "model":
            names = pa.array(map(short_model, self.plan.models), pa.string())
            return {"model": names.take(index)}
        keys = zip(self.plan.keys, self.labels.key_arrays(), strict=True)
        return {name: key.take(index) for name, key in keys}


def _against_the_best(figures: dict[str, Doubles]) -> dict[str, pa.Array]:
    """Return the best baseline of each group, and by what share the model errs less.

    Both are null for a group without a baseline; if there is no `better_` figure, return {}.
    """
    shares = {
        name.removeprefix("better_"): values
        for name, values in figures.items()
        if name.startswith("better_")
    }
    if not shares:
        return {}
    table = np.stack(list(shares.values()))
    table[np.isnan(table)] = np.inf
    best, least = table.argmin(axis=0), table.min(axis=0)
    names = pa.array(list(shares)).take(pa.array(best, mask=least == np.inf))
    return {"best_baseline": names, "better": _nullable(least)}


def measures_of(plan: EvaluationPlan) -> list[MeasuredOutput]:
    """Choose how each output is compared. Raises ConfigError if outputs do not match targets."""
    scores, targets, forecasts = plan.scores, plan.targets, plan.forecasts
    if plan.spreads and len(scores) == 2 * len(targets):
        half = len(targets)
        return [
            MeasuredOutput(Band(forecasts), [i, half + i], name, i)
            for i, name in enumerate(scores[:half])
        ]
    if not all(0 < value < 1 for value in plan.quantiles):
        raise ConfigError(
            "quantiles: expected numbers between 0 and 1 (excluded), such as 0.1,0.5,0.9, received "
            f"{','.join(f'{value:g}' for value in plan.quantiles)}"
        )
    if plan.quantiles:
        if len(targets) != 1 or len(plan.quantiles) != len(scores):
            raise ConfigError(
                "quantiles: expected one label (one target, one horizon), and one quantile per "
                f"output ({', '.join(scores)}), received labels: {len(targets)}, quantiles: "
                f"{len(plan.quantiles)}"
            )
        return [
            MeasuredOutput(Distance(forecasts, q), [i], name, 0, q, shifts)
            for i, (q, name) in enumerate(zip(plan.quantiles, scores, strict=True))
            for shifts in [{name: float(of[i]) for name, of in plan.shifts.items()}]
        ]
    if len(scores) == len(targets):
        return [
            MeasuredOutput(
                Number(forecasts) if target in plan.integers else Distance(forecasts), [i], name, i
            )
            for i, (name, target) in enumerate(zip(scores, targets, strict=True))
        ]
    if plan.integers.issuperset(targets) and len(targets) == 1:
        measure = Classes(forecasts, targets[0], len(scores))
        return [MeasuredOutput(measure, range(len(scores)), ", ".join(scores), 0)]
    raise ConfigError(
        "[target] column: expected a column and horizon for each output of the model "
        f"({', '.join(scores)}) or, if the outputs are probabilities of classes, one integer "
        f"column with the class; received {', '.join(plan.labels)}. If the outputs are "
        "quantiles of one column, list the quantiles: --quantiles 0.1,0.5,0.9"
    )


def _months(ticks: Ints, plan: EvaluationPlan) -> Ints:
    """Return the month (N,) of each time, counted from year 0, in UTC or the zone of the plan."""
    integers, kind = pa.array(ticks, pa.int64()), plan.time.type
    width = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    plain = pa.timestamp(kind.unit, plan.zone or None) if pa.types.is_timestamp(kind) else kind
    time = integers.cast(width).cast(plain)
    months = pc.add(pc.multiply(pc.year(time), 12), pc.subtract(pc.month(time), 1))
    numbers: Ints = months.to_numpy(zero_copy_only=False)
    return numbers


def _nullable(values: Any) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values))
