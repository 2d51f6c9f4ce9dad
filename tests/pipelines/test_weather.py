"""The weather pipeline on the real log: its error, its rows, its numbers by the naive oracle."""

import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from selection import slow

from streamrnn import Pipeline
from streamrnn.pipeline import Summary

ROOT = Path(__file__).parents[2]
WEATHER = ROOT / "pipelines" / "weather"


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return pq.read_table(ROOT / "data" / "weather.parquet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, Path]:
    """What `streamrnn run pipelines/weather.toml` does, into a folder of the test's own."""
    out = tmp_path_factory.mktemp("weather") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        pipeline = Pipeline.from_toml("pipelines/weather.toml", [f"sink.path={out}"])
        return pipeline.run(), out


def written(out: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(part) for part in sorted(out.glob("*.parquet"))])


@slow
def test_the_model_is_what_fit_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, on any CPU.

    Slow: a fit of the weather pipeline; the README's blocks fit it, too.
    """
    monkeypatch.chdir(ROOT)
    path = tmp_path / "model.safetensors"
    Pipeline.from_toml("pipelines/weather.toml", [f"model.path={path}"]).fit()
    assert path.read_bytes() == (WEATHER / "model.safetensors").read_bytes()


def test_every_row_gives_one_row_in_order(run: tuple[Summary, Path], log: pa.Table) -> None:
    summary, out = run
    table = written(out)
    assert table.schema.names == ["origin", "time_hour", "temp", "temp_3h"]
    assert table.drop_columns("temp_3h").equals(log.select(["origin", "time_hour", "temp"]))
    assert (summary.rows, summary.rows_out, summary.streams) == (26_115, 26_115, 3)
    assert (summary.filled, summary.out_of_range, summary.skipped) == (2_737, 1, 0)


def test_only_the_first_day_of_a_stream_is_null(run: tuple[Summary, Path]) -> None:
    table = written(run[1])
    assert table.slice(0, 3 * 24)["temp_3h"].null_count == table["temp_3h"].null_count == 3 * 24
    assert bool(pc.all(pc.is_finite(table["temp_3h"])).as_py())


def evaluated(out: Path, *options: str) -> tuple[int, str, str]:
    """What `streamrnn evaluate` exits with and prints."""
    call = "from streamrnn.cli import main; main()"
    command = [sys.executable, "-c", call, "evaluate", "pipelines/weather.toml"]
    command += ["--set", f"sink.path={out}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


@slow
def test_evaluate_prints_the_error_of_each_airport(run: tuple[Summary, Path]) -> None:
    """Better than persistence by a third, a quarter and a fifth; the numbers are in the README.

    Slow: a run of the command; blocks of the README show its table.
    """
    code, out, _ = evaluated(run[1], "--by", "stream", "--since", "2013-10-01", "--json")
    assert code == 0
    lines = [
        (line["origin"], line["rows"], round(line["rmse"], 2), round(line["rmse_persistence"], 2))
        for line in json.loads(out)["figures"]
    ]
    assert lines[1:] == [
        ("EWR", 2155, 2.81, 4.22),
        ("JFK", 2157, 2.56, 3.66),
        ("LGA", 2157, 2.49, 3.08),
    ]


def test_evaluate_is_right_by_plain_arithmetic(run: tuple[Summary, Path], log: pa.Table) -> None:
    """Of one airport, from the files and nothing of ours."""
    truth = {row["time_hour"]: row["temp"] for row in log.to_pylist() if row["origin"] == "JFK"}
    since = datetime(2013, 10, 1, tzinfo=UTC)
    squares = []
    for row in written(run[1]).to_pylist():
        later = truth.get(row["time_hour"] + timedelta(hours=3))
        if row["origin"] == "JFK" and row["time_hour"] >= since and later is not None:
            squares.append((row["temp_3h"] - later) ** 2)
    _, out, _ = evaluated(run[1], "--by", "stream", "--since", "2013-10-01", "--json")
    (line,) = (line for line in json.loads(out)["figures"] if line["origin"] == "JFK")
    assert line["rmse"] == pytest.approx(math.sqrt(math.fsum(squares) / len(squares)))


@slow
def test_evaluate_reports_what_to_run_first(tmp_path: Path) -> None:
    """Slow: a run of the command; test_evaluate_command has others."""
    code, _, err = evaluated(tmp_path / "none")
    assert code == 66
    assert "no such output folder" in err


def features(rows: list[dict[str, Any]]) -> list[list[float]]:
    """weather.toml in plain Python: nulls from before, the outlier out, clips, the hour."""
    before: dict[str, float] = {}
    prepared = []
    for row in rows:
        for name in ("temp", "dewp", "humid", "wind_speed", "pressure", "precip"):
            value = row[name]
            if value is not None and not (name == "wind_speed" and not 0 <= value <= 150):
                before[name] = value
        x = {**before}
        x["wind_speed"] = min(max(x["wind_speed"], 0.0), 40.0)
        x["precip"] = min(max(x["precip"], 0.0), 0.3)
        angle = 2 * math.pi * row["time_hour"].hour / 24
        prepared.append([x[n] for n in before] + [math.sin(angle), math.cos(angle)])
    return prepared


def test_the_numbers_are_those_of_the_oracle(run: tuple[Summary, Path], log: pa.Table) -> None:
    """EWR across its null row and nothing else of ours: raw rows, weights from the file, naive.

    From a state of zeros 30 days before: what is older than that is forgotten to within 1e-3 degF.
    """
    since, until = datetime(2013, 7, 24, tzinfo=UTC), datetime(2013, 8, 24, tzinfo=UTC)
    here = pc.and_(
        pc.equal(log["origin"], "EWR"),
        pc.and_(pc.greater_equal(log["time_hour"], since), pc.less(log["time_hour"], until)),
    )
    with safe_open(WEATHER / "model.safetensors", framework="numpy") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    scale, offset = rescaling(config)
    x = naive.normalization(
        features(log.filter(here).to_pylist()),
        weights["normalize/mean"],
        weights["normalize/variance"],
    )
    cell = naive.gru(*(weights[f"gru/cell/{w}"] for w in ("kernel", "recurrent_kernel", "bias")))
    h, _, _ = naive.sequence(cell, x)
    y = naive.dense(h, weights["dense/kernel"], weights["dense/bias"])
    expected = [value * scale + offset for (value,) in y]

    ours = written(run[1]).filter(here)["temp_3h"].to_numpy()
    assert len(ours) == len(expected) > 700
    np.testing.assert_allclose(ours[-48:], expected[-48:], atol=1e-3, rtol=0)


def rescaling(config: dict[str, Any]) -> tuple[float, float]:
    (layer,) = (part for part in config["config"]["layers"] if part["class_name"] == "Rescaling")
    (scale,), (offset,) = layer["config"]["scale"], layer["config"]["offset"]
    return scale, offset
