"""However the server ends, each row that was answered is in output and state once, with its bits.

A kill at random, in slow tests one at a point, too; STREAMRNN_KILLS=200 kills that often, at
random and at each point in turn.
"""

import http.client
import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import serving
from selection import first_quick

from streamrnn import Pipeline
from streamrnn.outputs import read_states, verify

KILLS = int(os.environ.get("STREAMRNN_KILLS", "2"))
POINTS = [
    ("streamrnn.plugins.serve.scoring:Service.score", False, 40),  # a request is accepted
    ("streamrnn.plugins.serve.log:Log.sync", False, 25),
    ("streamrnn.plugins.serve.log:Log.sync", True, 25),  # before the answer
    ("streamrnn.jobs.session:Session.process_requests", True, 20),
    ("streamrnn.plugins.serve.log:Log.append", True, 15),
    ("streamrnn.stream.checkpoints:OutputFolder.commit", False, 2),
    ("streamrnn.stream.checkpoints:OutputFolder.commit", True, 2),
    ("streamrnn.plugins.serve.log:Log.close", True, 2),
]
"""A method, whether the process ends behind it, and at which call."""
DYING = """
import os, signal, sys
from importlib import import_module
where, behind, count = sys.argv.pop(1).split(",")
module, _, path = where.partition(":")
owner, name = path.split(".")
owner = getattr(import_module(module), owner)
method, left = getattr(owner, name), [int(count)]
def dying(*arguments, **named):
    left[0] -= 1
    if not left[0] and behind == "False":
        os.kill(os.getpid(), signal.SIGKILL)
    result = method(*arguments, **named)
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, name, dying)
from streamrnn.cli import main
main()
"""
SETS = ("serve.every=100ms", "source.late=drop", "source.nulls=skip")


class Client:
    """Sends requests of its own streams, and each of them again until it has an answer."""

    def __init__(self, number: int) -> None:
        self.name = f"client-{number}"
        self.log = logs.random_log(2000, streams=5, seed=number, nulls=0.05, jitter=2)
        self.sent = self.sequence = 0
        self.answers: list[dict[str, Any]] = []

    def send(self, server: serving.Server, most: int = 10_000) -> None:
        """Send `most` requests, or until the server is gone; a number has the same rows again."""
        end = self.sequence + most
        while self.sent < len(self.log) - 10 and self.sequence < end:
            size = random.Random(self.sequence).randint(1, 8)
            rows = self.log.slice(self.sent, size).drop(["new"]).to_pylist()
            for row in rows:
                row["id"] = f"{self.name}-{row['id']}"
                row["t"] = row["t"].isoformat()
            query = f"?producer={self.name}&sequence={self.sequence}"
            try:
                status, answer = server.score(rows, query)
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                return
            if status != 200:
                assert status in (429, 503), answer
                continue
            self.answers += answer
            self.sent += len(rows)
            self.sequence += 1


def kill_once(folder: Path, clients: list[Client], number: int) -> None:
    """Serve, with all clients, until the process is killed."""
    point = POINTS[number // 2 % len(POINTS)] if number % 2 else None
    if point is None:
        server = serving.Server(folder, *SETS)
    else:
        where = ",".join(map(str, point))
        server = serving.Server(folder, *SETS, code=(DYING, where))
    server.wait()
    senders = [threading.Thread(target=client.send, args=[server]) for client in clients]
    for sender in senders:
        sender.start()
    if point is None:
        time.sleep(random.Random(number).uniform(0.05, 1))
        server.kill()
    for sender in senders:
        sender.join()
    server.kill()


@pytest.mark.parametrize("kills", first_quick([1, KILLS]))
def test_each_answered_row_is_in_output_and_state_once(tmp_path: Path, kills: int) -> None:
    """Slow: a kill at a point, and more of them if that is wanted."""
    folder = serving.make(tmp_path, rows=20)
    clients = [Client(number) for number in range(3)]
    for number in range(kills):
        kill_once(folder, clients, number)
        if any(client.sent > 1900 for client in clients):
            clients += [Client(len(clients) + n) for n in range(3)]
    with serving.served(folder, *SETS) as server:
        for client in clients:
            client.send(server, most=1)
            row = {"id": client.name, "t": "2030-01-01", "a": 1, "b": 1}
            last = f"?producer={client.name}&sequence={client.sequence - 1}"
            again = server.score([row], last)[1]
            assert again == client.answers[len(client.answers) - len(again) :]
            assert server.score([row], f"?producer={client.name}&sequence=99999")[0] == 409
        assert server.stop() == 0
    verify(str(folder / "out"))
    committed = pq.read_table(folder / "out")
    written: dict[str, list[Any]] = {}
    for row in committed.to_pylist():
        written.setdefault(row["id"].rpartition("-")[0], []).append(row)
    for client in clients:
        answered_rows = [row for row in client.answers if row["reason"] != "late"]
        found = written.get(client.name, [])
        assert len(answered_rows) == len(found)
        for answer, row in zip(answered_rows, found, strict=True):
            assert (answer["id"], answer["score"]) == (row["id"], row["score"])
    config = logs.config(
        str(folder / "out.accepted"), str(folder / "m.safetensors"), str(folder / "batch"),
        source={"late": "error", "nulls": "skip"},
    )  # fmt: skip
    Pipeline.from_dict(config).run()
    assert pq.read_table(folder / "batch") == committed
    assert by_id(folder / "batch") == by_id(folder / "out")
    config["sink"]["path"] = str(folder / "out")
    config["source"]["late"] = "drop"
    assert Pipeline.from_dict(config).run().nothing_new


def by_id(out: Path) -> pa.Table:
    return read_states(str(out)).sort_by("id")
