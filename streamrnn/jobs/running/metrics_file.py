"""A file of metrics in Prometheus's text format, as node_exporter's textfile collector reads it.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.base.storage import advice_on, open_store, replace_file
from streamrnn.errors import ConfigError, SinkError
from streamrnn.stream.config import SIDE_OUTPUTS


class Series(NamedTuple):
    """A metric (without the prefix "streamrnn_"), and its phase, "" if it has none."""

    metric: str
    phase: str = ""


METRICS = {
    "rows_read_total": "Rows read, over all runs.",
    "rows_written_total": "Rows in the output; with stdout, rows written over all runs.",
    **{side.metric: f"Rows in the {name} table." for name, side in SIDE_OUTPUTS.items()},
    "rows_rejected_total": "Rows in the rejects table; with stdout, rows rejected over all runs.",
    "rows_late_total": "Rows dropped as earlier than the last time of their stream, over all runs.",
    "rows_repeated_total": "Rows of the last time of their stream, over all runs.",
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
    "last_run_timestamp_seconds": "When the last run began, also one that is in progress.",
    "last_run_success": "1 if the last run that ended was a success (exit code 0), else 0.",
    "last_run_exit_code": "Exit code of the last run that ended.",
    "last_run_duration_seconds": "Seconds that the last run took, or has taken so far.",
    "last_success_timestamp_seconds": "When the last run that was a success ended.",
}
"""Help of each metric. Those in `_total` are counters, the others gauges."""

_PREFIX = "streamrnn_"
_LINE = re.compile(
    rf'{_PREFIX}(\w+)\{{pipeline="((?:[^"\\]|\\.)*)"(?:,phase="(\w+)")?\}} '
    r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)"
)


class MetricsFile:
    """The metrics of one pipeline. `earlier` are those that the file had when it was opened.

    Raises ConfigError if the file has anything else, or metrics of another pipeline; SinkError if
    it cannot be read.
    """

    def __init__(self, path: str, pipeline: str) -> None:
        self.path = path
        self._label = _escaped(pipeline)
        self.earlier = self._parsed(_content(path))

    def write(self, values: Mapping[Series, float]) -> None:
        """Replace the file atomically. Raises SinkError."""
        text = "".join(
            f"# HELP {_PREFIX}{name} {description}\n"
            f"# TYPE {_PREFIX}{name} {'counter' if name.endswith('_total') else 'gauge'}\n"
            + "".join(self._line(series, values[series]) for series in found)
            for name, description in METRICS.items()
            if (found := sorted(series for series in values if series.metric == name))
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
        found = {}
        for line in text.splitlines():
            if line.startswith(("# HELP streamrnn_", "# TYPE streamrnn_")):
                continue
            match = _LINE.fullmatch(line)
            if match is None or match[1] not in METRICS:
                raise ConfigError(
                    f"--metrics: {location(self.path)} exists, and is not a file of metrics that "
                    f"streamrnn wrote: received the line {line[:60]!r}. Name another file, or "
                    "delete this one."
                )
            if match[2] != self._label:
                raise ConfigError(
                    f"--metrics: {location(self.path)} has the metrics of pipeline "
                    f'"{match[2]}", expected "{self._label}". Name a file for each pipeline, or '
                    "delete this one."
                )
            found[Series(match[1], match[3] or "")] = float(match[4])
        return found


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


def _escaped(text: str) -> str:
    """Escape a label. A name of a file may have bytes that are no UTF-8."""
    text = text.encode(errors="backslashreplace").decode()
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
