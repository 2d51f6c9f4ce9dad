"""A second writer of the same commit, that should be dead: it changes no byte that counts.

It has the number of the commit and of the shard, holds no lock, and works at the same time: the
process of a dead run that lived on, or a worker on a node that was cut off.
"""

import shutil

import pytest
from selection import first_quick
from stream.checkpoints.disks import HastyDisk, TracingDisk
from stream.checkpoints.small_run import expected, files_of, outcome, run, visible
from stream.checkpoints.zombie import Zombie

from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import SinkError
from streamrnn.outputs import compact, verify
from streamrnn.stream.checkpoints import OutputFolder, versions

BEFORE, STEPS = 2, 3


@pytest.fixture(autouse=True)
def quick_and_with_changes(monkeypatch):
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())
    monkeypatch.setattr(versions, "SMALL", 0)


def before(path):
    run(path, steps=BEFORE, keep=2)


def haunted(path, act, haunt):
    """Act while `haunt(number, point)` is called before and after every call of the disk; of the
    many small writes of a file, at the first. Returns the points."""
    points = []
    within = False

    def at(point):
        nonlocal within
        if not (within or (" write " in point and point in points)):
            points.append(point)
            within = True
            haunt(len(points) - 1, point)
            within = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalFiles, "disk", TracingDisk(str(path), at))
        act(path)
    return points


def run_on(path):
    run(path, steps=STEPS, keep=2)


def merge(path):
    compact(str(path))


def assert_nothing_changed(path, steps, when):
    """Rows, rejects and state are the run's, and the next start removes all else."""
    assert outcome(path) == expected(steps), when
    verify(str(path))
    parts = {name: (path / name).read_bytes() for name in files_of(path) if name[0] == "p"}
    with OutputFolder.open(str(path)) as folder:
        manifest = folder.manifest
    inside = {*manifest.state_names(), "_manifest.json", "_lock"}
    named = {part.name for part in manifest.parts} | {f"_streamrnn/{name}" for name in inside}
    assert files_of(path).keys() == named, when
    rejected = {part.name for part in manifest.named("rejects").parts}
    inside = {"_streamrnn/_lock", "_streamrnn/_owner"}
    assert files_of(f"{path}.rejects").keys() == rejected | inside, when
    assert parts == {name: (path / name).read_bytes() for name in parts}, when
    verify(str(path))


@pytest.mark.parametrize(("act", "steps"), first_quick([(run_on, STEPS), (merge, BEFORE)]))
def test_one_that_writes_and_finishes_at_any_step_of_a_commit(tmp_path, act, steps):
    """Slow: a merge of parts."""
    before(tmp_path / "trace" / "out")
    points = haunted(tmp_path / "trace" / "out", act, lambda *_: None)
    assert "after rename to _streamrnn/_manifest.json" in points
    before(tmp_path / "start" / "out")
    for number, point in enumerate(points):
        path = tmp_path / str(number) / "out"
        shutil.copytree(tmp_path / "start", path.parent)
        zombie = Zombie(str(path))

        def haunt(at, _, number=number, zombie=zombie):
            if at == number:
                zombie.finish(zombie.begin())

        haunted(path, act, haunt)
        assert_nothing_changed(path, steps, point)
        shutil.rmtree(path.parent)


@pytest.mark.parametrize(("act", "steps"), first_quick([(run_on, STEPS), (merge, BEFORE)]))
def test_one_that_begins_at_any_step_and_finishes_at_the_end(tmp_path, act, steps):
    """Its files are open while the commit is made around them. Slow: a merge."""
    path = tmp_path / "out"
    before(path)
    zombie = Zombie(str(path))
    attempts = []
    haunted(path, act, lambda *_: attempts.append(zombie.begin()))
    assert len(attempts) > 20
    for attempt in attempts:
        zombie.finish(attempt)
    assert outcome(path) == expected(steps)
    assert_nothing_changed(path, steps, "at the end")


def test_one_that_begins_before_and_comes_back_after_a_start_has_cleared_its_files(tmp_path):
    path = tmp_path / "out"
    before(path)
    zombie = Zombie(str(path))
    attempt = zombie.begin()
    run_on(path)
    zombie.finish(attempt)
    assert_nothing_changed(path, STEPS, "its files were removed while it had them open")
    run(path)
    assert_nothing_changed(path, 5, "the next run")


def test_one_whose_output_never_came_to_a_commit_finds_no_place(tmp_path):
    path = tmp_path / "out"
    before(path)
    zombie = Zombie(str(path))
    for folder in (path, tmp_path / "out.rejects"):
        shutil.rmtree(folder)
    with pytest.raises(SinkError, match="cannot create"):
        zombie.begin()
    assert visible(path) == []
