"""Rows to steps, judged row by row: late rows, fresh starts, nulls, step numbers, last values."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.errors import DataError, LateRowError
from streamrnn.stream.sources import Contract, Feature, Origin, Rows
from streamrnn.stream.windows import RowPolicy, StreamBatch, Update, sort_by_stream

STREAMS = 4
COUNTS = (
    *("fresh_starts", "started_behind", "dropped_late"),
    *("repeated", "rejected", "skipped", "filled"),
)


@dataclass
class Row:
    stream: int
    time: int | None
    a: float | None
    b: float | None
    reset: bool


@dataclass
class Seen:
    """What the oracle remembers of a stream."""

    steps: int = 0
    last: int | None = None
    previous: dict[str, float] = field(default_factory=dict)


@dataclass
class Expected:
    kept: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    steps: dict[int, tuple[int, int, float, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))


def _oracle(
    rows: list[Row], streams: dict[int, Seen], policy: RowPolicy, newest: int | None = None
) -> Expected:
    """a: nulls = "previous", b: nulls = "skip". A stream that is idle is as one without a row."""
    out = Expected()
    for i, row in enumerate(rows):
        if row.time is None:
            out.rejected.append(i)
            out.counts["rejected"] += 1
            continue
        known = row.stream in streams
        if policy.idle is not None and newest is not None and not known:
            out.counts["started_behind"] += row.time < newest - policy.idle
        seen = streams.setdefault(row.stream, Seen())
        if policy.idle is not None and known and row.time - seen.last > policy.idle:
            known, seen = False, Seen()
            streams[row.stream] = seen
        if seen.last is not None and row.time < seen.last and policy.late != "apply":
            if policy.late == "reject":
                out.rejected.append(i)
                out.counts["rejected"] += 1
            else:
                out.counts["dropped_late"] += 1
            continue
        if row.time == seen.last:
            out.counts["repeated"] += 1
            if policy.repeated == "reject":
                out.rejected.append(i)
                out.counts["rejected"] += 1
            if policy.repeated != "score":
                continue
        gap = policy.max_gap is not None and known and row.time - seen.last > policy.max_gap
        if row.reset or gap:
            out.counts["fresh_starts"] += known
            seen.steps, seen.previous = 0, {}
        seen.last = row.time if seen.last is None else max(seen.last, row.time)
        out.kept.append(i)
        if row.a is not None:
            seen.previous["a"] = row.a
        elif "a" in seen.previous:
            out.counts["filled"] += 1
        if "a" not in seen.previous or row.b is None:
            out.counts["skipped"] += 1
            continue
        seen.steps += 1
        out.steps[i] = (row.stream, seen.steps, seen.previous["a"], row.b)
    return out


CONTRACT = Contract(
    ("k",), "t", (Feature("a", nulls="previous"), Feature("b", nulls="skip")), (), "r"
)


def _rows(rows: list[Row]) -> Rows:
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([r.stream for r in rows], pa.int64()),
            pa.array([r.time for r in rows], pa.timestamp("s")),
            pa.array([r.a for r in rows], pa.float32()),
            pa.array([r.b for r in rows], pa.float32()),
            pa.array([r.reset for r in rows], pa.bool_()),
        ],
        names=["k", "t", "a", "b", "r"],
    )
    return CONTRACT.read(batch, Origin.consecutive("f", 0, len(batch)))


class Memory:
    """What is known of some streams, as plain arrays; written here alone."""

    def __init__(self, kinds: dict[str, Any], streams: int = STREAMS) -> None:
        self.newest: int | None = None
        self.all_steps = np.zeros(streams, np.int64)
        self.last_time, self.seen = np.zeros(streams, np.int64), np.zeros(streams, bool)
        self.values = {n: np.zeros(streams, kind) for n, kind in kinds.items()}
        self.present = {n: np.zeros(streams, bool) for n in kinds}

    def steps(self, slots: Any) -> Any:
        return self.all_steps[slots]

    def last_times(self, slots: Any) -> tuple[Any, Any]:
        return self.last_time[slots], self.seen[slots]

    def previous(self, name: str, slots: Any) -> tuple[Any, Any]:
        return self.values[name][slots], self.present[name][slots]

    def write(self, update: Update) -> None:
        self.all_steps[update.slots], self.seen[update.slots] = update.steps, True
        if update.last_time is not None:
            self.last_time[update.slots] = update.last_time
        for name, (values, present) in update.previous.items():
            self.values[name][update.slots] = values
            self.present[name][update.slots] = present


def _memory(previous: tuple[str, ...] = ("a",)) -> Memory:
    return Memory(dict.fromkeys(previous, np.float32))


def _steps(by_stream: StreamBatch) -> dict[int, tuple[int, int, float, float]]:
    """Row -> (stream, step, a, b), from the segments."""
    found = {}
    for start, length, slot in zip(by_stream.start, by_stream.length, by_stream.slot, strict=True):
        for m in range(start, start + length):
            a, b = by_stream.features_MF[m].tolist()
            found[int(by_stream.row_M[m])] = (int(slot), int(by_stream.step_M[m]), a, b)
    assert int(by_stream.length.sum()) == len(by_stream.row_M)
    return found


VALUE = st.none() | st.sampled_from([-1.0, 0.5, 2.0])
ROW = st.builds(
    Row,
    stream=st.integers(0, STREAMS - 1),
    time=st.none() | st.integers(0, 30),
    a=VALUE,
    b=VALUE,
    reset=st.integers(0, 9).map(lambda n: n == 0),
)


def _policy(max_gap: int | None, idle: int | None, **rules: Any) -> RowPolicy:
    """As a pipeline makes it: a stream that is idle starts again."""
    gaps = [ticks for ticks in (max_gap, idle) if ticks is not None]
    return RowPolicy(max_gap=min(gaps, default=None), idle=idle, **rules)


RULES = st.builds(
    _policy,
    late=st.sampled_from(["drop", "reject", "apply"]),
    bad=st.just("reject"),
    repeated=st.sampled_from(["score", "skip", "reject"]),
    max_gap=st.none() | st.integers(0, 10),
    idle=st.none() | st.integers(0, 12),
    previous=st.just(frozenset({"a"})),
    float_names=st.just(("a", "b")),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ROW, max_size=30),
    RULES,
    st.lists(st.integers(0, 30), max_size=3),
    st.none() | st.integers(0, 40),
)
def test_any_rows_in_any_batches_are_as_row_by_row(
    rows: list[Row], policy: RowPolicy, cuts: list[int], newest: int | None
) -> None:
    """What is kept, rejected, skipped, filled, counted, carried: wherever the batches are cut."""
    memory, streams = _memory(), dict[int, Seen]()
    memory.newest = newest
    counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
    total: dict[str, int] = dict.fromkeys(COUNTS, 0)
    edges = [0, *sorted(c for c in cuts if c < len(rows)), len(rows)]
    for first, stop in pairwise(edges):
        piece = rows[first:stop]
        slots = np.array([r.stream for r in piece], np.int64)
        by_stream = sort_by_stream(_rows(piece), slots, memory, policy)
        expected = _oracle(piece, streams, policy, newest)
        assert by_stream.kept.tolist() == expected.kept
        assert by_stream.slot_N[by_stream.kept].tolist() == [piece[i].stream for i in expected.kept]
        assert by_stream.rejected.tolist() == expected.rejected
        assert _steps(by_stream) == expected.steps
        memory.write(by_stream.update())
        for name in COUNTS:
            counts[name] += by_stream.counts[name]
            total[name] += expected.counts[name]
    assert counts == total
    for stream, seen in streams.items():
        assert memory.seen[stream]
        assert (memory.all_steps[stream], memory.last_time[stream]) == (seen.steps, seen.last)
        value, present = memory.previous("a", stream)
        assert (value if present else None) == seen.previous.get("a")


def test_segments_are_runs_between_fresh_starts_and_the_last_one_carries() -> None:
    """A reset on a skipped row counts: an empty fresh segment."""
    rows = [
        Row(1, 0, 1.0, 1.0, False),
        Row(1, 1, 1.0, 1.0, True),
        Row(0, 1, 1.0, 1.0, False),
        Row(1, 2, 1.0, None, True),
    ]
    policy = RowPolicy(previous=frozenset({"a"}), float_names=("a", "b"))
    got = sort_by_stream(_rows(rows), np.array([1, 1, 0, 1]), _memory(), policy)
    assert got.slot.tolist() == [0, 1, 1, 1]
    assert got.length.tolist() == [1, 1, 1, 0]
    assert got.reset.tolist() == [False, False, True, True]
    assert got.last.tolist() == [True, False, False, True]


def test_a_fresh_start_forgets_the_last_value_of_the_batch_before() -> None:
    """A null right after it has nothing that could stand for it."""
    memory = _memory()
    policy = RowPolicy(previous=frozenset({"a"}), float_names=("a", "b"))
    first = sort_by_stream(_rows([Row(0, 0, 1.0, 1.0, False)]), np.array([0]), memory, policy)
    memory.write(first.update())
    rows = _rows([Row(0, 1, None, 1.0, False), Row(0, 2, None, 1.0, True)])
    got = sort_by_stream(rows, np.array([0, 0]), memory, policy)
    assert (got.row_M.tolist(), got.kept.tolist(), got.counts["filled"]) == ([0], [0, 1], 1)


def test_the_first_offending_row_in_file_order_is_told() -> None:
    """A broken row before a late one, and the other way round; equal times are not late."""
    late = [Row(0, 5, 1.0, 1.0, False), Row(0, 5, 1.0, 1.0, False), Row(0, 4, 1.0, 1.0, False)]
    broken = Row(1, None, 1.0, 1.0, False)
    policy = RowPolicy(previous=frozenset({"a"}), float_names=("a", "b"))
    again = replace(policy, repeated="error")
    with pytest.raises(DataError, match=r"row 1 .*stream k=0: t 1970-01-01 00:00:05 repeats"):
        sort_by_stream(_rows([*late, broken]), np.array([0, 0, 0, -1]), _memory(), again)
    with pytest.raises(DataError, match=r"row 0 .*column 't': time is null"):
        sort_by_stream(_rows([broken, *late]), np.array([-1, 0, 0, 0]), _memory(), again)
    with pytest.raises(DataError, match=r"row 2 .*stream k=0: time goes backwards: t 1970-01-01"):
        sort_by_stream(_rows([*late, broken]), np.array([0, 0, 0, -1]), _memory(), policy)
    with pytest.raises(DataError, match=r"row 0 .*column 't': time is null"):
        sort_by_stream(_rows([broken, *late]), np.array([-1, 0, 0, 0]), _memory(), policy)


def test_a_late_time_is_told_to_the_nanosecond() -> None:
    """Python's datetime ends at microseconds."""
    batch = pa.RecordBatch.from_arrays(
        [pa.array([0, 0]), pa.array([2, 1], pa.timestamp("ns"))], names=["k", "t"]
    )
    rows = Contract(("k",), "t", ()).read(batch, Origin.consecutive("f", 0, len(batch)))
    with pytest.raises(DataError, match=r"goes backwards: t 1970-01-01 00:00:00\.000000001 is"):
        sort_by_stream(rows, np.zeros(2, np.int64), _memory(()), RowPolicy())


