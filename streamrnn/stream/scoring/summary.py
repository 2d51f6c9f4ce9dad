"""What a run reports: its progress, and a summary at its end."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from streamrnn.base.display import count, html_table, location
from streamrnn.stream.config import SIDE_OUTPUTS
from streamrnn.stream.config.schema import SourceSection
from streamrnn.stream.sources import UNKNOWN_IN, Rows, note_on_offset


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    `total_rows` is None for a pipe, and with a `message`, which is a line for the log. `note` is
    shown after the rate and the streams.
    """

    rows: int
    total_rows: int | None
    streams: int
    seconds: float
    message: str | None = None
    note: str = ""


class FirstRow(NamedTuple):
    """The first row of its kind in a record batch, which a summary names.

    `row` is its index in the batch, `number` its number in the input (None if unknown); `text` says
    where it is, and why it is of its kind.
    """

    row: int
    number: int | None
    text: str

    @classmethod
    def of(cls, rows: Rows, row: int, why: str) -> "FirstRow":
        """Return what a summary says about a row."""
        return cls(row, rows.number(row), f"{rows.place(row)}: {why}")


@dataclass
class Workload:
    """How the workers of an engine shared a run.

    `bytes` is the size of the rows that workers handed to each other. `largest_stream` is the key
    of the stream with the most rows, `largest_share` its share of all rows. `speed_up_limit` is the
    time of all shards divided by the time of the slowest shard; adding workers does not raise it.
    `advice` says which settings could be better.
    """

    workers: int = 0
    shards: int = 0
    epochs: int = 0
    bytes: int = 0
    largest_stream: str = ""
    largest_share: float = 0.0
    speed_up_limit: float = 0.0
    advice: list[str] = field(default_factory=list)


@dataclass
class RowCounts:
    """What became of rows and of their values, in numbers.

    Rows: `rows` were read, `rows_out` are in the output. `skipped` rows had a null, and no score.
    `rejected` rows are invalid, late or repeated, and are in the table of rejects. `dropped_late`
    rows were late, and are in neither table. `repeated` rows have the last time of their stream,
    whatever [source] repeated does with them; the ones that it skips are in neither table.
    `crossed` rows have quantiles that are not in ascending order, or were not before [output] sort.

    Values: `filled` values were null, `nan` values were NaN that was read as null, `out_of_range`
    values were outside `valid`, and read as null, `clipped` values were outside `clip`. `unknown`
    values are not in the vocabulary of their feature, and have id 0; `unknown_by_feature` counts
    them by feature. `cast` values were in a column of another type than before.

    Streams: `fresh_starts` counts the times that a stream began again from the initial state. With
    [state] idle, `started_behind` streams had no row so far (or were dropped), and their first row
    is more than `idle` before the newest time of the last commit; `dropped_streams` were dropped.
    """

    rows: int = 0
    rows_out: int = 0
    skipped: int = 0
    rejected: int = 0
    dropped_late: int = 0
    repeated: int = 0
    crossed: int = 0
    filled: int = 0
    nan: int = 0
    clipped: int = 0
    out_of_range: int = 0
    unknown: int = 0
    unknown_by_feature: dict[str, int] = field(default_factory=dict)
    cast: int = 0
    fresh_starts: int = 0
    started_behind: int = 0
    dropped_streams: int = 0

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the counts of a record batch."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + counts.get(name, 0))
        for name, number in counts.items():
            if name.startswith(UNKNOWN_IN):
                feature, unknown = name.removeprefix(UNKNOWN_IN), self.unknown_by_feature
                unknown[feature] = unknown.get(feature, 0) + number


COUNTS = tuple(
    item.name
    for item in fields(RowCounts)
    if item.name not in ("rows", "rows_out", "unknown_by_feature")
)


@dataclass
class Copies:
    """Number of rows that a run copied to a side output, and its directory; None without rows."""

    rows: int = 0
    path: str | None = None


