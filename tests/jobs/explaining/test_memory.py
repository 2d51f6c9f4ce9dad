"""The memory that `explain` announces is that of the run, which is measured in a process."""

import json
import sys
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pytest
from fresh import python
from selection import slow

from streamrnn import Sequential, layers

START = (
    "import os, sys\n"
    "command = [sys.executable, '-c', 'from streamrnn.cli import main; main()', *sys.argv[1:]]\n"
    "child = os.posix_spawn(sys.executable, command, os.environ)\n"
    "_, status, usage = os.wait4(child, 0)\n"
    "print(usage.ru_maxrss, file=sys.stderr)\n"
    "sys.exit(os.waitstatus_to_exitcode(status))\n"
)
"""A small process in between: a child's peak includes its parent's memory before `exec`."""
UNIT = 1 if sys.platform == "darwin" else 1024


def _streamrnn(*arguments: str) -> tuple[Any, int]:
    """Run the command in a process; return its JSON, and its peak memory in bytes."""
    done = python("-c", START, *arguments, "--json", cwd=Path.cwd())
    return json.loads(done.stdout), int(done.stderr.split()[-1]) * UNIT


def _write_log(path: Path, rows: int, streams: int, features: int) -> list[str]:
    """Write a log of random numbers; return the names of its features."""
    rng = np.random.default_rng(3)
    columns: dict[str, Any] = {"id": pa.array([f"stream-{i % streams}" for i in range(rows)])}
    columns |= {f"f{i}": rng.normal(size=rows) for i in range(features)}
    names = list(columns)[1:]
    logs.write(pa.table(columns), path, row_group=131072)
    return names


def _write(path: Path, rows: int, streams: int, features: int, units: int) -> None:
    """Write a log, a model and a pipeline file."""
    names = _write_log(path / "in" / "1.parquet", rows, streams, features)
    recurrent = layers.LSTM(units, return_sequences=True)
    Sequential([layers.Input((None, features)), recurrent, layers.Dense(1)]).save(
        path / "m.safetensors"
    )
    (path / "p.toml").write_text(
        f'[source]\npath = "in"\nkey = "id"\nfeatures = {json.dumps(names)}\n'
        '[model]\npath = "m.safetensors"\n[sink]\npath = "out"\n'
    )


@pytest.mark.parametrize(
    ("rows", "streams", "features", "units"),
    [(1_000, 3, 2, 4), (400_000, 500, 32, 16), (200_000, 200_000, 2, 64)],
    ids=["small", "wide", "many streams"],
)
@slow
def test_the_memory_announced_is_that_of_the_run(
    rows: int, streams: int, features: int, units: int, workdir: Path
) -> None:
    """Within 25 percent, of the first run and of one that loads the state of all streams. Slow:
    runs that take more memory than the libraries do."""
    _write(workdir, rows, streams, features, units)
    _streamrnn("compile", "p.toml")
    told = _streamrnn("explain", "p.toml")[0]["memory"]
    found, peak = _streamrnn("run", "p.toml")
    assert found["rows"] == rows
    total = told["total"] + streams * told["per_stream"]
    assert 0.75 * peak < total < 1.25 * peak, (total, peak)
    _write_log(workdir / "in" / "2.parquet", rows // 2, streams, features)
    told = _streamrnn("explain", "p.toml")[0]["memory"]
    assert told["streams"] == streams
    found, peak = _streamrnn("run", "p.toml")
    assert (found["rows"], found["new_streams"]) == (rows // 2, 0)
    assert 0.75 * peak < told["total"] < 1.25 * peak, (told["total"], peak)
