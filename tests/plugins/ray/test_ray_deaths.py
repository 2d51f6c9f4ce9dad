"""Workers, drivers and nodes of Ray die or come back from the dead: nothing differs afterwards.

`STREAMRNN_KILLS=20 pytest tests/plugins/ray` kills 20 workers; by default it is 3.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import logs
import pytest
from jobs.engines.same import assert_same
from kill import case
from plugins.ray import cluster

from streamrnn import Pipeline
from streamrnn.outputs import verify

ray = pytest.importorskip("ray", reason="needs the engines extra")
KILLS = int(os.environ.get("STREAMRNN_KILLS", "3"))


@pytest.fixture(scope="module", autouse=True)
def address() -> Iterator[str]:
    with cluster.started() as address:
        yield address


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that takes two workers some seconds in many epochs."""
    folder = tmp_path_factory.mktemp("deaths")
    log = logs.random_log(40_000, streams=1500, seed=5, nulls=0.1, resets=0.01, jitter=5)
    for index in range(8):
        logs.write(log.slice(index * 5000, 5000), folder / f"in/{index}.parquet", row_group=1000)
    logs.small_model("LSTM", units=32).save(folder / "model.safetensors")
    Pipeline.from_dict(config(folder, folder / "single", {})).run()
    return folder


def config(place: Path, out: Path, engine: dict[str, Any]) -> dict[str, Any]:
    data = case.config(place, out, max_gap="4h", max_rejects=40_000)
    return {**data, "engine": engine}


def on_ray(address: str = "local", epoch_rows: int = 2000) -> dict[str, Any]:
    return {"type": "ray", "shards": 4, "epoch_rows": epoch_rows, "address": address}


def test_workers_killed_at_random_moments(place: Path, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    killed, rounds = [], 0
    done = threading.Event()

    def kill() -> None:
        while not done.wait(rng.uniform(0.05, 0.3)):
            found = cluster.busy(cluster.tree(os.getpid()))
            if found and len(killed) < KILLS:
                killed.append(rng.choice(found))
                with suppress(ProcessLookupError):
                    os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while len(killed) < KILLS:
            out = tmp_path / str(rounds)
            Pipeline.from_dict(config(place, out, on_ray())).run()
            assert_same(place / "single", out)
            rounds += 1
            assert rounds < 20 + KILLS, f"seed {seed}: only {len(killed)} killed"
    finally:
        done.set()
        killer.join()


DRIVER = """
import json, os, signal, sys
from stream.checkpoints.disks import StoppingDisk
from streamrnn import Pipeline
from streamrnn.base.storage.local import LocalFiles

data, point, number = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
met = 0

class Disk(StoppingDisk):
    def stop(self, found):
        global met
        met += point in found
        if met == number:
            os.kill(os.getpid(), signal.SIGKILL)

LocalFiles.disk = Disk(data["sink"]["path"], 0)
Pipeline.from_dict(data).run()
"""


@pytest.mark.parametrize(
    ("point", "number"),
    [
        ("before sync folder _streamrnn/staging", 2),
        ("before rename to _streamrnn/_manifest.json", 2),
        ("after rename to _streamrnn/_manifest.json", 3),
        ("after rename to part-00005.parquet", 1),
    ],
)
def test_the_driver_killed_within_a_commit(
    place: Path, tmp_path: Path, address: str, point: str, number: int
) -> None:
    """Its cluster lives on, and serves the run that follows."""
    out = tmp_path / "out"
    data = config(place, out, on_ray(address, 10_000))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(data), point, str(number)],
        env=cluster.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    committed = case.rows(out)
    summary = Pipeline.from_dict(data).run()
    if committed is not None:
        assert summary.recovered
        assert case.is_prefix(committed, case.rows(out))
    assert_same(place / "single", out)
    verify(str(out))
    assert not list(out.rglob("*.tmp"))


ZOMBIE = """
import json, sys
import streamrnn.plugins.ray
from plugins.ray import zombie
from streamrnn import Pipeline

streamrnn.plugins.ray._score = zombie.left_behind
Pipeline.from_dict(json.loads(sys.argv[1])).run()
"""


def test_a_task_of_a_dead_run_writes_after_the_next_one(
    place: Path, tmp_path: Path, address: str
) -> None:
    out = tmp_path / "out"
    data = config(place, out, on_ray(address, 10_000))
    driver = subprocess.Popen(
        [sys.executable, "-c", ZOMBIE, json.dumps(data)], env=cluster.environment()
    )
    cluster.wait_for((tmp_path / "out.alive").exists)
    driver.kill()
    driver.wait()
    Pipeline.from_dict(data).run()
    committed = contents(out)
    (tmp_path / "out.go").touch()
    cluster.wait_for((tmp_path / "out.done").exists)
    assert "StagedPart" in (tmp_path / "out.done").read_text()
    found = contents(out)
    assert len(found) >= len(committed) + 2, "it wrote nothing"
    assert committed.items() <= found.items()
    verify(str(out))
    assert_same(place / "single", out)
    assert Pipeline.from_dict(data).run().recovered
    # Another task of the dead run may have written a file before `committed` was read: that goes.
    assert contents(out).keys() <= committed.keys()
    verify(str(out))
    assert_same(place / "single", out)


def contents(out: Path) -> dict[Path, bytes]:
    paths = [path for root in (out, Path(f"{out}.rejects")) for path in root.rglob("*")]
    return {path: path.read_bytes() for path in paths if path.is_file()}


def test_a_driver_with_its_own_cluster_killed(place: Path, tmp_path: Path) -> None:
    """Whatever lives on does no harm; the command is given again."""
    out = tmp_path / "out"
    pipeline = cluster.toml(config(place, out, on_ray()), tmp_path / "p.toml")
    driver = cluster.command("run", pipeline, "-q")
    cluster.wait_for(lambda: (out / "part-00003.parquet").exists())
    cluster.wait_for(lambda: stopped_with_a_staged_part(driver, out / "_streamrnn/staging"))
    processes = cluster.tree(driver.pid)
    driver.kill()
    driver.communicate()
    again = cluster.command("run", pipeline)
    text, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert "repaired what an earlier run left behind: " in text
    cluster.end(processes)
    assert_same(place / "single", out)
    verify(str(out))


def stopped_with_a_staged_part(driver: subprocess.Popen[str], staging: Path) -> bool:
    """Stop the driver; let it continue if a kill at this moment would leave nothing to repair.

    Between a commit and the first part of the next epoch, staging is empty.
    """
    driver.send_signal(signal.SIGSTOP)
    staged = any(path.is_file() for path in staging.rglob("*"))
    if not staged:
        driver.send_signal(signal.SIGCONT)
    return staged
