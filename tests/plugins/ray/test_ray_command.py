"""`streamrnn run --engine ray`: signals, errors and what is left of a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from jobs.engines.same import assert_same
from kill import case
from plugins.ray import cluster

from streamrnn import Pipeline
from streamrnn.outputs import verify

pytest.importorskip("ray", reason="needs the engines extra")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    log = logs.random_log(60_000, streams=1500, seed=6, nulls=0.1, jitter=5)
    for index in range(6):
        part = log.slice(index * 10_000, 10_000)
        logs.write(part, folder / f"in/{index}.parquet", row_group=1000)
    logs.small_model("LSTM", units=32).save(folder / "model.safetensors")
    Pipeline.from_dict(config(folder, folder / "single")).run()
    return folder


def config(place: Path, out: Path, **engine: Any) -> dict[str, Any]:
    data = case.config(place, out, max_rejects=60_000)
    return {**data, "engine": {"type": "local", "shards": 3, "epoch_rows": 2000, **engine}}


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.is_file() and "staging" in path.parts]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_commits_what_is_in_flight(
    place: Path, tmp_path: Path, number: int
) -> None:
    """Ctrl-C in a terminal reaches Ray's processes, too; they serve until the commit."""
    out = tmp_path / "out"
    pipeline = cluster.toml(config(place, out), tmp_path / "p.toml")
    run = cluster.command("run", pipeline, "--engine", "ray")
    cluster.wait_for(lambda: (out / "part-00003.parquet").exists())
    processes = cluster.tree(run.pid)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)
    else:
        os.kill(run.pid, number)
    text, errors = run.communicate(timeout=240)
    assert run.returncode == 130, errors
    last = errors.splitlines()[-1]  # after lines of progress, on a slow machine
    assert last == "stopping as soon as possible; a second signal aborts at once"
    assert "Interrupted after a commit; rerun the same command to resume." in text
    cluster.wait_for(lambda: not cluster.alive(processes))
    verify(str(out))
    assert leftovers(out) == []
    assert 0 < len(case.rows(out)) < len(case.rows(place / "single"))
    Pipeline.from_dict(config(place, out)).run()
    assert_same(place / "single", out)


def test_a_second_signal_aborts_at_once(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline = cluster.toml(config(place, out, epoch_rows=30_000), tmp_path / "p.toml")
    run = cluster.command("run", pipeline, "--engine", "ray")
    cluster.wait_for(lambda: cluster.busy(cluster.tree(run.pid)))
    processes = cluster.tree(run.pid)
    os.kill(run.pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(run.pid, signal.SIGINT)
    run.communicate(timeout=240)
    assert run.returncode == -signal.SIGINT
    cluster.end(processes)
    Pipeline.from_dict(config(place, out)).run()
    assert_same(place / "single", out)
    assert leftovers(out) == []


def test_a_run_that_follows_stops_with_0_while_it_waits(place: Path, tmp_path: Path) -> None:
    out, source = tmp_path / "out", tmp_path / "in"
    source.mkdir()
    data = config(place, out)
    data["source"]["path"] = str(source)
    shutil.copy(place / "in/0.parquet", source)
    pipeline = cluster.toml(data, tmp_path / "p.toml")
    run = cluster.command("run", pipeline, "--engine", "ray", "--follow", "-q")
    cluster.wait_for(lambda: (out / "part-00011.parquet").exists())
    processes = cluster.tree(run.pid)
    for index in range(1, 6):
        shutil.copy(place / f"in/{index}.parquet", tmp_path / "new")
        (tmp_path / "new").rename(source / f"{index}.parquet")
    whole = len(case.rows(place / "single"))
    cluster.wait_for(lambda: len(case.rows(out)) == whole)
    os.kill(run.pid, signal.SIGTERM)
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    cluster.wait_for(lambda: not cluster.alive(processes))
    assert_same(place / "single", out)


def test_an_error_is_one_message_and_leaves_nothing_behind(place: Path, tmp_path: Path) -> None:
    """A bad row is not tried again: one task scores it, once."""
    shutil.copytree(place / "in", tmp_path / "in")
    table = pq.read_table(tmp_path / "in/0.parquet")
    a = pc.fill_null(table["a"], 0.0).to_numpy().copy()
    a[3000] = np.inf
    table = table.set_column(2, "a", pa.array(a))
    pq.write_table(table, tmp_path / "in/0.parquet", row_group_size=1000)
    data = config(place, tmp_path / "out", epoch_rows=10**6)
    data["source"] |= {"path": str(tmp_path / "in"), "bad": "error", "nulls": 0}
    pipeline = cluster.toml(data, tmp_path / "p.toml")
    run = cluster.command("run", pipeline, "--engine", "ray")
    processes: set[tuple[int, str]] = set()
    while run.poll() is None:
        processes |= cluster.tree(run.pid)
        time.sleep(0.05)
    text, errors = run.communicate()
    assert (run.returncode, text) == (65, ""), errors
    *_progress, message, page = errors.splitlines()  # a slow run reports its progress
    assert errors.count("error: ") == 1
    assert message.startswith(f"error: {tmp_path}/in/0.parquet: row 3000 (from 0)"), errors
    assert page.startswith("more: streamrnn guide ")
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
    cluster.wait_for(lambda: not cluster.alive(processes))


def test_the_summary_is_alone_on_stdout_although_a_worker_died(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline = cluster.toml(config(place, out), tmp_path / "p.toml")
    run = cluster.command("run", pipeline, "--engine", "ray", "--json")
    cluster.wait_for(lambda: (out / "part-00003.parquet").exists())
    for pid in cluster.wait_for(lambda: cluster.busy(cluster.tree(run.pid))):
        os.kill(pid, signal.SIGKILL)
    text, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    assert json.loads(text)["rows"] == 60_000
    assert_same(place / "single", out)


def test_no_cluster_is_one_message(place: Path, tmp_path: Path) -> None:
    data = config(place, tmp_path / "out", address="127.0.0.1:1")
    run = cluster.command("run", cluster.toml(data, tmp_path / "p.toml"), "--engine", "ray")
    text, errors = run.communicate(timeout=240)
    assert (run.returncode, text) == (1, "")
    _message, page = errors.splitlines()
    assert page.startswith("more: streamrnn guide ")
    assert "no Ray cluster at [engine] address '127.0.0.1:1'" in errors
    assert not (tmp_path / "out").exists()