@dataclass
class Summary(RowCounts):
    """Summary of a run.

    `streams` counts the streams in the state table, `new_streams` the ones that the run added.
    `similar_keys` of these have a key that differs from another only in case or in blanks around
    it, and `first_similar_keys` names three; on a cluster, or if streams were dropped, none counts.
    `files` counts the new files of the source, `files_read` the files that were read at least in
    part. `first_time` and `last_time` are the first and the last time of valid rows, as text; None
    without times. `last_timestamp` is `last_time` in seconds since 1970 (as UTC if it has no zone);
    None if times are numbers. `commit` is the number of the last commit, `parts` are the names of
    the files that the run added to the output. `published` has one entry for each table of
    [publish] that was changed: table, version, commit, parts added and removed, and a note;
    `published_commit` is the last commit that all tables have (None if the run saw no such commit).
    `seconds_compiling` is the part of `seconds` in which kernels were compiled, which later runs
    load (compilation on workers is not counted). `replayed` rows were read again by a new model,
    which could not score `replay_passed_over` of them; `replay_fresh_streams` streams had none of
    these rows, and start from the model's initial state. `seconds_by_phase` is busy time: phases
    overlap, and "start" precedes `seconds`. `state_notes` are notes on state and model, such as
    what was ignored in `[state] init`; `recovered` lists what was repaired at startup after an
    earlier run. `unusual_gap` says where a file seems to be missing, by the times of the other
    files. `first_late` says where the first dropped or rejected late row is, and why it is late;
    `first_repeated` says where the first repeated row is. `times_in_utc` notes that times came from
    text with other offsets although [source] time_zone is not set. `workload` is None if this
    process scored all streams.
    """

    streams: int = 0
    new_streams: int = 0
    similar_keys: int = 0
    first_similar_keys: list[str] = field(default_factory=list)
    seconds: float = 0.0
    seconds_compiling: float = 0.0
    fresh_init_streams: int = 0
    files: int = 0
    files_read: int = 0
    vanished_files: int = 0
    changed_files: int = 0
    rewritten_files: int = 0
    files_by_footer: int = 0
    rewrites_unsettled: bool = False
    times_go_back: str | None = None
    unusual_gap: str | None = None
    first_late: str | None = None
    first_repeated: str | None = None
    commits: int = 0
    commit: int | None = None
    parts: list[str] = field(default_factory=list)
    published: list[dict[str, Any]] = field(default_factory=list)
    published_commit: int | None = None
    first_time: str | None = None
    last_time: str | None = None
    last_timestamp: float | None = None
    times_in_utc: str | None = None
    seconds_by_phase: dict[str, float] = field(default_factory=dict)
    output: str = ""
    state: str | None = None
    resumed: str | None = None
    replayed: int = 0
    replay_passed_over: int = 0
    replay_fresh_streams: int = 0
    reloaded: str | None = None
    interrupted: bool = False
    nothing_new: bool = False
    rejects: str | None = None
    state_notes: list[str] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)
    workload: Workload | None = None
    copies: dict[str, Copies] = field(
        default_factory=lambda: {
            name: Copies() for name, side in SIDE_OUTPUTS.items() if side.where
        }
    )

    @property
    def alerts(self) -> int:
        """Number of rows that the run wrote to the alerts."""
        return self.copies["alerts"].rows

    @property
    def alerts_path(self) -> str | None:
        """The directory of the alerts, None if the run wrote none."""
        return self.copies["alerts"].path

    @property
    def rows_per_second(self) -> float:
        """Rows read per second."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    def __repr__(self) -> str:
        """Return one line with the counts that are not zero.

        >>> Summary(rows=80, rows_out=80, streams=3, files=1, commits=1, skipped=2)
        <Summary: 80 rows in, 80 rows out, 3 streams, 1 file, 1 commit; skipped 2>
        """
        parts = [
            f"{count(self.rows, 'row')} in, {count(self.rows_out, 'row')} out, "
            f"{count(self.streams, 'stream')}, {count(self.files, 'file')}, "
            f"{count(self.commits, 'commit')}"
        ]
        if self.output:
            parts.append(f"output {location(self.output)}")
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in self._noted()]
        return f"<Summary: {'; '.join(parts)}>"

    def _repr_html_(self) -> str:
        rows = [
            ("rows in", f"{self.rows:,}"),
            ("rows out", f"{self.rows_out:,}"),
            ("streams", f"{self.streams:,} ({self.new_streams:,} new)"),
            ("files", f"{self.files:,}"),
            ("commits", f"{self.commits:,}"),
            ("seconds", f"{self.seconds:.1f}"),
            ("output", location(self.output)),
            *((name.replace("_", " "), value) for name, value in self._noted()),
        ]
        return html_table("Summary", rows)

    def _noted(self) -> list[tuple[str, str]]:
        """List notable facts: counts that are not zero, and how the run ended."""
        counts = {name: getattr(self, name) for name in COUNTS}
        counts |= {name: copies.rows for name, copies in self.copies.items()}
        noted = [(name, f"{number:,}") for name, number in counts.items() if number]
        noted += [(n, "yes") for n in ("nothing_new", "interrupted") if getattr(self, n)]
        return noted

    def as_dict(self) -> dict[str, Any]:
        """Return all fields and `rows_per_second`, for JSON.

        Each entry of `copies` becomes two fields, such as `alerts` and `alerts_path`.
        """
        facts = asdict(self)
        for name, copies in facts.pop("copies").items():
            facts |= {name: copies["rows"], f"{name}_path": copies["path"]}
        phases = {phase: round(seconds, 4) for phase, seconds in self.seconds_by_phase.items()}
        return {
            **facts,
            "seconds_by_phase": phases,
            "rows_per_second": round(self.rows_per_second, 1),
        }

    def name_first(self, first: Mapping[str, FirstRow]) -> None:
        """Set the fields that name the first row of a kind; rows named earlier stay."""
        for name, row in first.items():
            setattr(self, name, getattr(self, name) or row.text)

    def note_offset(self, source: SourceSection, offset: str) -> None:
        """Note that times are in UTC although their text is not, unless the config has a zone."""
        if offset and not source.time_zone:
            self.times_in_utc = self.times_in_utc or note_on_offset(str(source.time), offset)

    def add_shard(self, other: "Summary") -> None:
        """Add the rows, counts and busy seconds of one shard."""
        self.rows += other.rows
        self.rows_out += other.rows_out
        self.add({name: getattr(other, name) for name in COUNTS})
        self.add({UNKNOWN_IN + name: n for name, n in other.unknown_by_feature.items()})
        for phase, seconds in other.seconds_by_phase.items():
            self.seconds_by_phase[phase] = self.seconds_by_phase.get(phase, 0.0) + seconds
