"""SIGKILL at any moment of a session: the next one goes on, and nothing differs.

`STREAMRNN_KILLS=200 pytest tests/kill` kills 200 times at random moments, and at points of its
commits and of the merges of its parts; by default it is 12 times, and at 6 points.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill import case
from kill.test_kill import SOME, Server, among_its_like

from streamrnn import Pipeline
from streamrnn.outputs import verify


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(case.make(tmp_path_factory.mktemp("sessions"))) as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(server: Server) -> case.Outcome:
    """The session gives the rows and the state of a run over the same rows."""
    out, run = server.folder / "undisturbed", server.folder / "run"
    assert server.run(out, live=True)["status"] == server.run(run)["status"] == 0
    outcome = case.Outcome(out)
    assert case.Outcome(run).differs(outcome) == ["rejects"]  # they name the batch, not a file
    assert outcome.rejects.num_rows > 50
    return outcome


def assert_whole(out: Path, undisturbed: case.Outcome, when: str) -> None:
    """Rows and state are the same, and the rejects but for where a session had them."""
    found = case.Outcome(out)
    assert found.differs(undisturbed) in ([], ["rejects"]), when
    assert case.same(found.rejects.drop("row"), undisturbed.rejects.drop("row")), when
    verify(str(out))


@pytest.mark.parametrize("kills", SOME)
def test_sessions_killed_at_random_moments(
    server: Server, undisturbed: case.Outcome, tmp_path: Path, kills: int
) -> None:
    """One output is killed until a session gets to its end; a run may come between.

    Slow: more kills.
    """
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    usual = server.run(tmp_path / "measure", live=True)["seconds"]
    killed = turn = 0
    out = tmp_path / "0"
    while killed < kills:
        answer = server.run(out, live=True, seconds=rng.uniform(0.05, 1.0) * usual)
        when = f"seed {seed}, kill {killed}: {answer}"
        if answer["killed"]:
            killed += 1
            assert case.is_prefix(case.rows(out), undisturbed.rows), when
            if rng.random() < 0.2 and case.rows(out) is not None:
                _run_over_nothing(server.folder, out)
            continue
        assert answer["status"] == 0, when
        assert_whole(out, undisturbed, when)
        turn += 1
        out = tmp_path / str(turn)
    assert server.run(out, live=True)["status"] == 0
    assert_whole(out, undisturbed, f"seed {seed}")


def _run_over_nothing(folder: Path, out: Path) -> None:
    """A run that finds no new file repairs what the kill has left, and commits nothing."""
    config = case.config(folder, out, after={"path": "2.parquet"})
    assert Pipeline.from_dict(config).run().nothing_new


@pytest.mark.parametrize("kills", SOME)
def test_sessions_killed_at_points_of_the_commit(
    server: Server, undisturbed: case.Outcome, tmp_path: Path, kills: int
) -> None:
    """Slow: more points."""
    answer = server.run(tmp_path / "traced", live=True, trace=str(tmp_path / "points"))
    assert answer["status"] == 0
    points = (tmp_path / "points").read_text().split("\n")
    for what in ("write", "sync", "rename to", "delete", "create", "sync folder"):
        assert any(point.startswith(f"before {what}") for point in points)
    chosen = [n for n, point in enumerate(points) if not among_its_like(points, n, point)]
    chosen = sorted(random.Random(kills).sample(chosen, min(len(chosen), max(2, kills // 2))))
    for number in chosen:
        out = tmp_path / str(number)
        assert server.run(out, live=True, point=number)["killed"], points[number]
        assert case.is_prefix(case.rows(out), undisturbed.rows), points[number]
        assert server.run(out, live=True)["status"] == 0, points[number]
        assert_whole(out, undisturbed, points[number])
        shutil.rmtree(out)
        shutil.rmtree(f"{out}.rejects", ignore_errors=True)
