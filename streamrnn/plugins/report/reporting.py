"""`Pipeline.report`, and a report on an output without its pipeline file.

A report reads the times of an output, its rows once or twice, its states, its source, and the
history of its fit.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from streamrnn.base.arrays import Ints
from streamrnn.base.display import location, short_model
from streamrnn.base.storage import replace_file
from streamrnn.errors import ConfigError, SinkError, StreamRNNError
from streamrnn.jobs.evaluation import comparison, scored_source
from streamrnn.jobs.pipeline import Pipeline
from streamrnn.jobs.preflight import refuse_result
from streamrnn.plugins.report import model, output
from streamrnn.plugins.report.errors import TITLES, ForecastErrors, error_pictures
from streamrnn.plugins.report.picture import Missing, Picture, ReportPage, is_report
from streamrnn.plugins.report.scan import OutputColumns, StreamMeans, Subject, extent_of
from streamrnn.plugins.report.timeline import text_of
from streamrnn.stream.checkpoints import load_state, read_manifest
from streamrnn.stream.config import Config, value_of
from streamrnn.stream.config.notations import format_duration
from streamrnn.stream.scoring import LoadedPipeline


@dataclass(frozen=True)
class ReportRequest:
    """What to draw: streams by key (as for `drop_streams`), in rows with since <= time < until."""

    keys: Sequence[str] = ()
    since: str | datetime | int | None = None
    until: str | datetime | int | None = None


def report_pipeline(
    pipeline: Pipeline, name: str | None, file: str | os.PathLike[str] | None, *request: Any
) -> ReportPage:
    """Do what `Pipeline.report` does; `name` is the name of the pipeline file."""
    folder = pipeline.config.sink.folder
    if folder is None:
        raise ConfigError("report needs a folder in [sink] path: stdout cannot be read again")
    _refuse_page(file, pipeline.config.canonical())
    try:
        loaded: LoadedPipeline | str = pipeline.loaded
    except StreamRNNError as error:
        loaded = f"the pipeline cannot be loaded: {error}"
    return _written(_make_report(folder, loaded, ReportRequest(*request), name), file)


def report_output(
    output: str,
    file: str | os.PathLike[str] | None = None,
    *,
    keys: Sequence[str] = (),
    since: str | datetime | int | None = None,
    until: str | datetime | int | None = None,
) -> ReportPage:
    """Draw an output as `Pipeline.report` does, with the config that its last commit records."""
    config = read_manifest(output).config
    try:
        loaded: LoadedPipeline | str = LoadedPipeline(Config.parse(_tables(config)))
    except StreamRNNError as error:
        loaded = (
            f"the pipeline cannot be loaded as the output records it: {error}. Report on the "
            "pipeline file instead: streamrnn report pipeline.toml."
        )
    _refuse_page(file, config)
    return _written(_make_report(output, loaded, ReportRequest(keys, since, until)), file)


def _tables(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by key as the tables of a pipeline file.

    Raises ConfigError for values that are not recorded, such as vocabularies. Defaults are left
    out: some must not be set, such as a stride in most kinds of window.
    """
    tables: dict[str, dict[str, Any]] = {}
    keys = {key: value for key, value in config.items() if not key.startswith("source.features.")}
    for key, value in keys.items():
        table, _, name = key.partition(".")
        default = value_of(key, {other: keys[other] for other in keys if other != key})
        if key != "source.schema" and value is not None and value != default:
            tables.setdefault(table, {})[name] = value
    source = tables.get("source", {})
    source["features"] = [_feature(config, name) for name in source.get("features", [])]
    return tables


