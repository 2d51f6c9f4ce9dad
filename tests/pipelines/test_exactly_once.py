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
import pyarrow.parquet as pq
import pytest
from selection import first_quick

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


def _run(out: Path, *killed: str) -> int:
    """Run the job, killed as told; its exit status."""
    command = ["-c", KILLER, *killed, str(JOB)] if killed else [str(JOB)]
    arguments = ["data/weather.parquet", str(out), f"{out}.arrow"]
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


@pytest.mark.parametrize("most", first_quick([4, KILLS]))
def test_killed_between_its_steps_it_scores_each_row_once(
    expected: Path, tmp_path: Path, most: int
) -> None:
    """Files are equal byte by byte; the last checkpoint holds the same states. Slow: more often."""
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
