"""Random histories of swaps: modes, ranges, kills, files gone, shards; against runs in one piece.

Some drop idle streams, which no run in one piece does.

`STREAMRNN_SWAPS=300 pytest -n 0 tests/jobs/running/test_replay_histories.py` has 300 histories; by
default there are 3, of which the quick tests have one.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from jobs.engines.in_process import TasksHere
from selection import first_quick

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError
from streamrnn.jobs.engines import opening
from streamrnn.outputs import read_states
from streamrnn.stream.checkpoints import read_manifest

SWAPS = int(os.environ.get("STREAMRNN_SWAPS", "3"))
DAYS, STREAMS = 5, 25
MODELS = {"a": ("GRU", 1), "b": ("GRU", 2), "c": ("LSTM", 3)}
INDEPENDENT = {"kind": "independent", "steps": 6, "stride": 4}


class Killed(BaseException):
    """Like a SIGKILL: nothing handles it."""


@pytest.fixture
def base(workdir: Path) -> Path:
    """Three models; any can be replayed, two have the same states."""
    for name, (kind, seed) in MODELS.items():
        model = logs.small_model(kind, units=4)
        rng = np.random.default_rng(seed)
        model.set_weights(
            [rng.normal(0, 0.6, w.shape).astype(np.float32) for w in model.get_weights()]
        )
        model.save(f"{name}.safetensors")
    return workdir


class History:
    """One output, what it should be, and the log that it reads day by day."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.at = Path(str(seed))
        jitter, rows = self.rng.choice([0, 5]), self.rng.randint(200, 400)
        log = logs.random_log(rows, STREAMS, seed, nulls=0.1, resets=0.02, jitter=jitter)
        cuts = sorted(self.rng.sample(range(1, rows), DAYS - 1))
        self.days = [log.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, rows], strict=True)]
        late = self.rng.choice(["drop", "reject", "apply"])
        gap = self.rng.choice([{}, {"max_gap": "90m"}])
        self.source = {"nulls": "previous", "reset": "new", "late": late, "bad": "reject", **gap}
        output = self.rng.choice([{}, {"emit": "last", "last_of": 3}, {"emit": "final"}])
        window = self.rng.choice([{}, {}, {}, {} if "last_of" in output else INDEPENDENT])
        self.tables = {"output": {"names": ["y"], "warmup": 2, **output}, "window": window}
        self.idle = self.rng.choice([None, None, 45])
        if self.idle:
            self.tables["state"] = {"idle": f"{self.idle}m"}
        self.model = "a"
        self.state: pa.Table | None = None
        self.rows: list[pa.Table] = []
        self.gone: list[int] = []

    def config(self, weights: str, path: Path, out: Path, **tables: Any) -> dict[str, Any]:
        source = {**self.source, "batch_rows": self.rng.choice([15, 40, 1000])}
        every = {"checkpoint": {"every": self.rng.choice([1, 3])}}
        tables = {**self.tables, **every, **tables}
        return logs.config(str(path), f"{weights}.safetensors", str(out), source=source, **tables)

    def alone(self, model: str, rows: pa.Table, name: str, state: pa.Table | None) -> str:
        """Score some rows in one piece, from a state; return the output."""
        out = self.at / name
        logs.write(rows, self.at / f"{name}-in/0.parquet")
        once = {"checkpoint": {"every": 10**6}}
        config = self.config(model, self.at / f"{name}-in", out, **once)
        Pipeline.from_dict(config, state=state).run()
        return str(out)

    def in_range(self, replay: Any, day: int) -> pa.Table:
        """The rows before `day` that a replay reads."""
        rows = pa.concat_tables(self.days[:day])
        if replay == "all":
            return rows
        if isinstance(replay, str):
            assert self.state is not None
            first = pc.max(self.state["last_time"]).value - int(replay[:-1]) * 60_000_000
            return rows.filter(pc.greater_equal(rows["t"].cast(pa.int64()), first))
        left: dict[str, int] = {}
        keep = []
        for stream in reversed(rows["id"].to_pylist()):
            left[stream] = left.get(stream, 0) + 1
            keep.append(left[stream] <= replay)
        return rows.filter(pa.array(keep[::-1]))

    def must_refuse(self, replay: Any, day: int) -> bool:
        """Whether a file that is gone may have rows that a replay reads."""
        if not self.gone or self.tables["window"]:
            return False
        rows = pa.concat_tables([self.days[day] for day in self.gone])
        if isinstance(replay, str):
            wanted = self.in_range(replay, day)["t"]
            return replay == "all" or pc.any(pc.greater_equal(rows["t"], pc.min(wanted))).as_py()
        after = pa.concat_tables(self.days[self.gone[-1] + 1 : day])["id"].to_pylist()
        streams = read_states(str(self.at / "out"))["id"].to_pylist()
        return min(map(after.count, streams)) < replay

    def taken_over(self, model: str, mode: str, replay: Any, day: int) -> pa.Table:
        """The state that another model starts from."""
        before = self.state
        assert before is not None
        if self.tables["window"] and mode == "replay":
            mode = "carry"  # nothing to replay
        job = Pipeline.from_dict(self.config(model, self.at, self.at / "none"))
        job.process(self.days[0].slice(0, 0))
        schema, found = job.state.to_arrow().schema, {}
        if mode == "replay" and len(rows := self.in_range(replay, day)):
            states = read_states(self.alone(model, rows, f"range-{day}", None))
            found = {row["id"]: row for row in states.to_pylist()}
        columns = []
        for field in schema:
            if pa.types.is_fixed_size_list(field.type) and mode != "carry":
                zero = [0.0] * field.type.list_size
                values = [found.get(s, {}).get(field.name, zero) for s in before["id"].to_pylist()]
            elif mode == "reset" and field.name == "steps":
                values = [0] * len(before)
            elif mode == "reset" and field.name.startswith("previous/"):
                values = [None] * len(before)
            elif mode == "reset" and field.name.startswith("waiting/"):
                values = [[]] * len(before)
            else:
                columns.append(before[field.name].combine_chunks())
                continue
            columns.append(pa.array(values, field.type))
        return pa.Table.from_arrays(columns, schema=schema)

    def score(self, day: int, model: str, state: pa.Table | None) -> None:
        """Note what a day should be."""
        out = self.alone(model, self.days[day], f"day-{day}", state)
        self.rows.append(pq.read_table(out, partitioning=None))
        self.state, self.model = read_states(out), model

    def states(self) -> tuple[pa.Table, pa.Table]:
        """The states in the output, and what they should be; but for idle ones that it dropped."""
        found, expected = read_states(str(self.at / "out")), self.state
        assert expected is not None
        if self.idle:
            gone = pc.invert(pc.is_in(expected["id"], found["id"]))
            oldest = pc.max(expected["last_time"]).value - 2 * self.idle * 60_000_000
            last = expected.filter(gone)["last_time"].cast(pa.int64()).to_pylist()
            assert all(time < oldest for time in last)
            expected = expected.filter(pc.invert(gone))
        return found, expected

    def run(self, day: int, model: str, options: dict[str, Any], replay: Any) -> str:
        """Run until it ends, however often it is killed; return the model that scored the day."""
        out, kills = self.at / "out", self.rng.choice([0, 0, 1, 3])
        while True:
            engine = {"type": self.rng.choice(["local", "ray"]), "shards": 3, "epoch_rows": 40}
            config = self.config(
                model, self.at / "in", out, engine=engine, model={"replay": replay}
            )
            steps = iter(range(self.rng.randint(1, 12)) if kills else itertools.count())

            def shown(_: Any, steps: Iterator[int] = steps) -> None:
                if next(steps, None) is None:
                    raise Killed

            try:
                Pipeline.from_dict(config).run(**options, progress=shown)
            except Killed:
                kills -= 1
                last = (
                    read_manifest(str(out))
                    if (out / "_streamrnn/_manifest.json").exists()
                    else None
                )
                begun = (
                    last is not None and last.model == Pipeline.from_dict(config).loaded.fingerprint
                )
                if options and not begun and self.rng.random() < 0.3:
                    model, options = self.model, {}  # the old one goes on
            else:
                return model

    def hide(self, day: int) -> None:
        """Remove files that were read, or put them back."""
        for number in self.gone:
            (self.at / f"{number}.parquet").rename(self.at / f"in/{number}.parquet")
        self.gone = list(range(self.rng.choice([0, 0, 1, day - 1]))) if day > 1 else []
        for number in self.gone:
            (self.at / f"in/{number}.parquet").rename(self.at / f"{number}.parquet")