def _feature(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    head = f"source.features.{name}."
    if config.get(f"{head}vocabulary") is not None:
        raise ConfigError(f"feature {name!r} has a vocabulary, which is not recorded")
    options = {key: config.get(head + key) for key in ("valid", "clip", "nulls", "nan", "from")}
    return {"name": name} | {key: v for key, v in options.items() if v not in (None, [])}


def _refuse_page(path: str | os.PathLike[str] | None, config: Mapping[str, Any]) -> None:
    if path is not None:
        refuse_result(os.fspath(path), "report", "report.html", config, is_report)


def _written(report: ReportPage, file: str | os.PathLike[str] | None) -> ReportPage:
    """Write the page atomically to `file`, if set; return the report.

    Raises SinkError, and UnsupportedError without vl-convert.
    """
    if file is None:
        return report
    page = report.html().encode()
    try:
        with replace_file(os.fspath(file)) as output:
            output.write(page)
    except OSError as error:
        cause = error.__cause__ if isinstance(error, SinkError) else error
        raise SinkError(f"{location(os.fspath(file))}: cannot write the report: {cause}") from error
    return report


def _make_report(
    path: str, loaded: LoadedPipeline | str, request: ReportRequest, name: str | None = None
) -> ReportPage:
    """Make the report on the output at `path`.

    `loaded` is its pipeline, or the reason why there is none; `name` is the name of the pipeline
    file. Raises MissingFileError or CheckpointError without a readable output, ConfigError for an
    unknown key, or for a `since` or `until` that is not a time.
    """
    manifest = read_manifest(path)
    since, until = (None if t is None else str(t) for t in (request.since, request.until))
    columns = OutputColumns.of(manifest, since, until)
    extent = extent_of(path, manifest, columns)
    state = load_state(path)
    streams: int | None = manifest.state_rows
    first, last = None, None
    if extent is None:
        limited = " in the range of since and until" if since or until else ""
        empty = Missing("outputs", "Outputs over time", f"the output has no rows{limited} yet.")
        items: list[Picture | Missing] = [empty]
    else:
        subject = Subject(path, manifest, columns, extent, request.keys)
        streams = (
            len(subject.streams) if columns.keys else None if state is None else state.num_rows
        )
        if columns.time is not None:
            ends = (extent.first, extent.last)
            first, last = (text_of(end) if columns.clock else end for end in ends)
        items = _pictures(subject, state, loaded, request)
    if isinstance(loaded, LoadedPipeline):
        items.append(model.learning_curves(loaded.config.model.path))
    else:
        items.append(model.learning_curves(value_of("model.path", manifest.config)))
    for i, item in enumerate(items):
        if isinstance(item, Missing):  # the text of an error may have several lines
            items[i] = replace(item, sentence=" ".join(item.sentence.split()))
    facts = {
        "pipeline": name,
        "output": location(path),
        "model": short_model(manifest.model),
        "rows": 0 if extent is None else extent.rows,
        "rejected": manifest.named("rejects").rows,
        "streams": streams,
        "first_time": first,
        "last_time": last,
        "time_zone": columns.zone,
        "commits": manifest.commit,
        "last_commit": manifest.time,
        "outputs": list(columns.outputs[:8]),
    }
    return ReportPage(f"Report on {name or location(path)}", facts, items)


def _pictures(
    subject: Subject, state: pa.Table | None, loaded: LoadedPipeline | str, request: ReportRequest
) -> list[Picture | Missing]:
    """Return all pictures but the learning curves, in order; the output must have rows."""
    slots = subject.chosen()
    means, index, target = None, 0, ""
    values: model.SourceValues | None = None
    columns, why = subject.columns, ""
    if isinstance(loaded, str):
        why = loaded
    elif not loaded.config.target.column:
        why = (
            "it needs [target] column, the column of the source that the outputs forecast: "
            "add it to the pipeline file, and report on that file."
        )
    elif loaded.config.source.time is None or not columns.keys or columns.time is None:
        why = (
            "scores are joined with labels by key and time: set [source] time, add both to "
            "[output] columns, and score again with --full-refresh."
        )
    else:
        watched = model.SourceValues.of(loaded, subject.timeline)
        try:
            errors, keys = _compared(subject, loaded, slots, request, watched)
        except StreamRNNError as error:
            why = f"rows cannot be compared: {error}"
        else:
            values = watched
            of_errors = error_pictures(subject, errors, keys)
            if errors.counts.rows:
                means, index = errors.means, errors.output
                label = loaded.config.target
                ahead = f" {format_duration(label.horizon[0])} later" if label.horizon else ""
                ahead = f" {label.rows} rows later" if label.rows else ahead
                target = f"{label.column[0]}{ahead}, as it happened"
    if why:
        of_errors = [Missing(id, title, why) for id, title in TITLES.items()]
    return [
        output.outputs_over_time(subject),
        output.streams_one_by_one(subject, slots, means, index, target),
        *of_errors,
        output.rows_over_time(subject),
        output.rows_by_commit(subject),
        *_of_source(subject, loaded, values),
        output.streams_over_time(subject),
        output.silence(subject),
        output.steps(subject, state),
        *model.norms(subject, state),
    ]


def _compared(
    subject: Subject,
    loaded: LoadedPipeline,
    slots: Ints,
    request: ReportRequest,
    values: model.SourceValues,
) -> tuple[ForecastErrors, list[pa.Array]]:
    """Compare output and source; also return the keys of the streams of the errors, by slot."""
    labels, plan = comparison(loaded, subject.path, request.since, request.until, watch=values.add)
    chosen = [key.take(pa.array(slots)) for key in subject.streams.key_arrays()]
    means = StreamMeans(labels.find(chosen), subject.timeline.coarser(output.MOST_POINTS), 2)
    # Of quantiles, the middle one is drawn for single streams.
    middle = len(loaded.names) // 2 if loaded.config.quantiles else 0
    errors = ForecastErrors(plan, subject.timeline, means, middle)
    errors.read(subject.path, labels)
    return errors, labels.key_arrays()


def _of_source(
    subject: Subject, loaded: LoadedPipeline | str, values: model.SourceValues | None
) -> list[Picture | Missing]:
    """Return the pictures of the source, which is read if `values` is None."""
    why = ""
    if isinstance(loaded, str):
        why = loaded
    elif values is None and (loaded.config.source.time is None or not subject.timeline.timed):
        why = (
            "the rows of source and output are placed by time: set [source] time, add it "
            "to [output] columns, and score again with --full-refresh."
        )
    elif values is None:
        values = model.SourceValues.of(loaded, subject.timeline)
        try:
            for batch in scored_source(loaded, subject.path)[0].batches():
                values.add(batch.batch)
        except StreamRNNError as error:
            why = f"the source cannot be read: {error}"
    if not why and values is not None and not values.features:
        why = "the pipeline has no numeric feature."
    if why or values is None or isinstance(loaded, str):
        return [Missing("values", "Values that a run changes", why),
                Missing("features", "Features over time", why)]  # fmt: skip
    return [
        model.source_values(subject, values),
        model.features_over_time(subject, values, loaded),
    ]
