"""A run stopped anywhere, in any way, and started again."""

import os
import re
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path

import pytest
from selection import first_quick
from stream.checkpoints.disks import ForgetfulDisk, HastyDisk, Stopped, StoppingDisk, TracingDisk
from stream.checkpoints.small_run import acts, expected, files_of, outcome, run, visible

from streamrnn.base.storage.local import LocalFiles
from streamrnn.outputs import compact, history, rewind, verify
from streamrnn.stream.checkpoints import read_manifest, records, versions
from streamrnn.stream.sinks import part

STEPS = 2


@pytest.fixture(autouse=True)
def quick_with_changes_and_few_numbers(monkeypatch):
    """No time for syncs; the tiny state of these runs is written as changes too, few parts as
    segments; and the eleventh part has another digit."""
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())
    monkeypatch.setattr(versions, "SMALL", 0)
    monkeypatch.setattr(records, "TAIL", 1)
    monkeypatch.setattr(part, "WIDTHS", (1, 2))


@pytest.fixture
def tmp_path(tmp_path):
    """In memory, where there is a place: thousands of files, of which none is to last."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as place:
        yield Path(place)


def fresh(path):
    path.parent.mkdir()


finished, run_on, refresh = acts(run, STEPS)
three_parts, ten_parts, ten_rejects = (partial(run, steps=steps) for steps in (3, 10, 21))


def merge(path):
    compact(str(path))


def merge_the_first_two(path):
    largest = max(part.bytes for part in read_manifest(str(path)).parts)
    compact(str(path), small=largest + 1)
    assert [part.name for part in read_manifest(str(path)).parts] == [
        "part-0.parquet",
        "part-2.parquet",
    ]


def eleventh_part(path):
    run(path, steps=11)
    assert {len(part.name) for part in read_manifest(str(path)).parts} == {len("part-00.parquet")}


def eleventh_reject(path):
    run(path, steps=22)
    names = {len(part.name) for part in read_manifest(str(path)).named("rejects").parts}
    assert names == {len("part-00.parquet")}


SCENES = [
    (fresh, run_on, STEPS),
    (three_parts, merge_the_first_two, STEPS + 1),
    (finished, merge, STEPS),
    (finished, refresh, STEPS),
    (ten_parts, eleventh_part, 11),
    (ten_rejects, eleventh_reject, 22),
]
IDS = ["fresh", "merge-two", "merge", "refresh", "eleventh-part", "eleventh-reject"]


def points_of(tmp_path, monkeypatch, before, act):
    path = tmp_path / "trace" / "out"
    before(path)
    points = []
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "disk", TracingDisk(str(path), points.append))
        act(path)
    return points


def is_prefix(part, whole):
    return part == whole[: len(part)]


def assert_recovers(path, point, steps=STEPS):
    """What is there is a prefix; the next run makes it whole, and leaves nothing else."""
    rows, rejects, state = expected(steps)
    assert is_prefix(visible(path), rows), point
    assert is_prefix(visible(f"{path}.rejects"), rejects), point
    run(path, steps=steps)
    assert outcome(path) == (rows, rejects, state), point
    assert_nothing_else(path, point)


def assert_nothing_else(path, point):
    """All that the last commit names is intact, and no other file is there."""
    verify(str(path))
    manifest = read_manifest(str(path))
    named = {part.name for part in manifest.parts} | {
        f"_streamrnn/{name}" for name in {*manifest.file_names(), "_manifest.json", "_lock"}
    }
    assert files_of(path).keys() == named, point


def stops(tmp_path, before, points, when, stop_at, every=1):
    """Stop at each n-th point of that time: (point, path) of each folder that no earlier one left.

    `stop_at(path, number, point)` acts on a folder as it was `before`. The next run depends on
    nothing but the files: what is left after a sync was recovered from after the write before it.
    """
    before(tmp_path / "start" / "out")
    path, seen = tmp_path / "stopped" / "out", set()
    for number, point in enumerate(points):
        if point.startswith(when) and number % every == 0:
            shutil.copytree(tmp_path / "start", path.parent)
            stop_at(path, number, point)
            left = contents(path.parent)
            if left not in seen:
                seen.add(left)
                yield point, path
            shutil.rmtree(path.parent)


ANEW = re.compile(
    rb"[0-9a-f]{16,}"  # tokens, and checksums of what has them
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*"
    rb'|"(?:pid|seen)": [.\d]+'  # of a lock
)
"""What is other bytes in each run."""


def contents(folder):
    """All names below a folder, and what the files have, but for what is `ANEW` in each run."""
    return frozenset(
        (
            ANEW.sub(b"", str(item.relative_to(folder)).encode()),
            ANEW.sub(b"", item.read_bytes()) if item.is_file() else None,
        )
        for item in folder.rglob("*")
        if "out.spare" not in item.parts  # of the disk that forgets
    )


def stop(act, path, disk, patch):
    with patch.context() as within:
        within.setattr(LocalFiles, "disk", disk)
        with pytest.raises(Stopped):
            act(path)
    return disk


def by_exception(act, patch):
    """What `stops` calls."""

    def stop_at(path, number, point):
        assert stop(act, path, StoppingDisk(str(path), number), patch).point == point

    return stop_at


def by_power(act, patch, but_renames=False):
    """What `stops` calls."""

    def stop_at(path, number, point):
        stop(act, path, ForgetfulDisk(str(path), number), patch).lose(but_renames)

    return stop_at


def by_kill(act):
    """What `stops` calls."""

    def stop_at(path, number, point):
        assert os.WTERMSIG(killed(act, path, number)) == signal.SIGKILL, point

    return stop_at


# What is true after a system call is true before the next one: each way to stop takes one of them.
@pytest.mark.parametrize(("before", "act", "steps"), first_quick(SCENES, 3), ids=IDS)
def test_stopped_by_an_exception_at_every_point(tmp_path, monkeypatch, before, act, steps):
    """Slow: a full refresh, and another digit in the names of parts."""
    points = points_of(tmp_path, monkeypatch, before, act)
    assert "after rename to _streamrnn/_manifest.json" in points
    assert any("_rows-" in point for point in points)
    for point, path in stops(tmp_path, before, points, "after", by_exception(act, monkeypatch)):
        assert_recovers(path, point, steps)


@pytest.mark.parametrize("but_renames", first_quick([False, True]))
@pytest.mark.parametrize(("before", "act", "steps"), first_quick(SCENES), ids=IDS)
def test_stopped_by_the_power_at_every_point(
    tmp_path, monkeypatch, before, act, steps, but_renames
):
    """Slow: loss of power in later runs, and with renames that last.

    The quick tests stop those runs by an exception.
    """
    points = points_of(tmp_path, monkeypatch, before, act)
    power = by_power(act, monkeypatch, but_renames)
    for point, path in stops(tmp_path, before, points, "before", power):
        assert_recovers(path, point, steps)


def test_a_commit_that_counted_is_not_lost_by_the_power(tmp_path, monkeypatch):
    path = tmp_path / "out"
    committed = []
    disk = ForgetfulDisk(str(path), 10**9)
    monkeypatch.setattr(LocalFiles, "disk", disk)

    def say(commit):
        committed.append(commit)
        if commit == 2:
            raise Stopped

    with pytest.raises(Stopped):
        run(path, steps=STEPS, say=say)
    disk.lose(but_renames=False)
    assert read_manifest(str(path)).commit == 2
    assert_recovers(path, "after commit 2")


def killed(act, path, number):
    """Run `act` in a process of its own that kills itself at the n-th point."""
    child = os.fork()
    if child == 0:
        try:
            LocalFiles.disk = StoppingDisk(str(path), number, kill=True)
            act(path)
        finally:
            os._exit(7)
    return os.waitpid(child, 0)[1]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(("before", "act", "steps"), first_quick(SCENES[::2], 2), ids=IDS[::2])
@pytest.mark.parametrize("every", first_quick([5, 1]))
def test_killed_at_every_point(tmp_path, monkeypatch, before, act, steps, every):
    """Slow: SIGKILL at each point, and with another digit in the names of parts.

    The quick tests stop by an exception at each point.
    """
    points = points_of(tmp_path, monkeypatch, before, act)
    for point, path in stops(tmp_path, before, points, "after", by_kill(act), every):
        assert_recovers(path, point, steps)


def rewound(tmp_path, monkeypatch, before, recovers, seen):
    """Stop a rewind to the first commit at every point; return what is `seen` before recovery."""

    def act(path):
        rewind(str(path), 1)

    points = points_of(tmp_path, monkeypatch, before, act)
    states = set()
    stop_at = by_exception(act, monkeypatch)
    for point, path in stops(tmp_path, before, points, "before", stop_at):
        states.add(seen(str(path)))
        recovers(path, point)
    return states


def rows_of(path):
    return history(path)[-1].rows


def test_rewind_stopped_at_every_point_has_happened_or_not(tmp_path, monkeypatch):
    lengths = rewound(tmp_path, monkeypatch, finished, assert_recovers, rows_of)
    assert lengths == {len(expected(n)[0]) for n in (1, STEPS)}
