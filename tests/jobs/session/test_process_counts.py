"""`Pipeline.counts` and `Pipeline.write_metrics`: the numbers of a run over the same rows."""

import pickle
import re
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pytest

from streamrnn import Pipeline
from streamrnn.errors import ConfigError, DataError
from streamrnn.pipeline import RowCounts

pytestmark = pytest.mark.usefixtures("model_dir")

FILES = 4


def _log(seed: int = 7) -> pa.Table:
    """Values outside `valid` and `clip`, NaN, nulls, late and rejected rows, resets."""
    log = logs.random_log(400, seed=seed, nulls=0.1, resets=0.05, jitter=3)
    a = log["a"].to_pylist()
    a[5], a[60], a[61] = float("nan"), 99.0, float("nan")
    return log.set_column(2, "a", pa.array(a, from_pandas=False))


def _pieces() -> list[pa.Table]:
    pieces = [_log().slice(100 * number, 100) for number in range(FILES)]
    other = pieces[2]["b"].cast(pa.int64())
    pieces[2] = pieces[2].set_column(3, "b", other)
    return pieces


def _config(sink: str | None, **source: Any) -> dict[str, Any]:
    source = {
        "late": "reject",
        "bad": "reject",
        "reset": "new",
        "max_rejects": 400,
        "features": [
            {"name": "a", "nan": "null", "valid": [-50, 50], "clip": [-1, 1], "nulls": "previous"},
            {"name": "b", "nulls": "skip"},
        ],
        **source,
    }
    return logs.config("in", "m.safetensors", sink, source=source)


def _write(pieces: list[pa.Table]) -> None:
    for number, piece in enumerate(pieces):
        logs.write(piece, Path(f"in/{number}.parquet"))


def _series(path: str) -> dict[str, float]:
    lines = re.findall(r'^streamrnn_(\w+)\{pipeline="p.toml"[^}]*\} (\S+)$', _text(path), re.M)
    return {name: float(value) for name, value in lines}


def _text(path: str) -> str:
    return Path(path).read_text()


def _toml(**source: Any) -> str:
    """The file of `_config`."""
    features = (
        '[{name="a", nan="null", valid=[-50, 50], clip=[-1, 1], nulls="previous"},'
        '{name="b", nulls="skip"}]'
    )
    Path("p.toml").write_text(
        f'[source]\npath="in"\nkey="id"\ntime="t"\nfeatures={features}\nlate="reject"\n'
        'bad="reject"\nreset="new"\nmax_rejects=400\n[model]\npath="m.safetensors"\n'
        '[sink]\npath="out"\n'
    )
    return "p.toml"


@pytest.mark.parametrize("late", ["reject", "drop"])
@pytest.mark.parametrize("emit", ["every", "final"])
def test_counts_are_those_of_a_run(late: str, emit: str) -> None:
    pieces = _pieces()
    _write(pieces)
    summary = Pipeline.from_dict({**_config("out", late=late), "output": {"emit": emit}}).run()
    pipeline = Pipeline.from_dict({**_config(None, late=late), "output": {"emit": emit}})
    assert pipeline.counts == RowCounts()
    for piece in pieces:
        pipeline.process(piece)
    pipeline.finish()
    found = {field.name: getattr(pipeline.counts, field.name) for field in fields(RowCounts)}
    assert found == {name: getattr(summary, name) for name in found}
    counted = {name for name, number in found.items() if number}
    late_ones = {"dropped_late"} if late == "drop" else set()
    assert counted | {"rejected"} == {
        *("rows", "rows_out", "skipped", "rejected", "filled", "nan", "clipped", "out_of_range"),
        *("cast", "fresh_starts", "repeated"),
        *late_ones,
    }


def test_a_call_that_fails_counts_nothing() -> None:
    pieces = _pieces()
    pipeline = Pipeline.from_dict(_config(None, bad="error"))
    pipeline.process(pieces[0])
    before = pipeline.counts
    wrong = pieces[1].set_column(2, "a", pa.array([1.0] * 99 + [float("inf")]))
    with pytest.raises(DataError, match="infinity"):
        pipeline.process(wrong)
    assert pipeline.counts == before
    before.rows += 1  # a copy
    assert pipeline.counts != before


