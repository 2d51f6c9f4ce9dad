"""A Ray cluster on the loopback for tests, and the processes that belong to one."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
COMMAND = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from streamrnn.cli import main; main()",
]


LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0, the address of this machine is 127.0.0.1, as in `started`."""


def environment() -> dict[str, str]:
    """Workers find the modules of the tests, as this process does; all is on the loopback."""
    paths = [str(ROOT), str(ROOT / "tests"), *filter(None, sys.path)]
    return {**os.environ, LOOPBACK: "0", "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


@contextmanager
def started(workers: int = 2) -> Iterator[str]:
    """Ray in this process, with some workers; yields the address for others."""
    import ray
    from ray._private import ray_constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)  # listen on 127.0.0.1 only
        handler = signal.getsignal(signal.SIGTERM)
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=300_000_000,
            log_to_driver=False,
            logging_level="ERROR",
        )
    processes = tree(os.getpid())
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        processes |= tree(os.getpid())
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)
        end(processes)


def _stat(pid: int) -> tuple[int, str] | None:
    """The parent and the start time of a process."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] != "Z":
            return int(fields[1]), fields[19]
    return None


def tree(root: int) -> set[tuple[int, str]]:
    """All descendants of a process that run, each with its start time."""
    found = {int(name): _stat(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    below, size = {root}, 0
    while size != len(below):
        size = len(below)
        below |= {pid for pid, stat in found.items() if stat is not None and stat[0] in below}
    return {(pid, stat[1]) for pid in below - {root} if (stat := found[pid]) is not None}


def alive(processes: set[tuple[int, str]]) -> set[tuple[int, str]]:
    """Those that run still; a number may be that of another process by now."""
    return {(pid, since) for pid, since in processes if (_stat(pid) or (0, ""))[1] == since}


def end(processes: set[tuple[int, str]]) -> None:
    """End processes by their numbers, and wait until they are gone."""
    for pid, _ in alive(processes):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(processes))


def busy(processes: set[tuple[int, str]], title: str = "ray::streamrnn-") -> list[int]:
    """The workers that run a task of a pipeline now."""
    found = []
    for pid, _ in processes:
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode()):
                found.append(pid)
    return sorted(found)


def wait_for(what: Callable[[], Any], seconds: float = 240.0) -> Any:
    """Wait until a call returns something true, and return it."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.02)
    return found


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process and a session of its own, which does not ignore SIGINT.

    (A job in the background of a script does, and so do its children.)
    """
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def toml(data: dict[str, Any], path: Path) -> str:
    """Write a pipeline file."""
    lines = []
    for table, keys in data.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {_value(value)}" for key, value in keys.items()]
    path.write_text("\n".join(lines))
    return str(path)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return f"'{value}'" if isinstance(value, str) else str(value)


def listening(processes: set[tuple[int, str]]) -> list[str]:
    """The addresses on which processes accept connections."""
    sockets = set()
    for pid, _ in processes:
        with suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    sockets.add(os.readlink(descriptor))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                raw = bytes.fromhex(fields[1].partition(":")[0])
                words = [raw[start : start + 4][::-1] for start in range(0, len(raw), 4)]
                address = ipaddress.ip_address(b"".join(words))
                mapped = getattr(address, "ipv4_mapped", None)
                found.add(str(mapped or address))
    return sorted(found)
