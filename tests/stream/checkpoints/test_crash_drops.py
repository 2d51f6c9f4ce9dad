"""Commits that drop idle streams, stopped anywhere and started again; see `test_crash`."""

import numpy as np
import pyarrow as pa
import pytest
from selection import first_quick, slow
from stream.checkpoints.small_run import SCHEMA, visible
from stream.checkpoints.test_crash import (
    assert_nothing_else,
    by_exception,
    by_kill,
    by_power,
    is_prefix,
    points_of,
    quick_with_changes_and_few_numbers,
    stops,
    tmp_path,
)

from streamrnn.outputs import history, rewind
from streamrnn.stream.checkpoints import OutputFolder, Snapshot, load_state
from streamrnn.stream.sources import Position
from streamrnn.stream.states import Layout, StateTable, from_arrow

# Fixtures of the other module.
__all__ = ["quick_with_changes_and_few_numbers", "tmp_path"]

LAYOUT = Layout((pa.field("stream", pa.int64()),), pa.int64(), {"h": 1})
STEPS, IDLE = 4, 3
WRITTEN = ([*range(10)], [10, 0, 9], [9, 11], [12])
"""The streams of each step, whose time is four times its number."""


def begun():
    return StateTable(LAYOUT, {"h": np.zeros(1, np.float32)})


def score(table, step):
    """Score the rows of a step: the value of a stream is how many it has had."""
    streams = pa.array(WRITTEN[step], pa.int64())
    slots = table.find([streams])
    counts = table.steps(slots) + 1
    table.advance(slots, counts, np.full(len(slots), 4 * step), {})
    table.scatter(slots, {"h": counts[:, None].astype(np.float32)})
    return pa.record_batch([streams, pa.array(counts)], schema=SCHEMA)


def run(path, keep=1):
    """Run to the end, from wherever the folder stands."""
    with OutputFolder.open(str(path), keep=keep) as folder:
        folder.begin(SCHEMA, model="model", config={"source.key": ["stream"]})
        start = folder.manifest.counters["steps"] if folder.manifest else 0
        state, table = folder.load_state(), begun()
        if state is not None:
            initial = table.initial_states()
            table = from_arrow(state, LAYOUT, initial, "state", same_pipeline=True)
            table.mark_clean()
        for step in range(start, STEPS):
            folder.write(score(table, step))
            table.drop_idle(IDLE)
            folder.commit(
                position=Position("log.parquet", 0, step, step, False),
                state=Snapshot.of(table),
                counters={"steps": step + 1},
                complete=step == STEPS - 1,
            )
            table.mark_clean()


def run_on(path):
    run(path)


def fresh(path):
    path.parent.mkdir()


def expected():
    """All rows; and the states, without a folder and with a drop after each step."""
    rows, table = [], begun()
    for step in range(STEPS):
        rows += [tuple(row.values()) for row in score(table, step).to_pylist()]
        table.drop_idle(IDLE)
        table.mark_clean()
    return rows, table.to_arrow()


def assert_recovers(path, point):
    rows, state = expected()
    assert is_prefix(visible(path), rows), point
    run(path)
    assert visible(path) == rows, point
    assert load_state(str(path)).equals(state, check_metadata=True), point
    assert_nothing_else(path, point)


def test_streams_are_dropped_in_changes_of_these_runs(tmp_path):
    """Else the tests below show nothing."""
    fresh(tmp_path / "log" / "out")
    run(tmp_path / "log" / "out", keep=9)
    commits = history(str(tmp_path / "log" / "out"))
    streams = [commit.state_rows for commit in commits]
    assert streams == [10, 11, 4, 3]
    rewind(str(tmp_path / "log" / "out"), commits[1].commit)
    assert len(load_state(str(tmp_path / "log" / "out"))) == 11
    assert_recovers(tmp_path / "log" / "out", "rewind")


@slow
def test_stopped_by_an_exception_at_every_point(tmp_path, monkeypatch):
    """Slow: exceptions; the quick tests stop the same runs by kills."""
    points = points_of(tmp_path, monkeypatch, fresh, run_on)
    stop_at = by_exception(run_on, monkeypatch)
    for point, path in stops(tmp_path, fresh, points, "after", stop_at):
        assert_recovers(path, point)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("every", first_quick([15, 5]))
def test_killed_at_points(tmp_path, monkeypatch, every):
    """Slow: every fifth point; the quick tests stop at each by an exception."""
    points = points_of(tmp_path, monkeypatch, fresh, run_on)
    for point, path in stops(tmp_path, fresh, points, "after", by_kill(run_on), every):
        assert_recovers(path, point)


@slow
@pytest.mark.parametrize("but_renames", [False, True])
def test_stopped_by_the_power_at_every_point(tmp_path, monkeypatch, but_renames):
    """Slow: loss of power; the quick tests stop the same runs by exceptions and kills."""
    points = points_of(tmp_path, monkeypatch, fresh, run_on)
    power = by_power(run_on, monkeypatch, but_renames)
    for point, path in stops(tmp_path, fresh, points, "before", power):
        assert_recovers(path, point)
