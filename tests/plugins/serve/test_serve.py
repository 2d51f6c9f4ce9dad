"""`streamrnn serve`: what a person types into curl, and what is in the output afterwards."""

import http.client
import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import command_line
import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import serving
from selection import slow

from streamrnn import Pipeline
from streamrnn.outputs import read_states

LOG = logs.random_log(260, streams=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving.make(tmp_path_factory.mktemp("serve"), rows=20)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[serving.Server]:
    """A server whose source has files, which only give it types."""
    with serving.served(folder) as running:
        yield running


def rows(first: int, number: int, prefix: str) -> list[dict]:
    """Rows of the log as JSON has them, in streams of their own."""
    table = LOG.slice(first, number).drop(["new"])
    return [
        {**row, "id": prefix + row["id"], "t": row["t"].isoformat()} for row in table.to_pylist()
    ]


def test_what_curl_sends_is_scored_whatever_its_type(server: serving.Server) -> None:
    body = '[{"id": "curl", "t": "2024-05-01T00:00:00Z", "a": 1, "b": 2, "more": [1]}]'
    done = subprocess.run(
        ["curl", "-s", "-d", body, f"http://127.0.0.1:{server.port}/score"],
        capture_output=True,
        check=True,
    )
    (row,) = json.loads(done.stdout)
    assert {name: row[name] for name in ("id", "t", "reason")} == {
        "id": "curl",
        "t": "2024-05-01T00:00:00.000000Z",
        "reason": None,
    }
    assert isinstance(row["score"], float)


def test_requests_at_once_have_the_bits_of_one_after_another(
    server: serving.Server, folder: Path
) -> None:
    """Each of eight clients has its streams; rows of one stream are sent in order."""

    def client(number: int) -> list[dict]:
        answers = []
        for first in range(0, 60, 6):
            status, answer = server.score(rows(first, 6, f"c{number}-"))
            assert status == 200
            answers += answer
        return answers

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(client, range(8)))
    config = logs.config(str(folder / "in"), str(folder / "m.safetensors"), None)
    expected = Pipeline.from_dict(config).process(LOG.slice(0, 60))["score"].to_pylist()
    for answers in found:
        assert [row["score"] for row in answers] == expected
        assert [row["id"][3:] for row in answers] == LOG["id"].to_pylist()[:60]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "received no JSON"),
        (b"{", "received no JSON"),
        (b"[" * 100_000, "received no JSON"),
        (b"{}", "expected a JSON list of objects"),
        (b"[1]", "row 0 (from 0): expected an object, received 1"),
        (b'[{"id": 1}]', "row 0 (from 0): column 'id': expected string, received 1"),
        (b'[{"id": "x"}, {"t": "noon"}]', "row 1 (from 0): column 't': expected timestamp[us, tz"),
        (b'[{"t": 1.5}]', "expected timestamp[us, tz=UTC], received 1.5"),
        (b'[{"id": "x", "t": 0, "a": 1, "b": 1}, {"id": "x", "t": 0, "a": null, "b": 1}]',
         "the request: row 1 (from 0): stream id='x': column 'a': value is null"),
        (b'[{"id": "x", "t": 5, "a": 1, "b": 1}, {"id": "x", "t": 4, "a": 1, "b": 1}]',
         "the request: row 1 (from 0): stream id='x': time goes backwards"),
        (b'[{"id": "\\ud800", "t": 0, "a": 1, "b": 1}]', "received no JSON: no low surrogate"),
        (b'[{"id": "x", "t": 0, "a": 1e400, "b": 1}]', "received no JSON: number is infinity"),
        (b'[{"id": "x", "t": 0, "a": 1, "b": 99999999999999999999}]', "expected int32"),
    ],
)  # fmt: skip
def test_a_request_that_is_wrong_says_how(server: serving.Server, body: bytes, text: str) -> None:
    status, answer = server.send("/score", body)
    assert (status, text in json.loads(answer)["error"]) == (400, True), answer
    assert b"Traceback" not in answer
    assert b"/" not in answer


