"""Runs pipelines/etl/kafka_rows.py, each time in a process of its own, and kills it.

Reads one JSON object a line from stdin, answers with an exit status on stdout. A process that is
forked from one that has everything loaded begins in a tenth of a second.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from pipelines import days

job: Any = days.load("kafka_rows")


def killed_at(call: Callable[..., Any], number: int, when: str) -> Callable[..., Any]:
    """A function that ends its process before or after one of its calls."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        if calls == number and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def child(arguments: list[str], rows: int, batch: int, kill: list[Any] | None) -> None:
    """Answer so many rows; `kill` has the name of a step, the number of its call, and when."""
    job.BATCH_ROWS, job.COMMIT_SECONDS = batch, 0.05
    if kill is not None:
        name, number, when = kill
        owner = {"commit": job.Session, "produce": job.Producer, "flush": job.Producer}.get(name)
        owner = owner or job.Job
        setattr(owner, name, killed_at(getattr(owner, name), number, when))
    step = job.Job.step

    def then_end(self: Any) -> None:
        step(self)
        if sum(self.next) >= rows:
            job.stopped.set()

    job.Job.step = then_end
    job.main(*arguments)


def serve(request: dict[str, Any]) -> int:
    """Fork a run; kill it after `seconds` if it is not done by then. Return its status."""
    seconds = request.pop("seconds", None)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child(**request)
            status = 0
        finally:
            os._exit(status)
    end = time.monotonic() + (seconds or 1e9)
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            end = float("inf")
        time.sleep(0.002)


if __name__ == "__main__":
    from streamrnn.jobs.session.session import Session

    job.Session = Session
    job.Producer = type("Producer", (job.Producer,), {})  # that of C takes no other methods
    for line in sys.stdin:
        print(serve(json.loads(line)), flush=True)
