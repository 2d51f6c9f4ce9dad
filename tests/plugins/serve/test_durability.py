"""The log on a disk that is full, under a clock that jumps, and as the source of other commands."""

import re
import resource
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import serving
from selection import first_quick, slow

from streamrnn import Pipeline
from streamrnn.outputs import rewind, verify
from streamrnn.stream.checkpoints import read_manifest

LOG = logs.random_log(400, streams=9)
JUMPING = """
import itertools, time
real, calls = time.time, itertools.count()
time.time = lambda: real() + (0, 3e8, -3e8)[next(calls) % 3]
from streamrnn.cli import main
main()
"""


FAILING = """
from streamrnn.plugins.serve.scoring import Scoring
def fail(self):
    raise ValueError("no reason")
Scoring.commit = fail
from streamrnn.cli import main
main()
"""


def rows(first: int, number: int) -> list[dict[str, Any]]:
    table = LOG.slice(first, number).drop(["new"])
    return [{**row, "t": row["t"].isoformat()} for row in table.to_pylist()]


def in_one_piece(folder: Path) -> pa.Table:
    """What a run over the rows in one file writes."""
    logs.write(LOG, folder / "whole/0.parquet")
    model = str(folder / "m.safetensors")
    Pipeline.from_dict(logs.config(str(folder / "whole"), model, str(folder / "batch"))).run()
    return pq.read_table(folder / "batch")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits this process alone")
@pytest.mark.parametrize("where", first_quick(["log", "commit"]))
def test_on_a_full_disk_nothing_is_half_accepted(tmp_path: Path, where: str) -> None:
    """Each file may grow by some bytes only; a restart with room goes on where the answers end.

    Slow: a disk on which no commit has room.
    """
    folder = serving.make(tmp_path, rows=20)
    with serving.served(folder) as server:
        assert server.score(rows(0, 10), "?producer=p&sequence=0")[0] == 200
        (segment,) = (folder / "out.accepted").glob("0*")
        room = segment.stat().st_size + 6000 if where == "log" else 600
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (room, room))
        if where == "commit":
            assert server.send("/admin/commit", b"")[0] == 409
        for number in range(1, 40):
            answer = server.score(rows(10 * number, 10), f"?producer=p&sequence={number}")
            if answer[0] != 200:
                break
        assert answer[0] == 507
        assert answer[1]["error"].startswith("the server ends")
        assert "/" not in str(answer[1])
        assert server.process.wait(60) == 1
        assert "File too large" in server.log.read_text()
    assert (number > 1) == (where == "log")
    with serving.served(folder) as server:
        for again in range(number, 40):
            query = f"?producer=p&sequence={again}"
            assert server.score(rows(10 * again, 10), query)[0] == 200
        assert server.stop() == 0
    verify(str(folder / "out"))
    assert pq.read_table(folder / "out") == in_one_piece(folder)


@slow
def test_a_regular_commit_that_fails_ends_the_server(tmp_path: Path) -> None:
    """Whatever the error: else no row would be committed again.

    Slow: a server; test_scoring has unexpected errors without one.
    """
    folder = serving.make(tmp_path, rows=20)
    server = serving.Server(folder, "serve.every=100ms", code=(FAILING,))
    try:
        assert server.process.wait(60) == 1
        assert "no reason" in server.log.read_text()
    finally:
        server.kill()


@slow
def test_a_clock_that_jumps_removes_nothing_that_is_needed(tmp_path: Path) -> None:
    """By ten years, at each call. Segments go, but none that a retained commit lacks.

    Slow: a server for years of its clock.
    """
    folder = serving.make(tmp_path, rows=20)
    sets = ("serve.keep_log=1d", "checkpoint.keep=2", "serve.every=1h")
    words = [word for key in sets for word in ("--set", key)]
    server = serving.Server(folder, options=tuple(words), code=(JUMPING,))
    try:
        server.wait()
        for number in range(40):
            assert server.score(rows(10 * number, 10))[0] == 200
            if number % 3 == 0:
                assert server.send("/admin/commit", b"")[0] == 200
                assert lacking(folder, retained=True) == []
        text = server.send("/metrics")[1].decode()
        seconds = [float(found) for found in re.findall(r"(?m)^\w+_seconds_sum\S* (\S+)", text)]
        assert seconds
        assert min(seconds) >= 0
    finally:
        server.kill()
    assert lacking(folder, retained=False)
    out = str(folder / "out")
    assert pq.read_table(out) == in_one_piece(folder)
    rewind(out, read_manifest(out).kept[0].commit, force=True)
    with serving.served(folder) as again:
        assert again.stop() == 0
    assert pq.read_table(out) == pq.read_table(folder / "batch")


def lacking(folder: Path, retained: bool) -> list[str]:
    """Segments that are gone: those that a retained commit has not used, or those that all have."""
    manifest = read_manifest(str(folder / "out"))
    count = min(kept.sources for kept in manifest.kept) if manifest.kept else 0
    files = manifest.sources[count:] if retained else manifest.sources[:count]
    return [file.path for file in files if not Path(file.path).exists()]


@slow
def test_fit_and_evaluate_read_the_log(tmp_path: Path) -> None:
    """As they read the same rows in a file.

    Slow: a log that a server wrote as the source of two commands.
    """
    folder = serving.make(tmp_path, rows=20)
    with serving.served(folder) as server:
        for number in range(0, 400, 20):
            assert server.score(rows(number, 20))[0] == 200
            if number == 200:
                assert server.send("/admin/commit", b"")[0] == 200
        assert server.stop() == 0
    in_one_piece(folder)
    found = []
    for source, out in (("out.accepted", "out"), ("whole", "batch")):
        model = folder / f"{out}.safetensors"
        config = logs.config(str(folder / source), str(folder / "m.safetensors"), str(folder / out))
        config["target"] = {"column": "a"}
        compared = Pipeline.from_dict(config).evaluate()
        config["model"]["path"] = str(model)
        config["train"] = {"init": str(folder / "m.safetensors"), "epochs": 1}
        Pipeline.from_dict(config).fit()
        found.append((compared.table.to_pylist()[0], model.read_bytes()))
    (figures, weights), (other_figures, other_weights) = found
    assert figures == pytest.approx(other_figures)
    assert weights == other_weights