def test_an_invalid_row_fails_its_own_request(server: serving.Server) -> None:
    """Many requests wait at once; those that are wrong leave no trace, in others or in a state."""

    def send(number: int) -> tuple[int, object]:
        (row,) = rows(number, 1, "own-")
        wrong = {**row, "id": row["id"], "a": None}
        return server.score([row, wrong] if number % 3 == 0 else [{**row, "id": f"own{number}"}])

    with ThreadPoolExecutor(16) as pool:
        statuses = [status for status, _ in pool.map(send, range(48))]
    assert statuses == [400 if number % 3 == 0 else 200 for number in range(48)]
    again = [server.score([row])[0] for row in rows(0, 1, "own-")]
    assert again == [200]  # no earlier row of this stream was scored


def test_other_paths_and_methods(server: serving.Server) -> None:
    assert server.send("/v2/health/live") == (200, b'{"live":true}\n')
    assert server.send("/v2/health/ready") == (200, b'{"ready":true}\n')
    assert server.send("/none") == (404, b'{"error":"Not Found"}\n')
    assert server.send("/score")[0] == 405
    assert server.score([]) == (200, [])


def test_what_was_answered_is_committed_at_sigterm_and_a_run_goes_on(tmp_path: Path) -> None:
    serving.make(tmp_path, rows=20)
    with serving.served(tmp_path) as server:
        first = server.score(rows(20, 40, ""))[1]
        log = Path(f"{tmp_path}/out.accepted")
        assert [path.suffix for path in log.glob("0*")] == [".open"]  # which a source leaves out
        with socket.create_connection(("127.0.0.1", server.port)) as begun:
            begun.sendall(b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n")
            begun.sendall(b"[")
            server.score([])  # the request before is being read
            server.process.terminate()
            begun.sendall(b"]")
            assert b" 200 OK" in begun.recv(1000)
        assert server.process.wait(60) == 0
    written = pq.read_table(tmp_path / "out")
    assert written["score"].to_pylist() == [row["score"] for row in first]
    logs.write(LOG.slice(60, 100), tmp_path / "in2/0.parquet")
    config = logs.config(str(tmp_path / "in2"), str(tmp_path / "m.safetensors"), None)
    config["sink"]["path"] = str(tmp_path / "out")
    Pipeline.from_dict(config).run()
    with serving.served(tmp_path) as server:
        assert server.score(rows(160, 100, ""))[0] == 200
        assert server.stop() == 0
    whole = logs.config(str(tmp_path / "in3"), str(tmp_path / "m.safetensors"), str(tmp_path / "w"))
    logs.write(LOG.slice(20), tmp_path / "in3/0.parquet")
    Pipeline.from_dict(whole).run()
    assert pq.read_table(tmp_path / "out")["score"] == pq.read_table(tmp_path / "w")["score"]
    assert read_states(str(tmp_path / "out")) == read_states(str(tmp_path / "w"))


def test_rows_are_answered_in_place_and_types_come_from_json(tmp_path: Path) -> None:
    """Without files or a state a time is UTC; `late` and `bad` refuse rows, and no request."""
    serving.make(tmp_path, rows=20)
    sets = ('source.path="none"', 'source.late="drop"', 'source.bad="reject"', "serve.batch_rows=2")
    with serving.served(tmp_path, *sets) as server:
        good = {"id": 7, "t": "2024-01-01T02:00:00+02:00", "a": 1, "b": 2.5}
        status, answer = server.score(
            [good, {**good, "t": "2023-12-31"}, {**good, "a": None}, {**good, "t": "2024-01-02"}]
        )
        assert status == 200
        assert [row["reason"] for row in answer] == [
            None, "late", "rejected: column 'a': value is null, and nulls = \"error\"", None
        ]  # fmt: skip
        assert answer[0]["t"] == "2024-01-01T00:00:00.000000Z"
        assert server.score([{**good, "id": "seven"}])[0] == 400
        assert server.send("/state/7")[0] == 200
        assert [server.send(f"/state/{key}")[0] for key in ("--7", "9" * 5000)] == [400, 400]
        assert server.stop() == 0
    schema = pq.read_schema(tmp_path / "out/part-00000.parquet")
    assert [schema.field(name).type for name in ("id", "t")] == [
        pa.int64(),
        pa.timestamp("us", "UTC"),
    ]
    assert np.isfinite(pq.read_table(tmp_path / "out")["score"].to_numpy()).all()


@slow
def test_no_answer_has_the_path_of_a_vocabulary(tmp_path: Path) -> None:
    """Slow: two servers with a vocabulary."""
    serving.make(tmp_path, rows=20)
    (tmp_path / "words.txt").write_text("1\n2\n")
    features = f'source.features=["a", {{name = "b", vocabulary = "{tmp_path}/words.txt"}}]'
    row = {"id": "x", "t": "2024-01-01", "a": 1, "b": 7}
    text = "is not in the vocabulary ([source] features: vocabulary of 'b')"
    with serving.served(tmp_path, features) as server:
        refused = server.score([row])
    with serving.served(tmp_path, features, "source.bad=reject") as server:
        rejected = server.score([row])
    for status, answer in (refused, rejected):
        assert text in str(answer["error"] if status == 400 else answer[0]["reason"])
        assert "words" not in str(answer)
    assert [refused[0], rejected[0]] == [400, 200]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_others_reach_it_behind_a_proxy_only(host: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, text = command_line.run_command(capfd, "serve", "live.toml", "--host", host)
    assert code == 2
    assert "--behind-proxy" in text


@pytest.mark.parametrize(
    ("sets", "text"),
    [
        (
            ["serve.log=s3://bucket/x"],
            "[serve] log: expected a directory on a disk of this machine",
        ),
        (["serve.log=out/log"], "[serve] log: out/log is inside the output, out"),
        (["serve.log=./out"], "[serve] log: ./out is inside the output, out"),
        (["sink.path=-"], "expected [sink] path to name the folder of an output"),
        (["serve.durable=no"], 'expected "log" or "commit"'),
    ],
)
def test_where_no_log_can_be_it_does_not_start(
    sets: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(serving.make(tmp_path))
    changes = [word for key in sets for word in ("--set", key)]
    code, _, shown = command_line.run_command(capfd, "serve", "live.toml", *changes)
    assert (code, text in shown) == (78, True), shown


SLOW = """
import time
from streamrnn.plugins.serve import server
from streamrnn.plugins.serve.scoring import Scoring
server._DRAINS, answers = 4, Scoring.answers
def slow(self, requests):
    time.sleep(1.2)
    return answers(self, requests)
def fail(self, path):
    raise ValueError("no reason")
Scoring.answers, Scoring.state_of = slow, fail
from streamrnn.cli import main
main()
"""


@slow
def test_who_waits_too_long_at_sigterm_is_told_to_try_again(tmp_path: Path) -> None:
    """So is a client without a whole body. A failure of the server itself is counted.

    Slow: rows that the server does not score in time.
    """
    folder = serving.make(tmp_path, rows=20)
    sets = ("--set", "serve.batch_rows=1", "--behind-proxy")
    server = serving.Server(folder, options=sets, code=(SLOW,))

    def client(number: int) -> tuple[int, str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        body = json.dumps(rows(number, 1, f"c{number}-")).encode()
        connection.request("POST", "/score", body, {"origin": "http://example.org"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("retry-after")

    try:
        server.wait()
        assert server.send("/state/x")[0] == 500
        assert b'streamrnn_request_seconds_count{status="500"}' in server.send("/metrics")[1]
        begun = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        with ThreadPoolExecutor(8) as pool, begun:
            begun.sendall(b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n[")
            answers = pool.map(client, range(8))
            while b"streamrnn_waiting_rows 7.0" not in server.send("/metrics")[1]:
                assert server.process.poll() is None
            assert server.stop() == 0
            assert begun.recv(1000).startswith(b"HTTP/1.1 503")
            found = list(answers)
        assert "CancelledError" not in server.log.read_text()
        assert set(found) == {(200, None), (503, "1")}
        assert len(pq.read_table(tmp_path / "out")) == found.count((200, None))
    finally:
        server.kill()


@slow
def test_without_a_log_a_crash_forgets_and_producers_are_refused(tmp_path: Path) -> None:
    """Slow: servers without a log."""
    serving.make(tmp_path, rows=20)
    with serving.served(tmp_path, "serve.durable=commit") as server:
        assert server.score(rows(20, 5, ""))[0] == 200
        status, answer = server.score(rows(25, 5, ""), "?producer=p&sequence=0")
        assert (status, "durable" in answer["error"]) == (400, True)
        server.kill()
    assert not Path(f"{tmp_path}/out.accepted").exists()
    with serving.served(tmp_path, "serve.durable=commit") as server:
        assert server.score(rows(20, 5, ""))[0] == 200
        for query in (
            "?producer=p",
            "?sequence=1",
            "?producer=&sequence=1",
            "?producer=p&sequence=x",
        ):
            assert server.score([], query)[0] == 400
