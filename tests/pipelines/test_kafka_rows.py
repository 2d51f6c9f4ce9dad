"""The job of pipelines/etl/kafka_rows.py, with a broker in memory; test_kafka_oracle.py has one."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipelines.fake_kafka import PIPELINE, Broker, KafkaError
from selection import first_quick

from pipelines import days
from streamrnn import Pipeline
from streamrnn.errors import ConfigError, DataError, StreamRNNError
from streamrnn.outputs import read_states

LOG = logs.random_log(600, nulls=0.1, jitter=5)
ROWS = LOG.to_pylist()


class Killed(BaseException):
    """Like a SIGKILL: nothing handles it."""


@pytest.fixture(autouse=True)
def folder(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    logs.small_model().save("m.safetensors")
    pq.write_table(LOG, "log.parquet")
    Path("p.toml").write_text(PIPELINE)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    """Topics of three partitions; the rows of a stream are in one of them."""
    broker = Broker(rows=3, scores=3)
    monkeypatch.setitem(sys.modules, "confluent_kafka", broker.module())
    for row in ROWS:
        value = json.dumps(row, default=lambda time: time.isoformat()).encode()
        broker.topics["rows"][int(row["id"][1:]) % 3].add(value, row["id"].encode())
    return broker


@pytest.fixture
def job(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """It ends when it has answered all rows, and has small batches and commits often."""
    job = days.load("kafka_rows")
    monkeypatch.setattr(job, "BATCH_ROWS", 50)
    monkeypatch.setattr(job, "COMMIT_SECONDS", 0)
    step = job.Job.step

    def then_end(self: Any) -> None:
        step(self)
        if self.next == [partition.end for partition in broker.topics["rows"]]:
            job.stopped.set()

    monkeypatch.setattr(job.Job, "step", then_end)
    return job


def run(job: ModuleType) -> None:
    job.stopped.clear()
    job.main("p.toml", "broker:9092", "rows", "scores")


def answers(broker: Broker) -> list[dict[str, Any]]:
    """All answers, those of a partition in order; each is where its row is, once."""
    found = []
    for number, partition in enumerate(broker.topics["scores"]):
        rows = broker.topics["rows"][number]
        for offset, (key, value, headers) in sorted(partition.messages.items()):
            assert headers == {"topic": "rows", "partition": str(number), "offset": str(offset)}
            assert key == rows.messages[offset][0]
            found.append(json.loads(value or b""))
        assert partition.end == rows.end
    return found


def expected(broker: Broker) -> list[dict[str, Any]]:
    """The answers of one call with the rows of all partitions, those of each in order."""
    values = [value for each in broker.topics["rows"] for _, value, _ in each.messages.values()]
    order = [json.loads(value or b"") for value in values]
    by_row = {(row["id"], row["t"].isoformat(), row["a"], row["b"]): row for row in ROWS}
    rows = [by_row[row["id"], row["t"], row["a"], row["b"]] for row in order]
    data = pa.Table.from_pylist(rows, LOG.schema)
    scored = Pipeline.from_toml("p.toml", ["sink.path=-"]).process(data, align=True)
    return [json.loads(json.dumps(row, default=str)) for row in scored.to_pylist()]


def test_each_row_has_one_answer_with_the_bits_of_a_call(job: ModuleType, broker: Broker) -> None:
    """Another start finds nothing to do; what arrives later is answered."""
    run(job)
    found = answers(broker)
    assert found == expected(broker)
    assert {row["reason"] for row in found} == {None, "late", "skipped"}
    written = pq.read_table("out")["score"].drop_null()
    assert len(written) == sum(row["reason"] is None for row in found)
    run(job)
    broker.topics["rows"][0].add(b'{"id": "s0", "t": "2024-02-01T00:00Z", "a": 1, "b": 1}', b"s0")
    run(job)
    assert len(answers(broker)) == len(ROWS) + 1


@pytest.mark.parametrize("commits", first_quick([0, 10**6]))
def test_killed_at_any_answer_it_sends_only_what_is_not_there(
    job: ModuleType, broker: Broker, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """The state may be far behind; the rows beyond it are scored again.

    Slow: one commit, at the end.
    """
    monkeypatch.setattr(job, "COMMIT_SECONDS", commits)
    rng, ended, left = np.random.default_rng(commits), 0, 0

    def some_answers(_: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    broker.at_produce = some_answers
    while not ended:
        left = int(rng.integers(1, 90))
        try:
            run(job)
        except Killed:
            continue
        ended += 1
    assert answers(broker) == expected(broker)
    whole = Pipeline.from_toml("p.toml", ["sink.path=whole"])
    whole.run()
    assert read_states("out").sort_by("id") == read_states("whole").sort_by("id")


def test_messages_that_are_no_rows_are_answered_and_change_nothing(
    job: ModuleType, broker: Broker
) -> None:
    run(job)
    states = read_states("out")
    time = b'"t": "2024-02-01T00:00Z"'
    odd = {
        b"no": "rejected: no JSON object of a row: Expecting value",
        b"": "rejected: no JSON object of a row: Expecting value",
        None: "rejected: no JSON object of a row: the JSON object must be",
        b"\xff": "rejected: no JSON object of a row: 'utf-8' codec",
        b"[1]": "rejected: no JSON object of a row: unsupported operand",
        b"[" * 99999: "rejected: no JSON object of a row: maximum recursion",
        b"{}": "rejected: column 'id': key is null",
        b'{"id": "s1"}': "rejected: column 't'",
        b'{"id": "s1", "t": "noon"}': "rejected: no JSON object of a row: Invalid isoformat",
        b'{"id": "s1", "t": 5}': "rejected: no JSON object of a row: fromisoformat",
        b'{"id": 5, %b}' % time: "rejected: column 'id'",
        b'{"id": "s1", %b, "a": "warm"}' % time: "rejected: [source] features: column 'a'",
        b'{"id": "s1", %b, "a": NaN}' % time: "rejected: no JSON object of a row: invalid literal",
        b'{"id": "s1", %b, "a": 1e999}' % time: "rejected: column 'a'",
    }
    for value in odd:
        broker.topics["rows"][1].add(value)
    broker.topics["rows"][1].add(b'{"id": "s1", %b, "a": 1, "b": 1, "c": 1}' % time)
    run(job)
    found = [json.loads(v or b"") for _, v, _ in broker.topics["scores"][1].messages.values()]
    for answer, (value, reason) in zip(found[-len(odd) - 1 : -1], odd.items(), strict=True):
        assert answer["reason"].startswith(reason), value
        assert answer["score"] is None
    assert found[-1]["reason"] is None
    after = read_states("out")
    others = pa.compute.not_equal(states["id"], "s1")
    assert after.filter(others) == states.filter(others)
    assert after["steps"][after["id"].index("s1").as_py()].as_py() == (
        states["steps"][states["id"].index("s1").as_py()].as_py() + 1
    )


def _fewer_partitions(broker: Broker) -> None:
    broker.topics["scores"].pop()


def _no_topic(broker: Broker) -> None:
    del broker.topics["rows"]


def _unknown_types(_: Broker) -> None:
    Path("p.toml").write_text(PIPELINE.replace('path = "log.parquet"', ""))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_no_topic, "create topics rows and scores, with as many partitions: {'scores': 3}"),
        (_fewer_partitions, "with as many partitions: {'rows': 3, 'scores': 2}"),
        (_unknown_types, r"set \[source\] path to a file that has the types of \['id', 't'\]"),
    ],
)
def test_what_is_missing_is_named(
    job: ModuleType, broker: Broker, change: Callable[[Broker], None], text: str
) -> None:
    change(broker)
    with pytest.raises(ConfigError, match=text):
        run(job)


def _retention(broker: Broker) -> None:
    partition = broker.topics["rows"][2]
    partition.add(b"{}")
    partition.add(b"{}")
    partition.delete(*range(partition.end - 1))


def _compaction(broker: Broker) -> None:
    partition = broker.topics["rows"][2]
    partition.add(b"{}")
    partition.add(b"{}")
    partition.delete(partition.end - 2)


def _another_source(broker: Broker) -> None:
    broker.topics["rows"] = Broker(rows=3).topics["rows"]


def _another_sink(broker: Broker) -> None:
    broker.topics["scores"] = Broker(scores=3).topics["scores"]


def _another_writer(broker: Broker) -> None:
    broker.topics["scores"][0].add(b"hello")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_retention, "rows/2: state at {2}, rows from {3} to {4}, answers in scores to {2}"),
        (_compaction, "rows/2: expected offset {2}, received {3}: the rows between are gone"),
        (_another_source, "rows/0: state at {0}, rows from 0 to 0, answers in scores to {0}"),
        (_another_sink, "rows/0: state at {0}, rows from 0 to {0}, answers in scores to 0"),
        (_another_writer, "rows/0: state at {0}, rows from 0 to {0}, answers in scores to 0"),
    ],
)
def test_rows_or_answers_that_are_gone_end_the_job(
    job: ModuleType, broker: Broker, change: Callable[[Broker], None], text: str
) -> None:
    run(job)
    states, ends = read_states("out"), [partition.end for partition in broker.topics["rows"]]
    change(broker)
    with pytest.raises(DataError, match=text.format(*ends, ends[2] + 1, ends[2] + 2)):
        run(job)
    assert read_states("out") == states


def test_answers_that_have_all_expired_are_not_sent_again(job: ModuleType, broker: Broker) -> None:
    run(job)
    for partition in broker.topics["scores"]:
        partition.delete(*partition.messages)
    run(job)
    assert not any(partition.messages for partition in broker.topics["scores"])


def test_an_answer_that_is_refused_ends_the_job_before_its_commit(
    job: ModuleType, broker: Broker
) -> None:
    broker.at_produce = lambda _: KafkaError(10, "message too large")
    with pytest.raises(Exception, match="message too large") as caught:
        run(job)
    assert not isinstance(caught.value, StreamRNNError)
    assert len(read_states("out")) == 0
    broker.at_produce = lambda _: None
    run(job)
    assert answers(broker) == expected(broker)


def test_rows_from_before_the_first_start_that_were_deleted(
    job: ModuleType, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic may begin anywhere; but where the first start begins, the next one does, too."""
    broker.topics["rows"][0].delete(0, 1)
    monkeypatch.setattr(job.Job, "score", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        run(job)
    broker.topics["rows"][0].delete(2)
    with pytest.raises(DataError, match="rows/0: state at 2, rows from 3 to"):
        run(job)
