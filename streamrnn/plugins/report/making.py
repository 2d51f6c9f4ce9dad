"""Make a report: read an output once or twice, its state, its source once, and its fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa

from streamrnn.base.display import location, short_model
from streamrnn.errors import StreamRNNError
from streamrnn.jobs.evaluation import comparison, scored_source
from streamrnn.plugins.report.curves import learning_curves
from streamrnn.plugins.report.errors import TITLES, ForecastErrors, error_pictures
from streamrnn.plugins.report.features import (
    SourceValues,
    feature_columns,
    features_over_time,
    source_values,
)
from streamrnn.plugins.report.over_time import MOST_POINTS, outputs_over_time, streams_one_by_one
from streamrnn.plugins.report.picture import Missing, Picture, ReportPage
from streamrnn.plugins.report.rows import rows_by_commit, rows_over_time
from streamrnn.plugins.report.scan import (
    Extent,
    OutputColumns,
    StreamMeans,
    Subject,
    extent_of,
    scan,
)
from streamrnn.plugins.report.state import norms
from streamrnn.plugins.report.streams import silence, steps, streams_over_time
from streamrnn.plugins.report.timeline import Timeline, text_of
from streamrnn.stream.checkpoints import Manifest, load_state, read_manifest
from streamrnn.stream.config import value_of
from streamrnn.stream.config.durations import format_duration
from streamrnn.stream.scoring import LoadedPipeline


@dataclass(frozen=True)
class ReportRequest:
    """What is drawn: streams by key (as for `drop_streams`), rows from `since` to `until`."""

    keys: Sequence[str] = ()
    since: str | datetime | int | None = None
    until: str | datetime | int | None = None


def make_report(
    output: str, loaded: LoadedPipeline | str, request: ReportRequest, name: str | None = None
) -> ReportPage:
    """Make the report on an output.

    `loaded` is its pipeline, or why there is none; `name`: of the pipeline file. Raises
    MissingFileError or CheckpointError without a readable output, ConfigError for an unknown key or
    a limit that is no time.
    """
    manifest = read_manifest(output)
    since, until = (None if t is None else str(t) for t in (request.since, request.until))
    columns = OutputColumns.of(manifest, since, until)
    extent = extent_of(output, manifest, columns)
    state = _state(output)
    facts = _facts(output, manifest, columns, extent, name)
    if extent is None:
        limited = " from since to until" if since or until else ""
        empty = Missing("outputs", "Outputs over time", f"the output has no rows{limited} yet.")
        items: list[Picture | Missing] = [empty]
    else:
        timeline = Timeline.of(extent.first, extent.last, clock=columns.clock)
        scanned = scan(output, manifest, columns, timeline)
        subject = Subject(output, manifest, columns, extent, scanned, tuple(request.keys))
        facts["streams"] = _streams(subject, state)
        items = _Maker(subject, state, loaded, request).items()
    items.append(learning_curves(_model_path(manifest, loaded)))
    title = f"Report on {name or location(output)}"
    return ReportPage(title, facts, [_on_one_line(item) for item in items])


class _Maker:
    """Makes the pictures of an output with rows."""

    def __init__(
        self,
        subject: Subject,
        state: pa.Table | None,
        loaded: LoadedPipeline | str,
        request: ReportRequest,
    ) -> None:
        self._subject = subject
        self._state = state
        self._loaded = loaded
        self._request = request
        self._slots = subject.chosen()

    def items(self) -> list[Picture | Missing]:
        """Return all pictures, in order."""
        subject = self._subject
        each, errors, values = self._compared()
        return [
            outputs_over_time(subject),
            each,
            *errors,
            rows_over_time(subject),
            rows_by_commit(subject),
            *self._of_source(values),
            streams_over_time(subject),
            silence(subject),
            steps(subject, self._state),
            *norms(subject, self._state),
        ]

    def _compared(
        self,
    ) -> tuple[Picture | Missing, Sequence[Picture | Missing], SourceValues | None]:
        """Return streams one by one, errors, and what was read of the source on the way."""
        subject, loaded = self._subject, self._loaded
        why = self._no_target()
        if not why:
            assert isinstance(loaded, LoadedPipeline)
            values = self._values(loaded)
            try:
                found, keys = self._read_both(loaded, values)
            except StreamRNNError as error:
                why = f"rows cannot be compared: {error}"
            else:
                each = self._each(found.means if found.counts.rows else None)
                return each, error_pictures(subject, found, keys), values
        missing = [Missing(id, title, why) for id, title in TITLES.items()]
        return self._each(None), missing, None

    def _no_target(self) -> str:
        """Return why scores are not compared with what happened; "" if they can be."""
        if isinstance(self._loaded, str):
            return self._loaded
        config = self._loaded.config
        if not config.target.column:
            return (
                "it needs [target] column, the column of the source that the outputs forecast: "
                "add it to the pipeline file, and report on that."
            )
        if config.source.time is None or not self._subject.columns.keys or not self._subject.timed:
            return (
                "scores are joined with labels by key and time: set [source] time, add both to "
                "[output] columns, and score again with --full-refresh."
            )
        return ""

    def _read_both(
        self, loaded: LoadedPipeline, values: SourceValues
    ) -> tuple[ForecastErrors, list[pa.Array]]:
        subject, request = self._subject, self._request
        labels, plan = comparison(
            loaded, subject.path, request.since, request.until, watch=values.add
        )
        streams = subject.scanned.streams
        chosen = [column.take(pa.array(self._slots)) for column in streams.key_arrays()]
        line = subject.timeline.coarser(MOST_POINTS)
        means = StreamMeans(labels.find(chosen), line, 2)
        found = ForecastErrors(plan, subject.timeline, means, self._index())
        found.read(subject.path, labels)
        return found, labels.key_arrays()

    def _index(self) -> int:
        """Return which output is drawn of single streams: of quantiles the middle one."""
        assert isinstance(self._loaded, LoadedPipeline)
        return len(self._loaded.names) // 2 if self._loaded.config.train.quantiles else 0

    def _each(self, means: StreamMeans | None) -> Picture | Missing:
        target, index = "", 0
        if means is not None:
            assert isinstance(self._loaded, LoadedPipeline)
            config, index = self._loaded.config.target, self._index()
            ahead = f" {format_duration(config.horizon)} later" if config.horizon else ""
            ahead = f" {config.rows} rows later" if config.rows else ahead
            target = f"{config.column[0]}{ahead}, as it happened"
        return streams_one_by_one(self._subject, self._slots, means, index, target)

    def _values(self, loaded: LoadedPipeline) -> SourceValues:
        time = str(loaded.config.source.time)
        return SourceValues(feature_columns(loaded), time, self._subject.timeline)

    def _of_source(self, values: SourceValues | None) -> list[Picture | Missing]:
        """Return what is drawn of the source; it is read unless `values` has all of it."""
        loaded, subject = self._loaded, self._subject
        why = loaded if isinstance(loaded, str) else ""
        if isinstance(loaded, LoadedPipeline) and values is None:
            if not subject.timed:
                why = (
                    "the rows of source and output are placed by time: set [source] time, add it "
                    "to [output] columns, and score again with --full-refresh."
                )
            else:
                values = self._values(loaded)
                try:
                    for batch in scored_source(loaded, subject.path).batches():
                        values.add(batch.batch)
                except StreamRNNError as error:
                    why = f"the source cannot be read: {error}"
        if not why and values is not None and not values.columns:
            why = "the pipeline has no feature of numbers."
        if why or values is None or isinstance(loaded, str):
            return [Missing("values", "Values that a run changes", why),
                    Missing("features", "Features over time", why)]  # fmt: skip
        return [source_values(subject, values), features_over_time(subject, values, loaded)]


def _state(output: str) -> pa.Table | None:
    return load_state(output)


def _model_path(manifest: Manifest, loaded: LoadedPipeline | str) -> str | None:
    if isinstance(loaded, LoadedPipeline):
        return loaded.config.model.path
    path = value_of("model.path", manifest.config)
    return None if path is None else str(path)


def _facts(
    output: str,
    manifest: Manifest,
    columns: OutputColumns,
    extent: Extent | None,
    name: str | None,
) -> dict[str, object]:
    """Return what the head of the page says."""
    ends = (None, None) if extent is None else (extent.first, extent.last)
    first, last = (
        None if place is None or columns.time is None else _time(place, columns) for place in ends
    )
    zone = getattr(columns.time.type, "tz", None) if columns.time is not None else None
    return {
        "pipeline": name,
        "output": location(output),
        "model": short_model(manifest.model),
        "rows": 0 if extent is None else extent.rows,
        "rejected": manifest.named("rejects").rows,
        "streams": manifest.state_rows,
        "first_time": first,
        "last_time": last,
        "time_zone": zone,
        "commits": manifest.commit,
        "last_commit": manifest.time,
        "outputs": list(columns.outputs[:8]),
    }


def _time(place: int, columns: OutputColumns) -> str | int:
    return text_of(place) if columns.clock else place


def _streams(subject: Subject, state: pa.Table | None) -> int | None:
    if subject.columns.keys:
        return len(subject.scanned.streams)
    return None if state is None else state.num_rows


def _on_one_line(item: Picture | Missing) -> Picture | Missing:
    if isinstance(item, Missing):
        return replace(item, sentence=" ".join(item.sentence.split()))
    return item
