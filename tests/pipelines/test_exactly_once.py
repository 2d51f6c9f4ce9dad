"""The job of pipelines/etl/exactly_once.py, killed between its steps.

`STREAMRNN_KILLS=200 pytest tests/pipelines/test_exactly_once.py` kills it 200 times.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from selection import first_quick, slow

from pipelines import days
from streamrnn import Pipeline

ROOT = Path(__file__).parents[2]
JOB = ROOT / "pipelines" / "etl" / "exactly_once.py"
KILLS = int(os.environ.get("STREAMRNN_KILLS", "12"))
STEPS = ("process", "checkpoint", "replace")
# A process that dies by SIGKILL before or after the n-th call of one of the job's steps.
KILLER = """
import os, runpy, signal, sys
step, when, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
from streamrnn import Pipeline
owner = os if step == "replace" else Pipeline
original, calls = getattr(owner, step), 0
def wrapped(*args, **kwargs):
    global calls
    if not (step == "replace" and not str(args[1]).endswith(".parquet")):
        calls += 1
        if calls == n and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
    result = original(*args, **kwargs)
    if calls == n and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, step, wrapped)
sys.argv = sys.argv[4:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _run(out: Path, *killed: str, queue: Path = ROOT / "data/weather.parquet") -> int:
    """Run the job, killed as told; its exit status."""
    command = ["-c", KILLER, *killed, str(JOB)] if killed else [str(JOB)]
    arguments = [str(queue), str(out), f"{out}.arrow"]
    return subprocess.run([sys.executable, *command, *arguments], cwd=ROOT, check=False).returncode


def _rows(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(part) for part in sorted(out.glob("*.parquet")))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one run without a kill."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert _run(out) == 0
    return out


def test_one_run_scores_each_row_once(expected: Path) -> None:
    assert _rows(expected).num_rows == pq.read_metadata(ROOT / "data/weather.parquet").num_rows
    assert _run(expected) == 0  # nothing is left to do


@pytest.mark.parametrize("most", first_quick([1, KILLS]))
def test_killed_between_its_steps_it_scores_each_row_once(
    expected: Path, tmp_path: Path, most: int
) -> None:
    """Files are equal byte by byte; the last checkpoint holds the same states. Slow: more kills."""
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    out, kills, runs = tmp_path / "0", 0, 0
    while kills < most or _run(out) != 0:
        step, when, call = rng.choice(STEPS), rng.choice(["before", "after"]), rng.randint(1, 3)
        status = _run(out, step, when, str(call))
        kills += status == -signal.SIGKILL
        if status == 0:
            _compare(out, expected, f"seed {seed}")
            runs += 1
            out = tmp_path / str(runs)
    _compare(out, expected, f"seed {seed}")


def _compare(out: Path, expected: Path, when: str) -> None:
    parts = {part.name: part.read_bytes() for part in expected.glob("*.parquet")}
    assert {part.name: part.read_bytes() for part in out.glob("*.parquet")} == parts, when
    ours, theirs = (Path(f"{path}.arrow") for path in (out, expected))
    assert pa.ipc.open_file(ours).read_all().equals(pa.ipc.open_file(theirs).read_all()), when


@slow
def test_two_at_once_end_in_the_right_state_or_one_message(expected: Path, tmp_path: Path) -> None:
    """Slow: two processes; the jobs of other recipes do so with days."""
    arguments = ("data/weather.parquet", tmp_path / "out", tmp_path / "out.arrow")
    for status, error in days.at_once(JOB, arguments, arguments):
        assert status == 0 or (status, error.count("\n")) == (1, 1), error
        assert status == 0 or "is in use by another job" in error
    _compare(tmp_path / "out", expected, "two at once")


@slow
def test_of_two_that_cannot_see_their_locks_one_is_refused(expected: Path, tmp_path: Path) -> None:
    """Each with a folder of its own, and one checkpoint: the other one loses nothing.

    Slow: two processes; `test_checkpoint_owner.py` has two in short form.
    """
    done = days.at_once(
        JOB, *(("data/weather.parquet", tmp_path / name, tmp_path / "c.arrow") for name in "ab")
    )
    for status, error in done:
        assert status == 0 or (status, error.count("\n")) == (1, 1), error
    assert 0 in [status for status, _ in done]
    ours = {part.name: part for name in "ab" for part in (tmp_path / name).glob("*.parquet")}
    for part in expected.glob("*.parquet"):
        assert ours[part.name].read_bytes() == part.read_bytes()
    theirs = Path(f"{expected}.arrow").read_bytes()
    assert (tmp_path / "c.arrow").read_bytes() == theirs


@slow
def test_partitions_have_offsets_of_their_own(expected: Path, tmp_path: Path) -> None:
    """Killed in the second one; a partition that comes later is read from its start.

    Slow: a queue with partitions.
    """
    log, queue, out = pq.read_table(ROOT / "data/weather.parquet"), tmp_path / "q", tmp_path / "out"
    queue.mkdir()

    def put(origin: str) -> None:
        pq.write_table(log.filter(pc.equal(log["origin"], origin)), queue / f"{origin}.parquet")

    put("JFK")
    put("LGA")
    arguments = [sys.executable, "-c", KILLER, "checkpoint", "after", "7", str(JOB)]
    arguments += [str(queue), str(out), f"{out}.arrow"]
    assert subprocess.run(arguments, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    put("EWR")  # before both in the order of names
    assert days.at_once(JOB, (queue, out, f"{out}.arrow"))[0][0] == 0
    sizes = {path.stem: pq.read_metadata(path).num_rows for path in queue.iterdir()}
    resumed = Pipeline.resume(f"{out}.arrow")
    assert resumed.position == sizes
    order = [("origin", "ascending"), ("time_hour", "ascending")]
    assert _rows(out).sort_by(order) == _rows(expected).sort_by(order)
    theirs = Pipeline.resume(f"{expected}.arrow").state.to_arrow()
    assert resumed.state.to_arrow().sort_by("origin") == theirs.sort_by("origin")


@pytest.mark.parametrize("killed", [(), ("checkpoint", "before", "2")], ids=["ended", "killed"])
@slow
def test_a_queue_that_grows_is_scored_once(
    expected: Path, tmp_path: Path, killed: tuple[str, ...]
) -> None:
    """Its last batch was part of one; killed after that was written, the job writes it again.

    Slow: a queue whose file grows.
    """
    log, queue, out = pq.read_table(ROOT / "data/weather.parquet"), tmp_path / "q", tmp_path / "out"
    queue.mkdir()
    for rows, kill in ((3000, killed), (5000, ()), (5000, ()), (len(log), ())):
        pq.write_table(log.slice(0, rows), queue / "weather.parquet")
        assert _run(out, *kill, queue=queue) == (-signal.SIGKILL if kill else 0)
        if not kill:
            assert _rows(out).num_rows == rows
    assert _rows(out) == _rows(expected)
    theirs = Pipeline.resume(f"{expected}.arrow")
    resumed = Pipeline.resume(f"{out}.arrow")
    assert resumed.position == theirs.position
    assert resumed.state.to_arrow() == theirs.state.to_arrow()
