"""A run with alerts, stopped anywhere and started again; see `test_crash`."""

from contextlib import suppress
from functools import partial

import pytest
from selection import first_quick, slow
from stream.checkpoints import small_run
from stream.checkpoints.test_crash import (
    STEPS,
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

from streamrnn.errors import CheckpointError
from streamrnn.outputs import rewind, verify
from streamrnn.stream.checkpoints import read_manifest

# Fixtures of the other module.
__all__ = ["quick_with_changes_and_few_numbers", "tmp_path"]

run = partial(small_run.run, where="not stream = 4")


def alerts(steps):
    return [row for row in small_run.expected(steps)[0] if row[0] != 4]


def assert_recovers(path, point, steps=STEPS):
    """The alerts are a prefix, too; the next run makes them whole, and leaves nothing else."""
    rows, rejects, state = small_run.expected(steps)
    found = small_run.visible(path)
    assert is_prefix(found, rows), point
    assert is_prefix(small_run.visible(f"{path}.alerts"), alerts(steps)), point
    run(path, steps=steps)
    assert small_run.outcome(path) == (rows, rejects, state), point
    assert small_run.visible(f"{path}.alerts") == alerts(steps), point
    verify(str(path))
    manifest = read_manifest(str(path))
    named = {part.name for part in manifest.named("alerts").parts} | {
        "_streamrnn/_owner",
        "_streamrnn/_lock",
    }
    assert small_run.files_of(f"{path}.alerts").keys() == named, point


finished, go_on, refresh = small_run.acts(run, STEPS)
SCENES = [(fresh, go_on), (finished, refresh), (finished, merge)]
IDS = ["fresh", "refresh", "merge"]


@pytest.mark.parametrize(("before", "act"), SCENES, ids=IDS)
@slow
def test_stopped_by_an_exception_at_every_point(tmp_path, monkeypatch, before, act):
    """Slow: a run with alerts; quick tests stop the same run with rejects, a side output, too."""
    points = points_of(tmp_path, monkeypatch, before, act)
    for point, path in stops(tmp_path, before, points, "after", by_exception(act, monkeypatch)):
        assert_recovers(path, point)


@pytest.mark.parametrize(("before", "act"), SCENES[:1], ids=IDS[:1])
@slow
def test_stopped_by_the_power_at_every_point(tmp_path, monkeypatch, before, act):
    """Slow: loss of power; the quick tests stop the same run by an exception."""
    points = points_of(tmp_path, monkeypatch, before, act)
    for point, path in stops(tmp_path, before, points, "before", by_power(act, monkeypatch)):
        assert_recovers(path, point)


def test_rewind_stopped_at_every_point_has_happened_or_not(tmp_path, monkeypatch):
    def seen(path):
        return rows_of(path), read_manifest(path).named("alerts").rows

    lengths = rewound(tmp_path, monkeypatch, finished, assert_recovers, seen)
    assert lengths == {(len(small_run.expected(n)[0]), len(alerts(n))) for n in (1, STEPS)}


SECOND = "stream = 5"  # the first commit has no such row


def to_first(path):
    rewind(str(path), 1)


def refresh_without_alerts(path):
    run(path, steps=1, full_refresh=True, where=SECOND)


def refresh_without_filter(path):
    run(path, steps=1, full_refresh=True, where="")


def with_alerts(path):
    run(path, steps=STEPS, keep=3, where=SECOND)


def with_alerts_and_no_manifest(path):
    with_alerts(path)
    manifest = path / "_streamrnn/_manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("before", "act"),
    first_quick(
        [
            (with_alerts, to_first),
            (with_alerts, refresh_without_alerts),
            (with_alerts, refresh_without_filter),
            (with_alerts_and_no_manifest, refresh_without_alerts),
        ]
    ),
)
def test_alerts_go_if_a_commit_without_any_is_stopped(tmp_path, monkeypatch, before, act):
    """Those that a rewind or refresh withdraws, by the next run at the latest. Slow: refreshes."""
    points = points_of(tmp_path, monkeypatch, before, act)
    counts = set()
    for point, path in stops(tmp_path, before, points, "after", by_exception(act, monkeypatch)):
        run(path, steps=1, where="", full_refresh=not is_readable(path))
        kept = read_manifest(str(path)).named("alerts").rows
        assert len(small_run.visible(f"{path}.alerts")) == kept, point
        run(path, steps=STEPS, where=SECOND)
        assert len(small_run.visible(f"{path}.alerts")) == 1, point
        verify(str(path))
        counts.add(kept)
    assert 0 in counts


def is_readable(path):
    with suppress(CheckpointError):
        read_manifest(str(path))
        return True
    return False


def test_a_filter_may_come_and_go(tmp_path):
    """Alerts of earlier runs stay, and are taken back by a rewind."""
    path = tmp_path / "out"
    small_run.run(path, steps=1, keep=5)
    assert b'"alerts"' not in (path / "_streamrnn/_manifest.json").read_bytes()
    run(path, steps=2, keep=5)
    new = [row for row in small_run.expected(2)[0][2:] if row[0] != 4]
    assert small_run.visible(f"{path}.alerts") == new
    small_run.run(path, steps=3, keep=5)
    assert small_run.visible(f"{path}.alerts") == new
    verify(str(path))
    (tmp_path / "out.alerts" / read_manifest(str(path)).named("alerts").parts[0].name).unlink()
    with pytest.raises(CheckpointError, match=r"out\.alerts/part-0\.parquet is missing"):
        verify(str(path))
