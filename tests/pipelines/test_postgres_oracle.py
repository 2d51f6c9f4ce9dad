"""The job of pipelines/etl/postgres_queue.py, killed between and amid its steps.

On a server of Debian's package `postgresql`, of a user other than root, in a temporary folder and
on a socket there. `STREAMRNN_KILLS=200` kills it 200 times.
"""

import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from readme import make_clone

from pipelines import days
from streamrnn import Pipeline

psycopg = pytest.importorskip("psycopg", reason="needs the oracles extra")
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
if not PROGRAMS:
    pytest.skip("needs Debian's package postgresql", allow_module_level=True)
JOB = days.ROOT / "pipelines" / "etl" / "postgres_queue.py"
QUEUE = days.ROOT / "data" / "weather.parquet"
KILLS = int(os.environ.get("STREAMRNN_KILLS", "6"))
STEPS = {  # and the largest number of its call that is killed
    "streamrnn.Pipeline.process": 6,
    "streamrnn.Pipeline.checkpoint": 6,
    "psycopg.Cursor.execute": 6,
    "psycopg.Copy.write_row": 9000,
    "psycopg.Transaction.__exit__": 6,
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The connection string of a server, but for the name of a database."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    user: Any = {}
    if os.getuid() == 0:  # which Postgres refuses
        account = pwd.getpwnam("postgres")
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(folder, account.pw_uid, account.pw_gid)
    data, binaries = folder / "data", PROGRAMS[-1].parent
    initdb = [str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "weather"]
    subprocess.run(
        [*initdb, "-E", "UTF8", "--no-sync"], cwd=folder, check=True, capture_output=True, **user
    )
    postgres = [str(binaries / "postgres"), "-D", str(data), "-k", str(folder), "-F"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*postgres, "-c", "listen_addresses="], cwd=folder, stdout=log, stderr=log, **user
        )
    try:
        _wait_for(f"host={folder} user=weather dbname=postgres", process)
        yield f"host={folder} user=weather dbname="
    finally:
        process.send_signal(signal.SIGINT)  # ends its sessions, too
        process.wait(60)
        shutil.rmtree(folder)


def _wait_for(database: str, process: subprocess.Popen[Any]) -> None:
    while process.poll() is None:
        try:
            psycopg.connect(database).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the server ended with {process.returncode}")


def _new(server: str, name: str) -> str:
    with psycopg.connect(f"{server}postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server + name


def _run(database: str, *killed: str, queue: Path = QUEUE) -> int:
    command = [sys.executable, *(["-c", days.KILLER, *killed] if killed else []), str(JOB)]
    return subprocess.run(
        [*command, str(queue), database], cwd=days.ROOT, env=days.environment(), check=False
    ).returncode


def _content(database: str) -> tuple[list[tuple[Any, ...]], int, bytes | None]:
    """Rows in order, with the bits of the forecast; the number, and the checkpoint."""
    with psycopg.connect(database) as connection:
        if connection.execute("SELECT to_regclass('weather_state')").fetchone() == (None,):
            return [], 0, None  # killed before there were tables
        rows = connection.execute("SELECT * FROM weather_scores ORDER BY 1, 2, 3, 4").fetchall()
        state = connection.execute("SELECT number, checkpoint FROM weather_state").fetchone()
    assert state is not None
    bits = [None if row[3] is None else np.float32(row[3]).tobytes() for row in rows]
    return [(*row[:3], bit) for row, bit in zip(rows, bits, strict=True)], *state


@pytest.fixture(scope="module")
def expected(server: str) -> tuple[list[tuple[Any, ...]], int, bytes | None]:
    """What one run without a kill writes."""
    database = _new(server, "undisturbed")
    assert _run(database) == 0
    return _content(database)


def test_one_run_scores_each_row_once(
    expected: tuple[list[tuple[Any, ...]], int, bytes | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the numbers of `process`, and the state in the same transaction."""
    rows, number, checkpoint = expected
    log = pq.read_table(QUEUE)
    monkeypatch.chdir(make_clone(tmp_path))
    pipeline = Pipeline.from_toml("pipelines/weather.toml")
    scored = pipeline.process(log)
    assert len(rows) == len(log) == scored.num_rows
    assert number == -(-len(log) // 2048)
    forecasts = [row[3] for row in rows]
    order = [(name, "ascending") for name in ("origin", "time_hour", "temp", "temp_3h")]
    values = pa.table(scored).sort_by(order)["temp_3h"].to_pylist()
    assert forecasts == [None if v is None else np.float32(v).tobytes() for v in values]
    resumed = Pipeline.resume(checkpoint or b"")
    assert (resumed.position, resumed.state.to_arrow()) == (
        {"weather": len(log)},
        pipeline.state.to_arrow(),
    )


def test_killed_at_any_step_it_scores_each_row_once(
    server: str, expected: tuple[list[tuple[Any, ...]], int, bytes | None]
) -> None:
    """Rows are equal, and the checkpoint byte by byte; after each kill both are of one batch."""
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    database, kills, runs = _new(server, "killed_0"), 0, 0
    while kills < KILLS or _run(database) != 0:
        step = rng.choice(list(STEPS))
        call = str(rng.randint(1, STEPS[step]))
        status = _run(database, step, rng.choice(["before", "after"]), call)
        kills += status == -signal.SIGKILL
        rows, number, checkpoint = _content(database)
        assert len(rows) == min(2048 * number, len(expected[0])), f"seed {seed}"
        position = Pipeline.resume(checkpoint).position if checkpoint else {"weather": 0}
        assert position == {"weather": len(rows)}, f"seed {seed}"
        if status == 0:
            assert _content(database) == expected, f"seed {seed}"
            runs += 1
            database = _new(server, f"killed_{runs}")
    assert _content(database) == expected, f"seed {seed}"


def test_two_at_once_end_in_the_right_state_or_one_message(
    server: str, expected: tuple[list[tuple[Any, ...]], int, bytes | None]
) -> None:
    database = _new(server, "two")
    done = days.at_once(JOB, (QUEUE, database), (QUEUE, database))
    for status, error in done:
        assert status == 0 or (status, error.count("\n")) == (1, 1), error
        assert status == 0 or "another job has replaced checkpoint" in error
    assert 0 in [status for status, _ in done]
    assert _content(database) == expected


def test_a_queue_that_grows_is_scored_once(
    server: str, expected: tuple[list[tuple[Any, ...]], int, bytes | None], tmp_path: Path
) -> None:
    """Its last batch was part of one."""
    log, queue, database = pq.read_table(QUEUE), tmp_path / QUEUE.name, _new(server, "grows")
    for rows in (3000, 5000, 5000, len(log)):
        pq.write_table(log.slice(0, rows), queue)
        assert _run(database, queue=queue) == 0
        assert len(_content(database)[0]) == rows
    scored, _, checkpoint = _content(database)
    assert scored == expected[0]
    resumed, theirs = (Pipeline.resume(each or b"") for each in (checkpoint, expected[2]))
    assert resumed.state.to_arrow() == theirs.state.to_arrow()
