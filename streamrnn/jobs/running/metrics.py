"""The metrics of a run, which are written while it goes on, and those of `process`."""

import logging
import os
import time
from calendar import timegm
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow.compute as pc

from streamrnn.base.display import location
from streamrnn.errors import ConfigError, SinkError, StreamRNNError
from streamrnn.jobs.running.destination import Destination
from streamrnn.jobs.running.metrics_file import MetricsFile, Series
from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.config import SIDE_OUTPUTS
from streamrnn.stream.scoring import RowCounts, Summary
from streamrnn.stream.sources import time_of, unix_seconds
from streamrnn.stream.states import StateTable

_LOGGER = logging.getLogger("streamrnn.pipeline")
_INTERRUPTED = 130
_RUNNING = Series("running")  # in the file of each run from its beginning, and in no other
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
    """Metrics of calls of `process`, on top of those that a file had before.

    Raises what `MetricsFile` raises, and ConfigError for the file of a run: a run sets counters to
    the rows of its output, so what is added to them would be lost, and they would go down.
    """

    def __init__(self, file: MetricsFile) -> None:
        if _RUNNING in file.earlier:
            raise ConfigError(
                f"write_metrics: {location(file.path)} has the metrics of a run. Name another file."
            )
        self._file = file

    def write(self, counts: RowCounts, table: StateTable | None) -> None:
        """Replace the file: counts of all calls, and the streams and newest time of a state table.

        The table is None before the first call. Raises SinkError if the file cannot be written.
        """
        values, earlier = dict(self._file.earlier), self._file.earlier
        for metric, field in _COUNTERS.items():
            values[Series(metric)] = earlier.get(Series(metric), 0) + getattr(counts, field)
        if table is not None:
            values[Series("streams")] = len(table)
            if (newest := _newest_time(table)) is not None:
                values[Series("newest_row_timestamp_seconds")] = newest
                values[Series("lag_seconds")] = time.time() - newest
        self._file.write(values)


def _newest_time(table: StateTable) -> float | None:
    times, seen = table.last_times(np.arange(len(table)))
    if table.layout.time is None or not seen.any():
        return None
    return unix_seconds(time_of(int(times[seen].max()), table.layout.time))


class RunMetrics:
    """Metrics of a run in progress, on top of those that earlier runs left in the file.

    A run that was killed has left `running` at 1, and counts as a failure. Raises what
    `MetricsFile` raises; ConfigError for the file of `ProcessMetrics`, which has counters, but not
    `running`; SinkError if the file cannot be written. Later a file that cannot be
    written is a warning: the run is worth more than its metrics.
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
        """Report this summary, and the commits of this output, from now on."""
        self._summary, self._output = summary, output
        state = output.load_state()
        if state is not None and "last_time" in state.column_names:
            self._newest = unix_seconds(pc.max(state.column("last_time")))
        elif output.last is None:
            self._newest = None

    def update(self) -> None:
        """Write the metrics of what is committed; for a commit, while the run goes on."""
        self._collect()
        try:
            self._file.write(self._values)
        except SinkError as error:
            _LOGGER.warning("%s The run goes on.", error)

    def succeed(self) -> None:
        """Write that all was well so far: one look at the source is done, with --follow."""
        self._conclude(0)
        self.update()

    def end(self, exit_code: int | None = None) -> None:
        """Write how the run ended; None: as its summary says."""
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

    def _collect(self) -> None:
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
            self._collect_commit(last)
        elif self._output is not None:
            self._set("streams", summary.streams)
        if summary.published_commit is not None:
            self._set("published_commit", summary.published_commit)
        self._collect_lag()

    def _collect_commit(self, last: Manifest) -> None:
        self._set("rows_written_total", last.rows)
        for name, side in SIDE_OUTPUTS.items():
            self._set(side.metric, last.named(name).rows)
        self._set("commit", last.commit)
        made = timegm(time.strptime(last.time, "%Y-%m-%dT%H:%M:%SZ"))
        self._set("last_commit_timestamp_seconds", made)
        self._set("streams", last.state_rows)
        files = [file for shard in last.shards for file in shard.files]
        self._set("state_bytes", sum(file.bytes for file in files))

    def _collect_lag(self) -> None:
        known = [time for time in (self._newest, self._summary.last_timestamp) if time is not None]
        if known:
            self._set("newest_row_timestamp_seconds", max(known))
            self._set("lag_seconds", time.time() - max(known))


@contextmanager
def recorded(path: str | os.PathLike[str] | None, pipeline: str) -> Iterator[RunMetrics | None]:
    """Write metrics of the run that is made inside to the file, however it ends; None: do not."""
    if path is None:
        yield None
        return
    metrics = RunMetrics(MetricsFile(os.fspath(path), pipeline))
    try:
        yield metrics
    except BaseException as error:
        metrics.end(_exit_code(error))
        raise
    metrics.end()


def record_failure(path: str | None, pipeline: str, error: StreamRNNError) -> None:
    """Write that a run failed before it began; a file that cannot be written is a note of `error`.

    The name of the pipeline is that of its file.
    """
    if path is None:
        return
    try:
        RunMetrics(MetricsFile(path, os.path.basename(pipeline))).end(error.exit_code)
    except StreamRNNError as problem:
        error.add_note(str(problem))


def _exit_code(error: BaseException) -> int:
    """Return what the command line exits with."""
    if isinstance(error, StreamRNNError):
        return error.exit_code
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
