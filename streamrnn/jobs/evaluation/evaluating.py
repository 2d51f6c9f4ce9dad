"""Compare what a pipeline has scored with what happened: see `Pipeline.evaluate`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.errors import ConfigError, MissingFileError
from streamrnn.jobs.evaluation.evaluation import Evaluation, evaluate, refuse_table
from streamrnn.jobs.evaluation.matching import EvaluationPlan
from streamrnn.jobs.fitting import FitFolder
from streamrnn.jobs.preflight import after_rule, file_source, lenient, with_target
from streamrnn.nn.models.mixture import gives_moments
from streamrnn.stream.checkpoints import current_names, read_manifest
from streamrnn.stream.config.durations import format_duration
from streamrnn.stream.scoring import LoadedPipeline, Scorer, SourceLabels
from streamrnn.stream.sources import FileSource, SourceBatch, SourceFile, canonical_name, parse_time
from streamrnn.stream.states import StateTable


def evaluate_pipeline(
    loaded: LoadedPipeline,
    by: Literal["stream", "month"] | None,
    since: str | datetime | int | None,
    until: str | datetime | int | None,
    quantiles: Sequence[float],
    file: str | None,
) -> Evaluation:
    """Open source and output, and compare them."""
    if by not in (None, "stream", "month"):
        raise ConfigError(f'by: expected "stream" or "month", received {by!r}')
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
        refuse_table(file, config.canonical())
    output = config.sink.folder
    labels, plan = comparison(loaded, output, since, until, quantiles)
    if by == "month" and pa.types.is_integer(plan.time.type):
        raise ConfigError(
            f"by month: [source] time: column {plan.time.name!r}: expected a timestamp or a date, "
            f"received {plan.time.type}"
        )
    evaluation = evaluate(output, labels, replace(plan, by=by), file)
    if read_manifest(output).model == loaded.fingerprint:
        return evaluation
    note = (
        f"the last rows of {location(output)} were scored by another model, or with another "
        "precision or other [output] quantiles, than the pipeline file sets now"
    )
    return replace(evaluation, notes=(note,))


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
    batches = (wide.subset(run).batches() for run in runs)
    watched = batches if watch is None else (_watched(of, watch) for of in batches)
    labels = SourceLabels(Scorer(bound, StateTable(bound.layout, bound.initial())), watched, target)
    begins = source.times(source.files)
    complete = len(begins) == sum(source.footer(file).rows > 0 for file in source.files)
    time, zone = bound.schema.field(str(loaded.config.source.time)), loaded.config.source.time_zone
    aim = loaded.config.target
    kinds = {name: wide.schema.field(name).type for name in aim.column}
    classes = (n for n, t in kinds.items() if pa.types.is_integer(t) or pa.types.is_boolean(t))
    trained = loaded.config.quantiles
    fits = len(trained) == len(loaded.names) and len(aim.labels) == 1
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
        trained_means=_trained_means(loaded),
    )
    return labels, plan


def scored_source(loaded: LoadedPipeline, output: str) -> tuple[FileSource, list[list[SourceFile]]]:
    """Open the files that an output was scored from, in that order, and then new files.

    Also return these files in runs: between two runs, files that were scored are gone.

    New files may have labels for the last rows, so files that a run would read next are included.
    Rows at which a run would stop raise no error. Raises MissingFileError if no used file is left.
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


def _trained_means(loaded: LoadedPipeline) -> Sequence[float] | None:
    """Return the means of the labels that this model was trained on.

    Returns None unless the fit beside the model file wrote it, with these [target] columns. Raises
    ConfigError if it had the same labels in another order, as outputs are compared by their order.
    """
    fit = FitFolder(loaded.config.model.path).result()
    means = {} if fit is None else fit.label_means
    labels = loaded.config.target.labels
    if sorted(means) == sorted(labels) and list(means) != list(labels):
        raise ConfigError(
            f"[target] column and horizon: expected {', '.join(means)}, the order in which the "
            f"model was fitted, received {', '.join(labels)}"
        )
    return [means[name] for name in labels] if means.keys() >= set(labels) else None
