"""Runs on a Ray cluster that this process has started: the same bits as runs in one process."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.engines.same import assert_same, rows
from kill import case
from plugins.ray import cluster

import streamrnn
from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, ConfigError, DataError
from streamrnn.jobs.engines.probe import FolderToken
from streamrnn.outputs import compact, export_state, rewind, verify
from streamrnn.pipeline import Summary

ray = pytest.importorskip("ray", reason="needs the engines extra")
NAMES = list(case.FILES)
DAYS = [NAMES[:8], NAMES[8:20], NAMES[20:31], NAMES[31:32], NAMES[32:]]


@pytest.fixture(scope="module", autouse=True)
def address() -> Iterator[str]:
    with cluster.started() as address:
        yield address


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in 33 files, a model, and another model with the same states."""
    folder = case.make(tmp_path_factory.mktemp("ray"))
    other = logs.small_model(units=32)
    weights = other.get_weights()
    other.set_weights([(2 * w).astype(np.float32) for w in weights])
    other.save(folder / "other.safetensors")
    return folder


def config(place: Path, out: Path, log: Path | None = None, **tables: Any) -> dict[str, Any]:
    data = case.config(place, out, max_gap="4h", path=str(log or place / "in"))
    for table, keys in tables.items():
        data[table] = {**data.get(table, {}), **keys}
    return data


def on_ray(shards: int, epoch_rows: int = 500, **keys: Any) -> dict[str, Any]:
    return {"type": "ray", "shards": shards, "epoch_rows": epoch_rows, **keys}


def run(data: dict[str, Any], **options: Any) -> Summary:
    return Pipeline.from_dict(data).run(**options)


@pytest.fixture(scope="module")
def single(place: Path) -> Path:
    out = place / "single"
    run(config(place, out))
    return out


def link(place: Path, source: Path, names: list[str]) -> None:
    source.mkdir(exist_ok=True)
    for name in names:
        shutil.copy2(place / f"in/{name}.parquet", source)


def test_one_run(place: Path, single: Path, tmp_path: Path) -> None:
    summary = run(config(place, tmp_path / "out", engine=on_ray(4)))
    assert summary.workload is not None
    assert (summary.workload.workers, summary.workload.shards) == (2, 4)
    assert summary.commits == summary.workload.epochs > 3
    assert summary.fresh_starts > 50
    assert_same(single, tmp_path / "out")
    again = run(config(place, tmp_path / "out", engine=on_ray(4)))
    assert again.nothing_new
    assert ray.is_initialized()


def test_every_day_another_engine(place: Path, single: Path, tmp_path: Path) -> None:
    """4, 7 and 1 shards, in one process, on Ray again; the output is maintained in between."""
    out, source = tmp_path / "out", tmp_path / "in"
    engines = [on_ray(4), on_ray(7), on_ray(1), {"type": "local"}, on_ray(3, 300)]
    for day, (names, engine) in enumerate(zip(DAYS, engines, strict=True)):
        link(place, source, names)
        run(config(place, out, source, engine=engine))
        verify(str(out))
        export_state(str(out), str(tmp_path / "state.parquet"))
        if day == 1:
            rewind(str(out), before="1-12.parquet")
            run(config(place, out, source, engine=on_ray(5)))
        if day in (2, 4):
            compact(str(out))
            verify(str(out))
    assert_same(single, out)


