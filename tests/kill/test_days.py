"""SIGKILL in a history of days: new models, one with a replay, a reloaded file, a renamed column.

`STREAMRNN_KILLS=504 pytest tests/kill/test_days.py` kills 504 times; by default it is 12 times.
"""

import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import logs
import numpy as np
import pyarrow as pa
import pytest
from kill import case
from kill.test_kill import SOME, Server

from streamrnn import load_model

ROWS = 2000
KINDS = ({"kind": "carry", "steps": 16}, {"kind": "independent", "steps": 6, "stride": 4})
EMITS: tuple[dict[str, Any], ...] = ({}, {"emit": "last", "last_of": 5}, {"emit": "final"})
LATE = ("drop", "reject", "apply")
GAPS: tuple[dict[str, str], ...] = ({}, {"max_gap": "20m"}, {"max_gap": "3h"})
LANES, THREADS = (1, 3, 8, 32), (1, 2)  # neither changes a bit of the output


class Command(NamedTuple):
    """What happens to the source before a run, and the options of the run."""

    put: tuple[int, str]
    options: dict[str, Any]
    model: str = "model"


HISTORY = (
    Command((0, "right"), {}),
    Command((1, "wrong"), {}),
    Command((2, "right"), {}),
    Command((1, "right"), {"reload": True}),
    Command((3, "renamed"), {"new_model": "carry"}, "retrained"),
    Command((4, "right"), {"new_model": "replay"}, "anew"),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of the same sizes; each of five days as it should be, wrong, and renamed."""
    folder = tmp_path_factory.mktemp("days")
    table = logs.random_log(ROWS, streams=90, seed=5, nulls=0.1, resets=0.01, jitter=5)
    for day in range(5):
        rows = table.slice(day * ROWS // 5, ROWS // 5)
        logs.write(rows, folder / "right" / f"{day}.parquet", row_group=100)
        wrong = np.where(np.arange(len(rows)) % 3, rows["a"].to_numpy(), 1.0)
        logs.write(rows.set_column(2, "a", pa.array(wrong)), folder / "wrong" / f"{day}.parquet")
        renamed = rows.rename_columns(["id", "t", "a_new", "b", "new"])
        logs.write(renamed, folder / "renamed" / f"{day}.parquet")
    logs.small_model(units=16).save(folder / "model.safetensors")
    model = load_model(folder / "model.safetensors")
    model.set_weights([w * np.float32(0.75) for w in model.get_weights()])
    model.save(folder / "retrained.safetensors")
    logs.small_model("LSTM", units=8).save(folder / "anew.safetensors")
    case.make(folder / "case")
    return folder


@pytest.fixture(scope="module")
def server(base: Path) -> Any:
    with Server(base / "case") as server:
        yield server


def _options(rng: random.Random) -> dict[str, Any]:
    """What all runs of one history have in common."""
    window, output = rng.choice(KINDS), rng.choice(EMITS)
    if window["kind"] == "independent":
        output = rng.choice([{}, {"emit": "final"}])
    source = {"late": rng.choice(LATE), **rng.choice(GAPS)}
    return {"window": window, "output": output, "source": source}


def _size(rng: random.Random) -> dict[str, int]:
    """What may differ from run to run."""
    return {"lanes": rng.choice(LANES), "threads": rng.choice(THREADS)}


def _config(
    base: Path, out: Path, command: Command, options: dict[str, Any], size: dict[str, int]
) -> dict[str, Any]:
    features = [{"name": "a", "from": "a_new"}, "b"]
    source = {"features": features, "nulls": "previous", "reset": "new", **options["source"]}
    return logs.config(
        str(out.parent / "in"),
        str(base / f"{command.model}.safetensors"),
        str(out),
        source={**source, "batch_rows": 50, "bad": "reject"},
        window={"lanes": size["lanes"], **options["window"]},
        model={"threads": size["threads"]},
        output={"warmup": 2, "names": ["y"], "model_column": "model", **options["output"]},
        checkpoint={"every": 2},
    )


def _put(base: Path, at: Path, command: Command) -> None:
    number, kind = command.put
    (at / "in").mkdir(parents=True, exist_ok=True)
    shutil.copy(base / kind / f"{number}.parquet", at / "in" / f"{number}.parquet")


def _ask(server: Server, base: Path, out: Path, command: Command, **how: Any) -> dict[str, Any]:
    config = _config(base, out, command, how.pop("options"), how.pop("size"))
    return server.run(out, command={"config": config, "options": command.options}, **how)


@pytest.mark.parametrize("most", SOME)
def test_killed_on_any_day_the_same_command_resumes(
    server: Server, base: Path, tmp_path: Path, most: int
) -> None:
    """Rows, rejects and states are those of days on which nothing was killed. Slow: more kills."""
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    kills = 0
    for turn in range(1000):
        if kills >= most and turn:
            break
        kinds = _options(rng)
        undisturbed, killed = tmp_path / str(turn) / "undisturbed", tmp_path / str(turn) / "killed"
        for day, command in enumerate(HISTORY):
            when = f"seed {seed}, turn {turn}, command {day}, {kinds}"
            _put(base, tmp_path / str(turn), command)
            answer = _ask(server, base, undisturbed, command, options=kinds, size=_size(rng))
            assert answer["status"] == 0, when
            usual = answer["seconds"]
            while True:
                seconds = rng.uniform(0.05, 1.1) * usual
                how = {"options": kinds, "size": _size(rng), "seconds": seconds}
                answer = _ask(server, base, killed, command, **how)
                kills += answer["killed"]
                if not answer["killed"]:
                    break
            assert answer["status"] == 0, when
            found = case.Outcome(killed)
            assert found.differs(case.Outcome(undisturbed)) == [], when
        assert len(found.rows["model"].unique()) == 3
        shutil.rmtree(tmp_path / str(turn))
