"""SIGKILL at any moment of a run into partitions: each has a prefix, and in the end all its rows.

`STREAMRNN_KILLS=200` kills 200 times; by default it is 12 times.
"""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kill import case
from kill.test_kill import KILLS, Server
from selection import slow

from streamrnn.outputs import verify
from streamrnn.stream.checkpoints import load_state
from streamrnn.stream.sinks import partition_values


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Server(case.make(tmp_path_factory.mktemp("kill"))) as server:
        yield server


def run(server: Server, out: Path, partition_by: list[Any], **how: Any) -> dict[str, Any]:
    config = case.config(server.folder, out)
    config["sink"]["partition_by"] = partition_by
    found: dict[str, Any] = server.run(out, command={"config": config, "options": {}}, **how)
    return found


def by_hour(out: Path) -> dict[int, pa.Table]:
    """The rows that readers find in each partition, in the order of the part numbers."""
    found: dict[int, list[pa.Table]] = {}
    for path in sorted(out.glob("hour=*/*.parquet"), key=lambda path: path.name):
        hour = partition_values(str(path.relative_to(out)))["hour"]
        found.setdefault(int(str(hour)), []).append(pq.ParquetFile(path).read())
    return {hour: pa.concat_tables(tables) for hour, tables in found.items()}


@slow
def test_killed_at_random_moments_again_and_again(server: Server, tmp_path: Path) -> None:
    """Slow: kills of a run into partitions; the quick tests stop it by exceptions."""
    by = [{"hour": "hour(t)"}]
    assert run(server, tmp_path / "plain", [])["status"] == 0
    usual = run(server, tmp_path / "whole", by)["seconds"]
    whole, plain = by_hour(tmp_path / "whole"), case.Outcome(tmp_path / "plain")
    rows = pa.concat_tables(whole.values()).num_rows
    assert (rows, len(whole)) == (plain.rows.num_rows, 24)
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    killed = turn = 0
    out = tmp_path / "0"
    while killed < KILLS:
        answer = run(server, out, by, seconds=rng.uniform(0.05, 1.0) * usual)
        when = f"seed {seed}, kill {killed}: {answer}"
        found = by_hour(out)
        assert all(case.is_prefix(table, whole[hour]) for hour, table in found.items()), when
        if answer["killed"]:
            killed += 1
            continue
        assert answer["status"] == 0, when
        assert found.keys() == whole.keys(), when
        assert all(case.same(found[hour], whole[hour]) for hour in whole), when
        assert case.same(load_state(str(out)), plain.state), when
        assert case.same(case.rows(Path(f"{out}.rejects")), plain.rejects), when
        verify(str(out))
        turn += 1
        out = tmp_path / str(turn)
    assert run(server, out, by)["status"] == 0
