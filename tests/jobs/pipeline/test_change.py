"""[target] as = "change": a model learns the change from the present value, and outputs values."""

from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.engines.in_process import TasksHere

from streamrnn import Pipeline, Sequential, layers, load_model
from streamrnn.errors import CheckpointError, ConfigError, DTypeError
from streamrnn.jobs.engines import opening

Floats = np.ndarray[Any, np.dtype[np.float32]]
KINDS: dict[str, dict[str, Any]] = {
    "every": {},
    "warmup": {"output": {"warmup": 3}},
    "last": {"output": {"emit": "last", "last_of": 3}},
    "final": {"output": {"emit": "final"}},
    "independent": {"window": {"kind": "independent", "steps": 6, "stride": 2}},
    "whole": {"window": {"kind": "whole"}},
}


def log(rows: int = 400, seed: int = 7) -> pa.Table:
    """Rows of five streams, most of them a minute after the last; x is null or NaN in some."""
    table = logs.random_log(rows, seed=seed, resets=0.02)
    rng = np.random.default_rng(seed)
    place = np.sort(rng.choice(rows * 10 // 9, rows, replace=False))
    minutes = np.datetime64("2024-01-01T00:00", "us") + place // 5 * np.timedelta64(1, "m")
    table = table.set_column(0, "id", pa.array([f"s{i % 5}" for i in place]))
    table = table.set_column(1, "t", pa.array(minutes).cast(logs.SCHEMA.field("t").type))
    x = 1e6 + np.cumsum(rng.normal(size=rows))
    x[rng.random(rows) < 0.03] = np.nan
    return table.append_column("x", pa.array(x, mask=rng.random(rows) < 0.05))


@pytest.fixture(autouse=True)
def base(workdir: Path) -> Path:
    logs.write(log(), Path("in/0.parquet"))
    save(2)
    return workdir


def save(units: int, *more: Any) -> None:
    rnn = layers.GRU(4, return_sequences=True, name="rnn")
    model = Sequential([layers.Input((None, 2)), rnn, layers.Dense(units, name="y"), *more])
    rng = np.random.default_rng(11)
    model.set_weights([rng.normal(0, 1, w.shape).astype(np.float32) for w in model.get_weights()])
    model.save("m.safetensors")


def config(out: str, kind: str = "change", **tables: dict[str, Any]) -> dict[str, Any]:
    target = {"column": "x", "horizon": ["1m", "3m"], "as": kind, **tables.pop("target", {})}
    source = {"reset": "new", **tables.pop("source", {})}
    return logs.config("in", "m.safetensors", out, target=target, source=source, **tables)


def outputs(table: pa.Table | pa.RecordBatch) -> Floats:
    names = [name for name in table.schema.names if name.startswith(("y", "quantile"))]
    return np.stack([table[name].to_numpy(zero_copy_only=False) for name in names], axis=1)


def with_present(out: str, changed: int = 2) -> Floats:
    """What the model computed in a run, and beside it the value of x at each row, added by hand."""
    rows = pq.read_table(out)
    x = {(i, t): v for i, t, v in zip(*map(pa.ChunkedArray.to_pylist, log().columns[:2]),
                                       log()["x"].to_pylist(), strict=True)}  # fmt: skip
    keys = zip(rows["id"].to_pylist(), rows["t"].to_pylist(), strict=True)
    present = [x[key] for key in keys]
    values = outputs(rows).astype(np.float64)
    values[:, :changed] += np.array([np.nan if v is None else v for v in present])[:, np.newaxis]
    return values.astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_values_again(kind: str) -> None:
    """The present value is added in float64; where it is null or NaN, so is the output."""
    Pipeline.from_dict(config("plain", "value", **KINDS[kind])).run()
    Pipeline.from_dict(config("out", **KINDS[kind])).run()
    expected, table = with_present("plain"), pq.read_table("out")
    assert np.isnan(expected).any() or kind == "final"
    assert outputs(table).tobytes() == expected.tobytes()
    nulls = sum(table[name].null_count for name in ("y_0", "y_1"))
    assert nulls == np.isnan(expected).sum()  # null, not NaN


@pytest.mark.parametrize("size", [1, 7, 150])
def test_values_do_not_depend_on_cuts_or_on_who_calls(size: int) -> None:
    """A run in two days and small batches, `process`, a session and answers have the same bits."""
    Pipeline.from_dict(config("whole")).run()
    table = pq.read_table("in/0.parquet")
    Path("in/0.parquet").unlink()
    for day, (first, rows) in enumerate([(0, 130), (130, 270)]):
        logs.write(table.slice(first, rows), Path(f"in/{day}.parquet"))
        Pipeline.from_dict(config("days", source={"batch_rows": size})).run()
    expected = outputs(pq.read_table("whole"))
    assert outputs(pq.read_table("days")).tobytes() == expected.tobytes()
    parts = [table.slice(first, size) for first in range(0, len(table), size)]
    pipeline = Pipeline.from_dict(config("none"))
    answers = [pipeline.process(part, align=True) for part in parts]
    found = np.concatenate([outputs(answer) for answer in answers])
    assert found.tobytes() == expected.tobytes()
    reasons = [reason for answer in answers for reason in answer["reason"].to_pylist()]
    missing = np.isnan(expected).any(axis=1)
    assert reasons == ["no present value" if null else None for null in missing]
    with Pipeline.from_dict(config("session")).session() as session:
        for part in parts:
            session.process(part)
    assert outputs(pq.read_table("session")).tobytes() == expected.tobytes()


def test_shards_compute_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the workers of an engine, too."""
    Pipeline.from_dict(config("whole")).run()
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(5))
    engine = {"type": "ray", "shards": 3, "epoch_rows": 70}
    Pipeline.from_dict(config("shards", engine=engine)).run()
    order = [("id", "ascending"), ("t", "ascending")]
    whole, shards = (pq.read_table(out).sort_by(order) for out in ("whole", "shards"))
    assert outputs(shards).tobytes() == outputs(whole).tobytes()


@pytest.mark.parametrize("loss", ["mse", "gaussian_nll", {"quantile": [0.2, 0.8]}], ids=str)
def test_a_fit_learns_the_same_as_from_a_column_of_changes(loss: Any) -> None:
    """Label less present value, in float64, for two horizons: the weights have the same bits."""
    quantile = isinstance(loss, dict)
    ahead = [1] if quantile else [1, 3]
    table = log()
    rows = table.to_pylist()
    for minutes in ahead:
        changes: list[float | None] = []
        for number, row in enumerate(rows):
            later = [r for r in rows[number + 1 :] if r["id"] == row["id"]]
            ahead_of_reset = takewhile(lambda r: not r["new"], later)
            hit = [r for r in ahead_of_reset if r["t"] - row["t"] == timedelta(minutes=minutes)]
            known = hit and None not in (hit[0]["x"], row["x"])
            changes.append(hit[0]["x"] - row["x"] if known else None)
        table = table.append_column(f"d{minutes}", pa.array(changes, pa.float64()))
    logs.write(table, Path("in/0.parquet"))
    head = [{"type": "Gaussian"}] if loss == "gaussian_nll" else []
    width = {"type": "Dense", "units": 4 if head else 2}
    shared: dict[str, Any] = {
        "train": {"epochs": 2, "loss": loss},
        "window": {"lanes": 3, "steps": 10},
    }
    made = []
    for name, target in {
        "by_hand": {"column": [f"d{minutes}" for minutes in ahead]},
        "change": {"column": "x", "horizon": [f"{m}m" for m in ahead], "as": "change"},
    }.items():
        model = {
            "path": f"{name}.safetensors",
            "layers": [{"type": "GRU", "units": 3}, width, *head],
        }
        data = logs.config("in", "", name, source={"reset": "new"}, target=target, **shared)
        pipeline = Pipeline.from_dict({**data, "model": model})
        pipeline.fit()
        made.append(pipeline)
    weights = [load_model(f"{name}.safetensors").get_weights() for name in ("by_hand", "change")]
    assert [w.tobytes() for w in weights[0]] == [w.tobytes() for w in weights[1]]
    if loss == "mse":
        made[1].run()
        found = made[1].evaluate()
        assert "mean of the labels that the fit" in found.baselines["mean"]
        for line in found.table.to_pylist():  # the mean of the values that the changes lead to
            assert line["rmse"] < 20
            assert line["rmse_mean"] < 20


def test_the_seasons_of_a_fit_are_of_values() -> None:
    """Errors of changes are errors of values: persistence and season, as for as = "value"."""
    known = np.nan_to_num(log()["x"].to_numpy(), nan=1e6)  # a change needs both values
    logs.write(log().set_column(5, "x", pa.array(known)), Path("in/0.parquet"))
    season = {"season": "5m", "horizon": "3m"}
    shared: dict[str, Any] = {
        "model": {
            "path": "f.safetensors",
            "layers": [{"type": "GRU", "units": 2}, {"type": "Dense", "units": 1}],
        },
        "train": {"epochs": 1, "validation": {"since": "2024-01-01T01:00"}},
    }
    rows = []
    for kind in ("value", "change"):
        data = config("out", kind, target=season) | shared
        (row,) = Pipeline.from_dict(data).fit(full_refresh=True).history
        names = [f"{name}_{of}" for name in ("persistence", "seasonal") for of in ("rmse", "rows")]
        rows.append([row[name] for name in names])
    assert rows[0] == pytest.approx(rows[1], rel=1e-2)  # float32 has steps of 0.06 at 1e6


def test_windows_have_changes_as_labels() -> None:
    """For training elsewhere."""
    by_kind = {}
    for kind in ("value", "change"):
        windows = list(Pipeline.from_dict(config("out", kind)).windows())
        by_kind[kind] = np.concatenate([w.y.ravel() for w in windows])
    change, value = by_kind["change"], by_kind["value"]
    assert np.isfinite(change).any()
    assert (abs(change[np.isfinite(change)]) < 20).all()
    assert (value[np.isfinite(change)] > 9e5).all()


def test_deviations_are_not_changes_and_quantiles_are() -> None:
    save(2, layers.Gaussian(name="y_moments"))
    target = {"horizon": "3m"}
    Pipeline.from_dict(config("plain", "value", target=target)).run()
    Pipeline.from_dict(config("out", target=target)).run()
    assert outputs(pq.read_table("out")).tobytes() == with_present("plain", 1).tobytes()
    levels = {"quantiles": [0.1, 0.5, 0.9]}
    Pipeline.from_dict(config("plain3", "value", target=target, output=levels)).run()
    Pipeline.from_dict(config("out3", target=target, output=levels)).run()
    assert outputs(pq.read_table("out3")).tobytes() == with_present("plain3", 3).tobytes()


@pytest.mark.parametrize(
    ("tables", "error", "message"),
    [
        ({"target": {"horizon": 0}}, ConfigError, "target.as: a change needs a later value"),
        (
            {"train": {"loss": "binary_crossentropy"}},
            ConfigError,
            "target.as: expected a loss of numbers, received binary_crossentropy",
        ),
        (
            {"target": {"horizon": ["1m", "2m", "3m"]}},
            ConfigError,
            "expected an output for each of 3 labels (x 1m, x 2m, x 3m), or quantiles of one label, received 2 outputs: y_0, y_1",  # noqa: E501
        ),
        ({"target": {"column": "id"}}, DTypeError, "column 'id': expected number or boolean"),
        ({"target": {"column": "z"}}, Exception, "column 'z' not found"),
    ],
)
def test_what_no_change_can_be_of(tables: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        Pipeline.from_dict(config("out", **tables)).run()
    assert message in str(caught.value)


def test_an_output_stays_what_it_is() -> None:
    """Its rows are values, by the column that was added."""
    Pipeline.from_dict(config("out")).run()
    logs.write(log().slice(399), Path("in/1.parquet"))
    for changed in (config("out", "value"), config("out", target={"column": "a"})):
        with pytest.raises(CheckpointError, match=r"target\.(as|column)"):
            Pipeline.from_dict(changed).run()