def test_a_pipeline_that_resumes_counts_from_zero() -> None:
    pieces = _pieces()
    pipeline = Pipeline.from_dict(_config(None))
    pipeline.process(pieces[0])
    pipeline.checkpoint("c.arrow")
    for again in (Pipeline.resume("c.arrow"), pickle.loads(pickle.dumps(pipeline))):
        assert again.counts == RowCounts()
        again.process(pieces[1])
        assert again.counts.rows == 100


def test_the_metrics_of_process_are_those_of_a_run() -> None:
    """In one file and label, also by jobs that resume one after another."""
    pieces = _pieces()
    _write(pieces)
    Pipeline.from_toml(_toml(), ["sink.path=other"]).run(metrics="run.prom")
    job = Pipeline.from_toml(_toml())
    for number, piece in enumerate(pieces):
        job.process(piece)
        job.write_metrics("process.prom")
        job.write_metrics("process.prom")
        if number % 2:
            job.checkpoint("c.arrow", include_model=True)
            job = Pipeline.resume("c.arrow")
    run, process = _series("run.prom"), _series("process.prom")
    of_runs = {name for name in run if "run" in name or "commit" in name or "success" in name}
    assert set(process) == set(run) - of_runs - {
        "phase_seconds_total",
        "state_bytes",
        "rows_alerted_total",
    }
    lag = {"lag_seconds"}
    assert {n: process[n] for n in process.keys() - lag} == {
        n: run[n] for n in process.keys() - lag
    }
    assert abs(time.time() - process["newest_row_timestamp_seconds"] - process["lag_seconds"]) < 60


def test_a_run_and_process_do_not_share_a_file() -> None:
    """A run sets counters to the rows of its output: those of both would go down."""
    pieces = _pieces()
    _write(pieces)
    pipeline = Pipeline.from_toml(_toml())
    pipeline.process(pieces[0])
    pipeline.write_metrics("process.prom")
    pipeline.run(metrics="run.prom")
    before = _text("run.prom"), _text("process.prom")
    with pytest.raises(ConfigError, match=r"^write_metrics: run\.prom has the metrics of a run\."):
        pipeline.write_metrics("run.prom")
    message = r"^--metrics: process\.prom has the metrics of Pipeline\.write_metrics\."
    with pytest.raises(ConfigError, match=message):
        pipeline.run(metrics="process.prom")
    assert (_text("run.prom"), _text("process.prom")) == before
    pipeline.run(metrics="run.prom")
    pipeline.write_metrics("process.prom")


def test_metrics_before_the_first_call_are_zero() -> None:
    job = Pipeline.from_toml(_toml())
    job.process([])
    job.write_metrics("process.prom")
    assert set(_series("process.prom").values()) == {0.0}


def test_a_file_of_anything_else_is_refused() -> None:
    Path("notes.txt").write_text("mine\n")
    pipeline = Pipeline.from_toml(_toml())
    with pytest.raises(ConfigError, match=r"notes.txt exists, and is not a metrics file"):
        pipeline.write_metrics("notes.txt")
    assert Path("notes.txt").read_text() == "mine\n"
    pipeline.write_metrics("p.prom")
    with pytest.raises(ConfigError, match=r'has the metrics of pipeline "p.toml", expected "out"'):
        Pipeline.from_dict(_config("out")).write_metrics("p.prom")


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("key", ["max_gap", "idle"])
def test_a_gap_of_just_the_length_is_none(key: str, unit: str) -> None:
    """In any unit of time: 1.001 s times 1,000 is below 1,001 as a float."""
    length = {key: "1001ms"}
    tables = {"source": length} if key == "max_gap" else {"state": length}
    rows = logs.random_log(2, streams=1, resets=0)
    milliseconds = pa.array([0, 1001], pa.timestamp("ms", "UTC"))
    rows = rows.set_column(1, "t", milliseconds.cast(pa.timestamp(unit, "UTC")))
    pipeline = Pipeline.from_dict(logs.config("in", "m.safetensors", None, **tables))
    pipeline.process(rows)
    assert pipeline.state.to_arrow()["steps"].to_pylist() == [2]