def _history(seed: int) -> int:
    """Run one history; return how many swaps it had."""
    history, swaps = History(seed), 0
    rng = history.rng
    for day in range(DAYS):
        what = f"seed {seed}, day {day}, {history.source}, {history.tables}"
        logs.write(history.days[day], history.at / f"in/{day}.parquet", row_group=25)
        if not day or rng.random() < 0.25:
            history.run(day, history.model, {}, "all")
            history.score(day, history.model, history.state)
        else:
            model = rng.choice([name for name in MODELS if name != history.model])
            carries = "c" not in (model, history.model)
            mode = rng.choice(["replay"] * 3 + ["reset"] + ["carry"] * carries)
            replay = rng.choice(["all", "all", "30m", "90m", "400m", 1, 4, 50])
            options = {"new_model": mode}
            what += f", {history.model} to {model}, {mode} {replay}"
            history.hide(day)
            if mode == "replay" and history.must_refuse(replay, day):
                with pytest.raises(CheckpointError, match=r"replay: .* not in the source"):
                    history.run(day, model, options, replay)
                for number in history.gone:
                    (history.at / f"{number}.parquet").rename(history.at / f"in/{number}.parquet")
                history.gone = []
            expected = history.taken_over(model, mode, replay, day)
            scored_by = history.run(day, model, options, replay)
            swaps += scored_by == model
            history.score(day, scored_by, expected if scored_by == model else history.state)
        found = pq.read_table(history.at / "out", partitioning=None)
        _same(found, pa.concat_tables(history.rows), what)
        _same(*history.states(), what)
        assert not (history.at / "out/_streamrnn/_replay").exists(), what
    shutil.rmtree(history.at)
    return swaps


def _same(found: pa.Table, expected: pa.Table, what: str) -> None:
    """Shards and days order rows and streams in their own way, within a stream they do not."""
    rows, wanted = (
        sorted(table.to_pylist(), key=lambda row: (row["id"], row.get("t"), repr(row)))
        for table in (found, expected)
    )
    assert rows == wanted, what


@pytest.mark.parametrize("count", first_quick([1, SWAPS]))
def test_swaps_give_what_runs_in_one_piece_give(
    base: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Rows and states, bit for bit. Slow: more histories."""
    first = random.SystemRandom().randrange(10**6)
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(first))
    print(f"seeds from {first}")  # shown with a failure
    assert sum(_history(first + number) for number in range(count)) or count < 3
