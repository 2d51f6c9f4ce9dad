"""The metrics of a run, written during the run, and of `process`.

They are a file in Prometheus's text format, as node_exporter's textfile collector reads it:
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import logging
import os
import re
import time
from calendar import timegm
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.display import location
from streamrnn.base.storage import advice_on, open_store, replace_file
from streamrnn.errors import ConfigError, SinkError, StreamRNNError
from streamrnn.jobs.running.destination import Destination
from streamrnn.stream.config import SIDE_OUTPUTS
from streamrnn.stream.scoring import RowCounts, Summary
from streamrnn.stream.sources import time_of, unix_seconds
from streamrnn.stream.states import StateTable


class Series(NamedTuple):
    """A metric (without the prefix "streamrnn_"), and its phase ("" if it has none)."""

    metric: str
    phase: str = ""


METRICS = {
    "rows_read_total": "Rows read, over all runs.",
    "rows_written_total": "Rows in the output; with stdout, rows written over all runs.",
    **{side.metric: f"Rows in the {name} table." for name, side in SIDE_OUTPUTS.items()},
    "rows_rejected_total": "Rows in the rejects table; with stdout, rows rejected over all runs.",
    "rows_late_total": "Rows dropped as earlier than the last row of their stream, over all runs.",
    "rows_repeated_total": "Rows with the time of the last row of their stream, over all runs.",
    "rows_skipped_total": "Rows without a score because a feature was null, over all runs.",
    "replayed_rows": "Rows that the last new model has read again, of which none was written.",
    "values_filled_total": "Nulls that were filled, over all runs.",
    "values_unknown_total": "Values outside the vocabulary of their feature, over all runs.",
    "streams_started_behind_total": "New streams more than [state] idle behind, over all runs.",
    "streams_dropped_total": "Streams dropped as idle, over all runs.",
    "phase_seconds_total": "Busy seconds of each phase, over all runs; phases overlap.",
    "commit": "Number of the last commit.",
    "published_commit": "Number of the last commit that all tables of [publish] have.",
    "last_commit_timestamp_seconds": "When the last commit was made.",
    "streams": "Streams that have a state.",
    "state_bytes": "Bytes of the state in the last commit.",
    "newest_row_timestamp_seconds": "Newest time of the rows; without a zone it is read as UTC.",
    "lag_seconds": "Seconds from the newest time of the rows to when this file was written.",
    "running": "1 while a run is in progress, else 0; it stays 1 if the run is killed.",
    "last_run_timestamp_seconds": "When the last run began, even if it is still in progress.",
    "last_run_success": "1 if the last run that ended was a success (exit code 0), else 0.",
    "last_run_exit_code": "Exit code of the last run that ended.",
    "last_run_duration_seconds": "Seconds that the last run took, or has taken so far.",
    "last_success_timestamp_seconds": "When the last successful run ended.",
}
"""Help text of each metric. Names in `_total` are counters, the others gauges."""

_PREFIX = "streamrnn_"
_LINE = re.compile(
    rf'{_PREFIX}(\w+)\{{pipeline="((?:[^"\\]|\\.)*)"(?:,phase="(\w+)")?\}} '
    r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)"
)


class MetricsFile:
    """The file with the metrics of one pipeline.

    `earlier` are the metrics that the file had when it was opened. Raises ConfigError if the file
    has anything else, or metrics of another pipeline; SinkError if it cannot be read.
    """

    def __init__(self, path: str, pipeline: str) -> None:
        self.path = path
        text = pipeline.encode(errors="backslashreplace").decode()  # the name may not be UTF-8
        self._label = text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        self.earlier = self._parsed(_content(path))

    def write(self, values: Mapping[Series, float]) -> None:
        """Replace the file atomically. Raises SinkError."""
        text = "".join(
            f"# HELP {_PREFIX}{name} {description}\n"
            f"# TYPE {_PREFIX}{name} {'counter' if name.endswith('_total') else 'gauge'}\n"
            + "".join(self._line(series, values[series]) for series in of_name)
            for name, description in METRICS.items()
            if (of_name := sorted(series for series in values if series.metric == name))
        )
        try:
            with replace_file(self.path) as output:
                output.write(text.encode())
        except (pa.ArrowException, OSError) as error:
            raise _refused("write", self.path, error) from error

    def _line(self, series: Series, value: float) -> str:
        phase = f',phase="{series.phase}"' if series.phase else ""
        number = str(int(value)) if float(value).is_integer() else repr(float(value))
        return f'{_PREFIX}{series.metric}{{pipeline="{self._label}"{phase}}} {number}\n'

    def _parsed(self, text: str) -> dict[Series, float]:
        values = {}
        for line in text.splitlines():
            if line.startswith(("# HELP streamrnn_", "# TYPE streamrnn_")):
                continue
            match = _LINE.fullmatch(line)
            if match is None or match[1] not in METRICS:
                raise ConfigError(
                    f"--metrics: {location(self.path)} exists, and is not a metrics file that "
                    f"streamrnn wrote: received the line {line[:60]!r}. Name another file, or "
                    "delete this one."
                )
            if match[2] != self._label:
                raise ConfigError(
                    f"--metrics: {location(self.path)} has the metrics of pipeline "
                    f'"{match[2]}", expected "{self._label}". Name a file for each pipeline, or '
                    "delete this one."
                )
            values[Series(match[1], match[3] or "")] = float(match[4])
        return values


def _content(path: str) -> str:
    """Return the text of a file, "" if there is none."""
    try:
        store, place = open_store(path)
        with store.open(place) as file:
            content: bytes = file.read()
    except FileNotFoundError:
        return ""
    except (pa.ArrowException, OSError) as error:
        raise _refused("read", path, error) from error
    return content.decode(errors="replace")


def _refused(action: str, path: str, error: Exception) -> SinkError:
    cause = error.__cause__ if isinstance(error, SinkError) else error
    assert cause is not None
    reason = getattr(cause, "strerror", None) or str(cause)
    return SinkError(
        f"--metrics: cannot {action} {location(path)}: {reason}. {advice_on(cause)}, or name "
        "another file."
    )


_LOGGER = logging.getLogger("streamrnn.pipeline")
_INTERRUPTED = 130
_RUNNING = Series("running")  # each run writes it when it begins; no other file has it
_COUNTERS = {
    "rows_read_total": "rows",
    "rows_written_total": "rows_out",
    "rows_rejected_total": "rejected",
    "rows_late_total": "dropped_late",
    "rows_repeated_total": "repeated",
    "rows_skipped_total": "skipped",
    "values_filled_total": "filled",
    "values_unknown_total": "unknown",
    "streams_started_behind_total": "started_behind",
    "streams_dropped_total": "dropped_streams",
}
"""Counter -> the field of the counts that it adds up."""


class ProcessMetrics:
    """Metrics of calls of `process`, on top of the metrics that a file had before.

    Raises what `MetricsFile` raises, and ConfigError for the file of a run: a run sets counters to
    the rows of its output, so additions would be lost, and counters would go down.
    """

    def __init__(self, file: MetricsFile) -> None:
        if _RUNNING in file.earlier:
            raise ConfigError(
                f"write_metrics: {location(file.path)} has the metrics of a run. Name another file."
            )
        self._file = file

    def write(self, counts: RowCounts, table: StateTable | None) -> None:
        """Replace the file: counts of all calls; streams and newest time of a state table.

        The table is None before the first call. Raises SinkError if the file cannot be written.
        """
        values, earlier = dict(self._file.earlier), self._file.earlier
        for metric, field in _COUNTERS.items():
            values[Series(metric)] = earlier.get(Series(metric), 0) + getattr(counts, field)
        if table is not None:
            values[Series("streams")] = len(table)
            times, seen = table.last_times(np.arange(len(table)))
            kind = table.layout.time
            newest = None
            if kind is not None and seen.any():
                newest = unix_seconds(time_of(int(times[seen].max()), kind))
            if newest is not None:
                values[Series("newest_row_timestamp_seconds")] = newest
                values[Series("lag_seconds")] = time.time() - newest
        self._file.write(values)


class RunMetrics:
    """Metrics of a run in progress, on top of what earlier runs left in the file.

    A run that was killed has left `running` at 1, and counts as a failure. Raises what
    `MetricsFile` raises; ConfigError for the file of `ProcessMetrics`, which has counters, but not
    `running`; SinkError if the file cannot be written. A later failure to write is only a warning:
    the run is worth more than its metrics.
    """

    def __init__(self, file: MetricsFile) -> None:
        if Series("rows_read_total") in file.earlier and _RUNNING not in file.earlier:
            raise ConfigError(
                f"--metrics: {location(file.path)} has the metrics of Pipeline.write_metrics. "
                "Name another file."
            )
        self._file = file
        self._values = dict(file.earlier)
        self._began, self._clock = time.time(), time.monotonic()
        self._summary = Summary()
        self._output: Destination | None = None
        self._newest: float | None = file.earlier.get(Series("newest_row_timestamp_seconds"))
        if self._values.get(_RUNNING):
            self._set("last_run_success", 0)
            self._values.pop(Series("last_run_exit_code"), None)
        self._set("running", 1)
        self._set("last_run_timestamp_seconds", self._began)
        self._file.write(self._values)

    def watch(self, summary: Summary, output: Destination) -> None:
        """Report this summary and the commits of this output from now on."""
        self._summary, self._output = summary, output
        state = output.load_state()
        if state is not None and "last_time" in state.column_names:
            self._newest = unix_seconds(pc.max(state.column("last_time")))
        elif output.last is None:
            self._newest = None

    def update(self) -> None:
        """Write the metrics of what is committed; if that fails, only warn."""
        summary = self._summary
        for metric, field in _COUNTERS.items():
            self._add(metric, getattr(summary, field))
        if summary.replayed:
            self._set("replayed_rows", summary.replayed)
        for phase, seconds in dict(summary.seconds_by_phase).items():
            self._add("phase_seconds_total", seconds, phase)
        self._set("last_run_duration_seconds", time.monotonic() - self._clock)
        last = None if self._output is None else self._output.last
        if last is not None:
            self._set("rows_written_total", last.rows)
            for name, side in SIDE_OUTPUTS.items():
                self._set(side.metric, last.named(name).rows)
            self._set("commit", last.commit)
            committed = timegm(time.strptime(last.time, "%Y-%m-%dT%H:%M:%SZ"))
            self._set("last_commit_timestamp_seconds", committed)
            self._set("streams", last.state_rows)
            files = [file for shard in last.shards for file in shard.files]
            self._set("state_bytes", sum(file.bytes for file in files))
        elif self._output is not None:
            self._set("streams", summary.streams)
        if summary.published_commit is not None:
            self._set("published_commit", summary.published_commit)
        times = [time for time in (self._newest, summary.last_timestamp) if time is not None]
        if times:
            self._set("newest_row_timestamp_seconds", max(times))
            self._set("lag_seconds", time.time() - max(times))
        try:
            self._file.write(self._values)
        except SinkError as error:
            _LOGGER.warning("%s The run continues.", error)

    def succeed(self) -> None:
        """Record a success, after a look at the source with --follow."""
        self._conclude(0)
        self.update()

    def end(self, exit_code: int | None = None) -> None:
        """Record how the run ended, by default as its summary says."""
        if exit_code is None:
            exit_code = _INTERRUPTED if self._summary.interrupted else 0
        self._conclude(exit_code)
        self._set("running", 0)
        self.update()

    def _conclude(self, exit_code: int) -> None:
        self._set("last_run_success", exit_code == 0)
        self._set("last_run_exit_code", exit_code)
        if exit_code == 0:
            self._set("last_success_timestamp_seconds", time.time())

    def _set(self, metric: str, value: float, phase: str = "") -> None:
        self._values[Series(metric, phase)] = value

    def _add(self, metric: str, value: float, phase: str = "") -> None:
        self._set(metric, self._file.earlier.get(Series(metric, phase), 0) + value, phase)


@contextmanager
def recorded(path: str | os.PathLike[str] | None, pipeline: str) -> Iterator[RunMetrics | None]:
    """Write metrics of the run in the block to `path` (if not None), however the run ends."""
    if path is None:
        yield None
        return
    metrics = RunMetrics(MetricsFile(os.fspath(path), pipeline))
    try:
        yield metrics
    except BaseException as error:
        code = _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        metrics.end(error.exit_code if isinstance(error, StreamRNNError) else code)
        raise
    metrics.end()


def record_failure(path: str | None, pipeline: str, error: StreamRNNError) -> None:
    """Record that a run failed before it began; if that cannot be written, add a note to `error`.

    The pipeline is named after its file.
    """
    if path is None:
        return
    try:
        RunMetrics(MetricsFile(path, os.path.basename(pipeline))).end(error.exit_code)
    except StreamRNNError as problem:
        error.add_note(str(problem))
