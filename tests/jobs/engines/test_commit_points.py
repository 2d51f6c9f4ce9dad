"""A driver killed at any point of the disk while it commits what several workers wrote.

The workers are in the same process, which makes a run cheap; `STREAMRNN_KILLS=200` tries all
points.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs.engines.in_process import TasksHere
from jobs.engines.same import assert_same
from kill import case
from selection import first_quick
from stream.checkpoints.disks import StoppingDisk, TracingDisk

from streamrnn.base.storage.local import LocalFiles
from streamrnn.jobs.engines import opening

KILLS = int(os.environ.get("STREAMRNN_KILLS", "12"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = case.make(tmp_path_factory.mktemp("points"))
    case.run(folder, folder / "single")
    return folder


def run(place: Path, out: Path) -> None:
    data = case.config(place, out)
    data["engine"] = {"type": "ray", "shards": 3, "epoch_rows": 800}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(1))
        case.run_config(data)


def forked(call: Callable[[], None]) -> int:
    """Run a call in a child; return its status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            call()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> case.Outcome:
    run(place, place / "shards")
    assert_same(place / "single", place / "shards")
    return case.Outcome(place / "shards")


def points_of(place: Path, out: Path, kills: int) -> list[int]:
    """Numbers of so many points that differ from their neighbours."""
    points: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalFiles, "disk", TracingDisk(str(out), points.append))
        run(place, out)
    for what in ("rename to _streamrnn/_manifest.json", "rename to part-00002.parquet"):
        assert any(point.endswith(what) for point in points)
    different = [n for n, point in enumerate(points) if point not in points[max(0, n - 3) : n]]
    if kills >= 200:
        return different
    return sorted(random.Random(kills).sample(different, kills))


@pytest.mark.parametrize("kills", first_quick([1, KILLS]))
def test_killed_at_points_of_the_commit(
    place: Path, undisturbed: case.Outcome, tmp_path: Path, kills: int
) -> None:
    """Slow: more points."""
    for number in points_of(place, tmp_path / "traced", kills):
        out = tmp_path / str(number)

        def stopping(out: Path = out, number: int = number) -> None:
            LocalFiles.disk = StoppingDisk(str(out), number, kill=True)
            run(place, out)

        status = forked(stopping)
        assert os.WIFSIGNALED(status), (number, status)
        assert os.WTERMSIG(status) == signal.SIGKILL, number
        assert case.is_prefix(case.rows(out), undisturbed.rows), number
        rejects = case.rows(Path(f"{out}.rejects"))
        assert case.is_prefix(rejects, undisturbed.rejects), number
        run(place, out)
        assert case.Outcome(out).differs(undisturbed) == [], number
        run(place, out)  # removes what tasks left that ran twice
        assert not list(out.rglob("*.tmp"))
        shutil.rmtree(out)
        shutil.rmtree(f"{out}.rejects", ignore_errors=True)
