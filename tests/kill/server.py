"""Runs the pipeline of `case`, each time in a process of its own, and kills it.

Reads one JSON object a line from stdin, answers with one on stdout. Forking from a process that
has everything loaded makes a run cost a tenth of a second.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kill import case
from stream.checkpoints.disks import StoppingDisk, TracingDisk

from streamrnn.base.storage.local import LocalFiles


def child(
    folder: Path, out: Path, point: int | None, trace: str | None, command: dict | None, live: bool
) -> None:
    """One run, or a `live` session; it kills itself at a point of the disk, or notes all points.

    `command`: another pipeline than that of `case`, the options of its run, or of its "fit".
    """
    if command is not None:
        act = case.fit_config if command.get("fit") else case.run_config
        act(command["config"], **command["options"])
        return
    points: list[str] = []
    if point is not None:
        LocalFiles.disk = StoppingDisk(str(out), point, kill=True)
    elif trace:
        LocalFiles.disk = TracingDisk(str(out), points.append)
    (case.session if live else case.run)(folder, out)
    if trace:
        Path(trace).write_text("\n".join(points))


def serve(request: dict) -> dict:
    """Fork a run; kill it after `seconds` if it is not done by then."""

    def act() -> None:
        child(
            Path(request["folder"]),
            Path(request["out"]),
            request.get("point"),
            request.get("trace"),
            request.get("command"),
            request.get("live", False),
        )

    return forked(act, request.get("seconds"))


def forked(act: Callable[[], None], seconds: float | None) -> dict:
    """Do something in a child, which is killed after `seconds`, if it is not done by then."""
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return {"killed": killed, "status": status, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    case.run(Path(sys.argv[1]), Path(sys.argv[1]) / "warm")
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)