def test_a_late_row_is_named_by_its_own_file() -> None:
    """Rows of one record batch may come from several."""
    batch = pa.record_batch({"k": pa.array([0, 0]), "t": pa.array([2, 1], pa.timestamp("s"))})
    origin = Origin(("a.parquet", "b.parquet"), np.array([0, 1]), np.array([5, 0]))
    rows = Contract(("k",), "t", ()).read(batch, origin)
    with pytest.raises(LateRowError, match=r"^b.parquet: row 0 .*FROM 'b.parquet' ORDER") as caught:
        sort_by_stream(rows, np.zeros(2, np.int64), _memory(()), RowPolicy())
    assert caught.value.file == "b.parquet"


def test_a_silence_of_all_time_is_a_gap() -> None:
    """From the first to the last tick of int64, which no int64 holds."""
    policy = RowPolicy(
        max_gap=10, repeated="skip", previous=frozenset({"a"}), float_names=("a", "b")
    )
    rows = [Row(0, t, 1.0, 1.0, False) for t in (-(2**63), 2**63 - 1)]
    got = sort_by_stream(_rows(rows), np.zeros(2, np.int64), _memory(), policy)
    assert got.reset.tolist() == [False, True]
    assert got.counts["repeated"] == 0


def test_streams_beyond_16_bits_keep_the_order_of_their_rows() -> None:
    """Slots are sorted 16 bits at a time."""
    rng = np.random.default_rng(7)
    slots = rng.choice([0, 1, 65535, 65536, 65537, 200_000], 500)
    rows = [Row(int(s), 0, float(i), 1.0, False) for i, s in enumerate(slots)]
    memory = Memory({}, 200_001)
    got = sort_by_stream(_rows(rows), slots, memory, RowPolicy(float_names=("a", "b")))
    assert got.row_M.tolist() == np.lexsort((np.arange(500), slots)).tolist()


def test_identifiers_are_carried_like_numbers() -> None:
    """An integer and a text whose nulls take the stream's last value."""
    features: tuple[Any, ...] = (
        Feature("i", "int64", nulls="previous"),
        Feature("s", "string", nulls="previous"),
    )
    batch = pa.RecordBatch.from_arrays(
        [pa.array([0, 1, 0, 0]), pa.array([5, None, None, 7]), pa.array(["x", "y", None, None])],
        names=["k", "i", "s"],
    )
    rows = Contract(("k",), None, features).read(batch, Origin.consecutive("f", 0, len(batch)))
    memory = Memory({"i": np.int64, "s": object})
    policy = RowPolicy(previous=frozenset({"i", "s"}))
    got = sort_by_stream(rows, np.array([0, 1, 0, 0]), memory, policy)
    assert got.row_M.tolist() == [0, 2, 3]
    assert got.identifiers["i"].tolist() == [5, 5, 7]
    assert got.identifiers["s"].tolist() == ["x", "x", "x"]
    memory.write(got.update())
    assert memory.values["i"][:2].tolist() == [7, 0]
    assert memory.present["s"].tolist() == [True, True, False, False]