KINDS: dict[str, dict[str, Any]] = {
    "whole": {"window": {"kind": "whole"}},
    "final": {"output": {"emit": "final"}},
    "independent": {"window": {"kind": "independent", "steps": 8, "stride": 3}},
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_that_need_the_end(place: Path, tmp_path: Path, name: str) -> None:
    for out, engine in (("one", {}), ("ray", on_ray(3))):
        data = config(place, tmp_path / out, engine=engine) | KINDS[name]
        run(data)
    assert_same(tmp_path / "one", tmp_path / "ray")


def test_another_model_takes_over_the_state(place: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    for out, first, second in (
        ("one", {}, {}),
        ("ray", on_ray(3), on_ray(3)),
        ("mixed", {}, on_ray(4)),
    ):
        shutil.rmtree(source, ignore_errors=True)
        link(place, source, NAMES[:20])
        run(config(place, tmp_path / out, source, engine=first))
        link(place, source, NAMES[20:])
        other = config(place, tmp_path / out, source, engine=second)
        other["model"]["path"] = str(place / "other.safetensors")
        with pytest.raises(CheckpointError, match="--new-model"):
            run(other)
        run(other, new_model="carry")
    assert_same(tmp_path / "one", tmp_path / "ray")
    assert_same(tmp_path / "one", tmp_path / "mixed")


def test_a_corrected_file_is_read_again(place: Path, tmp_path: Path) -> None:
    """The wrong file ends within an epoch, or begins within one."""
    for out, engine in (("one", {}), ("ray", on_ray(3, 250)), ("few", on_ray(2, 10**6))):
        source = tmp_path / f"{out}.in"
        link(place, source, NAMES[:3])
        run(config(place, tmp_path / out, source, engine=engine))
        link(place, source, NAMES[:10])
        wrong = pq.read_table(source / "1-03.parquet")
        a = pa.array([0.5] * len(wrong), pa.float64())
        pq.write_table(wrong.set_column(2, "a", a), source / "1-03.parquet")
        run(config(place, tmp_path / out, source, engine=engine))
        link(place, source, NAMES)
        with pytest.raises(CheckpointError, match=r"1-03.parquet"):
            run(config(place, tmp_path / out, source, engine=engine))
        run(config(place, tmp_path / out, source, engine=engine), reload=True)
        verify(str(tmp_path / out))
    assert_same(tmp_path / "one", tmp_path / "ray")
    assert_same(tmp_path / "one", tmp_path / "few")


def test_an_initial_state_and_a_map(place: Path, tmp_path: Path) -> None:
    first, rest = tmp_path / "first", tmp_path / "rest"
    link(place, first, NAMES[:20])
    link(place, rest, NAMES[20:])
    run(config(place, tmp_path / "start", first, engine=on_ray(3)))
    renamed = logs.layers.GRU(32, name="other")
    model = logs.Sequential(
        [logs.layers.Input((None, 2)), renamed, logs.layers.Dense(1, name="score")]
    )
    model.set_weights(logs.small_model(units=32).get_weights())
    model.save(tmp_path / "renamed.safetensors")
    for out, engine in (("one", {}), ("ray", on_ray(4))):
        state = {"init": str(tmp_path / "start"), "map": {"other": "rnn"}}
        data = config(place, tmp_path / out, rest, engine=engine, state=state)
        data["model"]["path"] = str(tmp_path / "renamed.safetensors")
        assert run(data).streams > 100
    assert_same(tmp_path / "one", tmp_path / "ray")


def test_follow_makes_commits_of_each_poll(place: Path, tmp_path: Path) -> None:
    """Also after small parts were merged by a commit of their own."""
    source, out = tmp_path / "in", tmp_path / "out"
    stop = threading.Event()
    link(place, source, NAMES[:1])
    steps = iter([NAMES[1:9], NAMES[9:15], NAMES[15:]])

    class Looks(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            names = next(steps, None)
            if names is None:
                stop.set()
                self.set()
            else:
                link(place, source, names)
            return self.is_set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streamrnn.jobs.running.destination._SMALL_PARTS", 4)
        summary = run(
            config(place, out, source, engine=on_ray(3, 300)), follow=True, poll=0.0, stop=Looks()
        )
    assert (summary.files, summary.interrupted) == (33, False)
    verify(str(out))
    run(config(place, tmp_path / "one", source))
    assert_same(tmp_path / "one", out)
    assert not list(out.rglob("*.tmp"))


def test_a_stop_commits_what_is_in_flight(place: Path, single: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    early = threading.Event()
    early.set()
    summary = run(config(place, out, engine=on_ray(3)), stop=early)
    assert (summary.interrupted, summary.commits) == (True, 0)
    rounds = 0
    while True:
        stop = threading.Event()

        def halt(progress: Any, stop: threading.Event = stop) -> None:
            if progress.rows:
                stop.set()

        # A row group has 300 rows: files are left in their middle.
        summary = run(config(place, out, engine=on_ray(3, 300)), stop=stop, progress=halt)
        if not summary.interrupted:
            break
        assert 1 <= summary.commits <= 2
        verify(str(out))
        rounds += 1
    assert rounds >= 2
    assert_same(single, out)


def spoil(source: Path) -> None:
    """Bad rows in several files, of many streams."""
    for name in ("2", "1-07", "1"):
        table = pq.read_table(source / f"{name}.parquet")
        a = table["a"].to_numpy(zero_copy_only=False).copy()
        a[len(a) // 2 :] = np.inf
        pq.write_table(
            table.set_column(2, "a", pa.array(a, from_pandas=False)),
            source / f"{name}.parquet",
            row_group_size=300,
        )


def message(data: dict[str, Any]) -> str:
    """The error of a run, without the number of bad rows in a record batch: batches differ."""
    with pytest.raises(DataError) as found:
        run(data)
    return re.sub(r"(in this record batch:) \d+", r"\1 N", str(found.value))


@pytest.mark.parametrize(
    "policy",
    [
        {"bad": "error", "late": "reject"},
        {"bad": "reject", "late": "error"},
        {"nulls": "error", "bad": "error"},
    ],
)
def test_the_first_bad_row_is_reported_as_by_one_process(
    place: Path, tmp_path: Path, policy: dict[str, str]
) -> None:
    link(place, tmp_path / "in", NAMES[::-1])
    spoil(tmp_path / "in")

    def found(name: str, **engine: Any) -> str:
        data = config(place, tmp_path / name, tmp_path / "in", source=policy, engine=engine)
        return message(data)

    one = found("one")
    assert "row" in one
    for shards, epoch_rows in ((1, 10**6), (5, 10**6), (3, 300)):
        assert found(f"ray-{shards}-{epoch_rows}", **on_ray(shards, epoch_rows)) == one


def test_a_torn_file_and_too_many_rejects(place: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    link(place, source, NAMES)
    whole = (source / "1.parquet").read_bytes()
    (source / "1.parquet").write_bytes(whole[: len(whole) // 3] + bytes(len(whole) // 3)
                                       + whole[2 * len(whole) // 3 :])  # fmt: skip
    texts = set()
    for out, engine in (("one", {}), ("ray", on_ray(3))):
        texts.add(message(config(place, tmp_path / out, source, engine=engine)))
    assert len(texts) == 1, texts
    (source / "1.parquet").write_bytes(whole)
    data = config(place, tmp_path / "few", engine=on_ray(3))
    data["source"]["max_rejects"] = 20
    assert "max_rejects" in message(data)
    assert case.rows(tmp_path / "few") is None
    for out in ("ray", "few"):
        log = source if out == "ray" else None
        run(config(place, tmp_path / out, log, engine=on_ray(2)))
        assert not [p for p in (tmp_path / out / "_streamrnn").rglob("*") if p.suffix == ".tmp"]


def test_two_drivers_at_once_and_a_second_run(place: Path, single: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused: list[BaseException] = []

    def second(progress: Any) -> None:
        if not refused:
            try:
                run(config(place, out, engine=on_ray(2)))
            except CheckpointError as error:
                refused.append(error)

    run(config(place, out, engine=on_ray(3)), progress=second)
    assert "in use by another run" in str(refused[0])
    assert_same(single, out)


def test_empty_files_and_no_rows_at_all(place: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    link(place, source, NAMES[:3])
    empty = pq.read_table(source / "1-00.parquet").slice(0, 0)
    pq.write_table(empty, source / "00.parquet")
    pq.write_table(empty, source / "3.parquet")
    for out, engine in (("one", {}), ("ray", on_ray(4, 1))):
        run(config(place, tmp_path / out, source, engine=engine))
    assert_same(tmp_path / "one", tmp_path / "ray")
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    shutil.copy(source / "3.parquet", nothing)
    for out, engine in (("one0", {}), ("ray0", on_ray(4))):
        run(config(place, tmp_path / out, nothing, engine=engine))
    assert rows(tmp_path / "ray0").num_rows == 0
    assert rows(tmp_path / "ray0").schema == rows(tmp_path / "one0").schema
    verify(str(tmp_path / "ray0"))


def test_a_client_of_a_cluster(place: Path, single: Path, tmp_path: Path, address: str) -> None:
    """A `ray://` address, in a process of its own."""
    pytest.importorskip("grpc", reason="needs the engines extra")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    serve = [sys.executable, "-m", "ray.util.client.server", "--mode", "specific-server"]
    serve += ["--host", "127.0.0.1", "--port", str(port), "--address", address]
    data = config(place, tmp_path / "out", engine=on_ray(3, address=f"ray://127.0.0.1:{port}"))
    pipeline = cluster.toml(data, tmp_path / "p.toml")
    with subprocess.Popen(serve, env=cluster.environment(), stderr=subprocess.DEVNULL) as server:
        try:
            cluster.wait_for(lambda: cluster.listening({(server.pid, "")}))
            client = cluster.command("run", pipeline)
            text, errors = client.communicate(timeout=240)
        finally:
            server.kill()
    assert client.returncode == 0, errors
    assert "2,400 rows" in text
    assert_same(single, tmp_path / "out")


def test_no_cluster_at_the_address() -> None:
    """In a process of its own: this one has a cluster, which every run here joins."""
    code = (
        "import sys\nfrom streamrnn.plugins.ray import RayTasks\n"
        "from streamrnn.errors import EngineError\n"
        "for address in sys.argv[1:]:\n"
        "    try:\n        RayTasks(address, 2)\n"
        "    except EngineError as error:\n        print(error)\n"
    )
    addresses = ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense", "no.such.host.invalid:6379"]
    done = subprocess.run(
        [sys.executable, "-c", code, *addresses],
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    found = done.stdout.splitlines()
    assert len(found) == len(addresses), done.stdout
    for line, address in zip(found, addresses, strict=True):
        assert line.startswith(f"no Ray cluster at [engine] address '{address}': ")


def test_a_node_that_sees_another_folder_or_lacks_the_package(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    node = f"[engine] node {socket.gethostname()}: "

    def refusal() -> str:
        with pytest.raises(ConfigError) as found:
            run(config(place, out, engine=on_ray(2)))
        assert not out.exists()
        return str(found.value)

    with monkeypatch.context() as patch:
        patch.setattr(
            "streamrnn.jobs.engines.opening.FolderToken", lambda name, _: FolderToken(name, "?")
        )
        assert refusal().startswith(f"{node}its {out} is not the driver's: Use a folder")
    (tmp_path / "only_here.py").write_text("def probe(*_):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    only_here = importlib.import_module("only_here")
    monkeypatch.setattr("streamrnn.plugins.ray._probe", only_here.probe)
    assert refusal() == (
        f"{node}it cannot load streamrnn {streamrnn.__version__}: ModuleNotFoundError: No module "
        "named 'only_here'. Install the same version."
    )


def test_ray_is_not_installed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "streamrnn.plugins.ray", raising=False)
    with pytest.raises(ConfigError, match=r'pip install "streamrnn\[ray\]"'):
        run(config(place, tmp_path / "out", engine=on_ray(2)))
    assert not (tmp_path / "out").exists()


def test_nothing_listens_on_other_addresses_than_the_loopback() -> None:
    """Neither what these tests start, nor what the engine does."""
    code = (
        "import os, sys\nfrom plugins.ray import cluster\n"
        "from streamrnn.plugins.ray import RayTasks\n"
        "tasks = RayTasks('local', 1)\n"
        "print(cluster.listening(cluster.tree(os.getpid()) | {(os.getpid(), '')}))\n"
        "tasks.close()\n"
    )
    plain = cluster.environment()
    del plain[cluster.LOOPBACK]  # the engine needs no help
    done = subprocess.run(
        [sys.executable, "-c", code], env=plain, capture_output=True, text=True,
        timeout=240, check=True,
    )  # fmt: skip
    for found in (done.stdout.strip(), str(cluster.listening(cluster.tree(os.getpid())))):
        assert found == "['127.0.0.1']"


AGENT = """
import os, signal, subprocess, sys, threading, time
from streamrnn import Pipeline

def kill_the_agent(progress):
    if progress.rows:
        for folder in os.listdir("/proc"):
            if folder.isdigit():
                try:
                    name = open(f"/proc/{folder}/cmdline", "rb").read()
                    raylet = int(open(f"/proc/{folder}/stat").read().rpartition(")")[2].split()[1])
                    driver = int(open(f"/proc/{raylet}/stat").read().rpartition(")")[2].split()[1])
                except OSError:
                    continue
                if b"DashboardAgent" in name and driver == os.getpid():
                    os.kill(int(folder), signal.SIGKILL)

if sys.argv[1] == "kill":
    Pipeline.from_toml("p.toml").run(engine="ray", progress=kill_the_agent)
else:
    Pipeline.from_toml("p.toml").run(engine="ray")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="finds the agent in /proc")
def test_a_driver_that_ray_ends_with_its_node_leaves_a_message(tmp_path: Path) -> None:
    """A killed agent ends the raylet, and that the driver, by _exit. The next run resumes."""
    logs.small_model().save(tmp_path / "m.safetensors")
    for i in range(20):
        logs.write(logs.random_log(10_000).slice(i * 500, 500), tmp_path / f"in/{i:02}.parquet")
    (tmp_path / "p.toml").write_text(
        '[source]\npath = "in"\nkey = "id"\ntime = "t"\nfeatures = ["a", "b"]\n'
        '[model]\npath = "m.safetensors"\n[sink]\npath = "out"\n'
        '[engine]\ntype = "ray"\naddress = "local"\nepoch_rows = 1000\n'
    )
    for how in ("kill", "finish"):
        command = [sys.executable, "-c", AGENT, how]
        ended = subprocess.run(
            command, cwd=tmp_path, env=cluster.environment(), capture_output=True, text=True
        )
        shown = ended.stderr
        assert (ended.returncode == 0) == (how == "finish"), shown
        assert "Traceback" not in shown or "EngineError" in shown
        said = "the process of this run was ended" in shown or "EngineError: " in shown
        assert said == (how == "kill"), shown
    assert verify(str(tmp_path / "out")).rows == 10_000
