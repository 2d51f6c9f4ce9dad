"""SIGKILL at any moment: the next run goes on, and nothing differs from an undisturbed run.

`STREAMRNN_KILLS=200 pytest tests/kill` kills 200 times at random moments, and at every point of
every commit (before and after each sync, rename and deletion, the first and the last write of a
file); by default it is 12 times, and at 6 points.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kill import case
from selection import first_quick

KILLS = int(os.environ.get("STREAMRNN_KILLS", "12"))
SOME = first_quick([2, KILLS])
"""How often a quick test kills, and a slow one."""


class Server:
    """Asks the server for runs that end as told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py")), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait() == 0

    def run(self, out: Path, **how):
        request = {"folder": str(self.folder), "out": str(out), **how}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(case.make(tmp_path_factory.mktemp("kill"))) as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(server):
    out = server.folder / "undisturbed"
    assert server.run(out)["status"] == 0
    outcome = case.Outcome(out)
    assert outcome.rejects.num_rows > 50
    assert outcome.state.num_rows > 100
    return outcome


def assert_prefix(out, undisturbed, when):
    assert case.is_prefix(case.rows(out), undisturbed.rows), when
    assert case.is_prefix(case.rows(Path(f"{out}.rejects")), undisturbed.rejects), when


@pytest.mark.parametrize("kills", SOME)
def test_killed_at_random_moments_again_and_again(server, undisturbed, tmp_path, kills):
    """One output is killed until a run gets to its end; then it is another one's turn.

    Slow: more kills.
    """
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    usual = server.run(tmp_path / "measure")["seconds"]
    killed = turn = 0
    out = tmp_path / "0"
    while killed < kills:
        answer = server.run(out, seconds=rng.uniform(0.05, 1.0) * usual)
        when = f"seed {seed}, kill {killed}: {answer}"
        if answer["killed"]:
            killed += 1
            assert_prefix(out, undisturbed, when)
            continue
        assert answer["status"] == 0, when
        assert case.Outcome(out).differs(undisturbed) == [], when
        turn += 1
        out = tmp_path / str(turn)
    assert server.run(out)["status"] == 0
    assert case.Outcome(out).differs(undisturbed) == [], f"seed {seed}"


def among_its_like(points, number, point):
    """Neither the first nor the last of the many small writes of a file."""
    before, after = points[max(0, number - 2) : number - 1], points[number + 2 : number + 3]
    return before == after == [point]


@pytest.mark.parametrize("kills", SOME)
def test_killed_at_points_of_the_commit(server, undisturbed, tmp_path, kills):
    """Slow: more points."""
    assert server.run(tmp_path / "traced", trace=str(tmp_path / "points"))["status"] == 0
    points = (tmp_path / "points").read_text().split("\n")
    for what in ("write", "sync", "rename to", "delete", "create", "sync folder"):
        assert any(point.startswith(f"before {what}") for point in points)
    chosen = [n for n, point in enumerate(points) if not among_its_like(points, n, point)]
    if kills < 200:
        chosen = sorted(random.Random(kills).sample(chosen, kills // 2))
    for number in chosen:
        out = tmp_path / str(number)
        assert server.run(out, point=number)["killed"], points[number]
        assert_prefix(out, undisturbed, points[number])
        assert server.run(out)["status"] == 0, points[number]
        assert case.Outcome(out).differs(undisturbed) == [], points[number]
        shutil.rmtree(out)
        shutil.rmtree(f"{out}.rejects", ignore_errors=True)


def test_an_exception_in_the_midst_changes_nothing(server, undisturbed, tmp_path):
    """As from a user's cell: whatever ends a run, the next one goes on."""

    def fail(progress):
        if progress.rows > 2150:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        case.run(server.folder, tmp_path / "out", progress=fail)
    assert_prefix(tmp_path / "out", undisturbed, "after the exception")
    summary = case.run(server.folder, tmp_path / "out")
    assert "Resumed at row" in summary.resumed
    assert case.Outcome(tmp_path / "out").differs(undisturbed) == []


def test_killed_before_its_first_commit_the_run_starts_over(server, undisturbed, tmp_path):
    out = tmp_path / "out"
    assert server.run(out, point=12)["killed"]
    assert not (out / "_streamrnn/_manifest.json").exists()
    assert case.rows(out) is None
    assert server.run(out)["status"] == 0
    assert case.Outcome(out).differs(undisturbed) == []
