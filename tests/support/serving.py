"""A server in a process of its own, on a port that the system chooses."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import logs

PIPELINE = """
[source]
path = "in"
key = "id"
time = "t"
features = ["a", "b"]
[model]
path = "m.safetensors"
[sink]
path = "out"
[serve]
port = 0
"""


def make(folder: Path, rows: int = 200) -> Path:
    """Write a model, a source and a pipeline file `live.toml`; give the folder back."""
    logs.small_model().save(folder / "m.safetensors")
    logs.write(logs.random_log(rows), folder / "in/0.parquet")
    (folder / "live.toml").write_text(PIPELINE)
    return folder


class Server:
    """A running server; `port` is set when it listens."""

    def __init__(
        self,
        folder: Path,
        *sets: str,
        options: tuple[str, ...] = (),
        code: tuple[str, ...] = ("from streamrnn.cli import main; main()",),
    ) -> None:
        self.log = folder / "serve.log"
        arguments = [word for key in sets for word in ("--set", key)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", *code, "serve", "live.toml", *arguments, *options],
                cwd=folder,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(Path(logs.__file__).parents[2])},
            )
        self.port = int(self._logged(r"listening on \S+:(\d+)"))

    def _logged(self, pattern: str) -> str:
        """Wait for a line of the log, and return the group of the pattern."""
        end = time.monotonic() + 120
        while not (found := re.search(pattern, self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)
        return found[1]

    def wait(self) -> "Server":
        """Wait until it is ready."""
        self._logged(r"(?m)^(ready)$")
        return self

    def send(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send a request, a POST if it has a body; return the status and the body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("GET" if body is None else "POST", path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def score(self, rows: object, query: str = "") -> tuple[int, Any]:
        """Post rows as JSON, as `curl -d` sends them."""
        form = {"content-type": "application/x-www-form-urlencoded"}
        status, body = self.send(f"/score{query}", json.dumps(rows, default=str).encode(), form)
        return status, json.loads(body)

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def served(folder: Path, *sets: str, options: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server that is ready; it is killed at the end unless it has ended."""
    server = Server(folder, *sets, options=options)
    try:
        yield server.wait()
    finally:
        server.kill()
