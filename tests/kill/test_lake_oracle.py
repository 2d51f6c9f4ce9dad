"""SIGKILL between a commit and its tables, or within: the next start registers nothing twice.

`STREAMRNN_KILLS=30 pytest tests/kill/test_lake_oracle.py` kills 30 times.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from kill import case

from streamrnn import outputs
from streamrnn.stream.checkpoints import read_manifest

for library in ("deltalake", "pyiceberg", "polars", "sqlalchemy"):
    pytest.importorskip(library, reason="needs the oracles extra")

import polars as pl  # noqa: E402
from plugins.lakes.lake import Lake  # noqa: E402
from pyiceberg.exceptions import NoSuchTableError  # noqa: E402

KILLS = int(os.environ.get("STREAMRNN_KILLS", "6"))
SETTINGS = "ignore::DeprecationWarning", "ignore::ResourceWarning"
pytestmark = [pytest.mark.filterwarnings(setting) for setting in SETTINGS]


class KilledLake(Lake):
    """The pipeline of `case`, with tables; its runs are those of a server."""

    def __init__(self, base: Path, environment: Any) -> None:
        super().__init__(base, environment)
        case.make(base)
        script = str(Path(__file__).with_name("lake_server.py"))
        self.process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip

    def ask(self, act: str = "run", step: int | None = None, seconds: float | None = None) -> Any:
        config = {**case.config(self.base, Path(self.out)), "publish": self.publish}
        environment = {k: v for k, v in os.environ.items() if k.startswith("PYICEBERG")}
        request = {"config": config, "environment": environment, "act": act}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({**request, "step": step, "seconds": seconds}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait() == 0

    def clear(self) -> None:
        """Start over, with a new output and new tables."""
        for path in (self.out, f"{self.out}.rejects", self.base / "warehouse"):
            shutil.rmtree(path, ignore_errors=True)
        (self.base / "catalog.db").unlink(missing_ok=True)

    def registered(self) -> tuple[Counter[str], Counter[str]]:
        """How often each file was added to the tables, over all of their versions."""
        delta, added = Counter[str](), Counter[str]()
        for version in range(self.delta().version() + 1):
            delta.update(a["add"]["path"] for a in self.actions(version) if "add" in a)
        for snapshot in self.iceberg().metadata.snapshots:
            added["all"] += int(snapshot.summary.additional_properties.get("added-data-files", 0))
        return delta, added

    def assert_registered_once(self) -> None:
        parts = [part.name for part in read_manifest(self.out).parts]
        delta, iceberg = self.registered()
        assert delta == Counter(parts)
        assert iceberg["all"] == len(parts)
        self.assert_equal()


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KilledLake]:
    made = KilledLake(tmp_path, monkeypatch)
    yield made
    made.close()


def test_killed_while_it_publishes_again_and_again(lake: KilledLake) -> None:
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    usual = lake.ask()["seconds"]
    lake.assert_registered_once()
    whole = pl.DataFrame(case.rows(Path(lake.out)))
    lake.clear()
    killed = 0
    while killed < KILLS:
        at_step = rng.random() < 0.7
        how = {"step": rng.randrange(60)} if at_step else {"seconds": rng.uniform(0, usual)}
        answer = lake.ask(**how)
        when = f"seed {seed}, kill {killed}: {how}, {answer}"
        if answer["killed"]:
            killed += 1
            rows = case.rows(Path(lake.out))
            assert rows is None or pl.DataFrame(rows).equals(whole.head(len(rows))), when
            continue
        assert answer["status"] == 0, when
        lake.assert_registered_once()
        lake.clear()
    assert lake.ask()["status"] == 0
    lake.assert_registered_once()
    assert lake.ask()["status"] == 0  # nothing new
    lake.assert_registered_once()


@pytest.mark.parametrize(("act", "steps"), [("compact", range(4, 16)), ("rewind", range(8))])
def test_killed_after_a_command_has_changed_the_parts(
    lake: KilledLake, act: str, steps: range
) -> None:
    """And whether the next start is a run or the command."""
    rng = random.Random(KILLS)
    for step in rng.sample(steps, min(KILLS // 2, 8)):
        lake.clear()
        last = (lake.base / "in" / "2.parquet").rename(lake.base / "2.parquet")
        assert lake.ask()["status"] == 0
        last.rename(lake.base / "in" / "2.parquet")
        assert lake.ask()["status"] == 0
        before = read_manifest(lake.out).commit
        assert lake.ask(act, step=step)["killed"]
        assert read_manifest(lake.out).commit > before
        if step % 2:
            outputs.publish(lake.out)
        else:
            assert lake.ask()["status"] == 0
        lake.assert_equal()


def test_a_kill_leaves_no_version_that_names_a_file_that_is_not_there(lake: KilledLake) -> None:
    for step in range(2, 30, 1 if KILLS > 20 else 9):
        assert lake.ask(step=step)["killed"]
        if Path(lake.out, "_delta_log").exists():
            pa.table(lake.delta().to_pyarrow_table())
        if (lake.base / "catalog.db").exists():
            with suppress(NoSuchTableError):  # killed before it was made
                lake.iceberg().scan().to_arrow()
        lake.clear()
