"""A run into partitions, stopped anywhere and started again; see `test_crash`."""

from functools import partial

import pytest
from selection import slow
from stream.checkpoints import small_run, test_crash
from stream.checkpoints.test_crash import (
    STEPS,
    assert_nothing_else,
    by_exception,
    by_power,
    fresh,
    is_prefix,
    merge,
    points_of,
    quick_with_changes_and_few_numbers,
    rewound,
    rows_of,
    stops,
    tmp_path,
)

from streamrnn.stream.checkpoints import read_manifest
from streamrnn.stream.sinks import partitions

# Fixtures of the other module.
__all__ = ["quick_with_changes_and_few_numbers", "tmp_path"]

run = partial(small_run.run, partition_by=["stream"])


@pytest.fixture(autouse=True)
def rows_are_spilled(monkeypatch):
    """Nothing waits in memory; files are synced one after another, always in the same order."""
    monkeypatch.setattr(partitions, "BUFFER", 0)
    monkeypatch.setattr(partitions, "SYNCING", 1)


def by_partition(rows):
    """The rows of each stream, which is the partition."""
    found = {}
    for stream, seen in rows:
        found.setdefault(stream, []).append(seen)
    return found


def assert_recovers(path, point, steps=STEPS):
    """Each partition has a prefix; the next run makes all whole, and leaves nothing else."""
    rows, rejects, state = small_run.expected(steps)
    whole = by_partition(rows)
    for stream, seen in by_partition(small_run.visible(path)).items():
        assert is_prefix(seen, whole[stream]), point
    assert is_prefix(small_run.visible(f"{path}.rejects"), rejects), point
    run(path, steps=steps)
    found = small_run.outcome(path)
    assert (by_partition(found[0]), *found[1:]) == (whole, rejects, state), point
    assert_nothing_else(path, point)


finished, go_on, refresh = small_run.acts(run, STEPS)
two_runs = partial(run, steps=STEPS + 1, keep=0)


def nine_parts(path):
    run(path, steps=3)
    assert len(read_manifest(str(path)).parts) == 8


def eleventh_part(path):
    run(path, steps=4)
    assert {part.width for part in read_manifest(str(path)).parts} == {2}


SCENES = [
    (fresh, go_on, STEPS),
    (finished, refresh, STEPS),
    (test_crash.finished, refresh, STEPS),  # of a plain folder
    (two_runs, merge, STEPS + 1),
    (nine_parts, eleventh_part, 4),
]
IDS = ["fresh", "refresh", "refresh-of-a-plain-folder", "merge", "more-digits"]


def test_a_refresh_may_make_a_plain_folder_of_partitions_and_the_reverse(tmp_path):
    path = tmp_path / "out"
    for kind in (run, small_run.run, run):
        kind(path, full_refresh=True)
        assert small_run.outcome(path) == small_run.expected()
        folders = {item.name for item in path.iterdir()} - {"_streamrnn"}
        assert all(("=" in name) == (kind is run) for name in folders)


@pytest.mark.parametrize(("before", "act", "steps"), SCENES, ids=IDS)
@slow
def test_stopped_by_an_exception_at_every_point(tmp_path, monkeypatch, before, act, steps):
    """Slow: a run into partitions; quick tests stop the same run into a plain folder, and the
    rewind of partitions."""
    points = points_of(tmp_path, monkeypatch, before, act)
    assert "after rename to _streamrnn/_manifest.json" in points
    for point, path in stops(tmp_path, before, points, "after", by_exception(act, monkeypatch)):
        if not (path / "_streamrnn" / "_manifest.json").exists():
            run(path, steps=steps, full_refresh=before is not fresh)
        if is_partitioned(path):
            assert_recovers(path, point, steps)


def is_partitioned(path):
    """Whether the refresh of a plain folder has happened."""
    return bool(read_manifest(str(path)).config["sink.partition_by"])


@pytest.mark.parametrize("but_renames", [False, True])
@pytest.mark.parametrize(("before", "act", "steps"), SCENES[::2], ids=IDS[::2])
@slow
def test_stopped_by_the_power_at_every_point(
    tmp_path, monkeypatch, before, act, steps, but_renames
):
    """Slow: loss of power; the quick tests stop those runs by an exception."""
    points = points_of(tmp_path, monkeypatch, before, act)
    power = by_power(act, monkeypatch, but_renames)
    for point, path in stops(tmp_path, before, points, "before", power):
        if before is test_crash.finished and not is_partitioned(path):
            test_crash.assert_recovers(path, point, steps)  # it is still the plain folder
        else:
            assert_recovers(path, point, steps)


def test_rewind_stopped_at_every_point_has_happened_or_not(tmp_path, monkeypatch):
    lengths = rewound(tmp_path, monkeypatch, finished, assert_recovers, rows_of)
    assert len(lengths) == 2
