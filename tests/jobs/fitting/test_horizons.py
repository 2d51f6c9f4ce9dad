"""Several horizons and columns at once: which output forecasts which label, in fit and evaluate."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import logs
import naive_labels
import numpy as np
import pyarrow as pa
import pytest
from naive_scores import Pair, distances

from streamrnn import Input, Pipeline, Sequential, layers, load_model
from streamrnn.errors import ConfigError

START = datetime(2024, 3, 1, tzinfo=UTC)
CUT = START + timedelta(days=15)
COLUMNS, HOURS = ("x", "y"), (3, 24, 1)
LABELS = [(column, hours) for column in COLUMNS for hours in HOURS]
PLANTED = [f"{column}{hours}" for column, hours in LABELS]


def log() -> pa.Table:
    """Rows of two streams, of which some hours are missing; nothing can be learned of x and y.

    Beside them the labels by the oracle: a planted future.
    """
    rng = np.random.default_rng(5)
    hours = [(hour, stream) for hour in range(480) for stream in (0, 1) if rng.random() < 0.9]
    rows: list[dict[str, Any]] = [
        {
            "id": f"s{stream}",
            "t": START + timedelta(hours=hour),
            "x": None if rng.random() < 0.1 else float(rng.normal()),
            "y": float(rng.normal(100, 10)),
        }
        for hour, stream in hours
    ]
    streams = naive_labels.kept_streams(rows, "id", "t")
    for (column, ahead), name in zip(LABELS, PLANTED, strict=True):
        later = timedelta(hours=ahead)
        labels = naive_labels.labels(rows, streams, [column], time="t", horizon=later)
        for number, (label,) in labels.items():
            rows[number][name] = label
    schema = {"id": pa.string(), "t": pa.timestamp("us", "UTC")}
    floats = {name: pa.float64() for name in (*COLUMNS, *PLANTED)}
    return pa.Table.from_pylist(rows, pa.schema({**schema, **floats}))


def config(folder: Path, features: list[str]) -> dict[str, Any]:
    return {
        "source": {
            "path": str(folder / "in"),
            "key": "id",
            "time": "t",
            "features": features,
            "nulls": 0,
        },
        "window": {"lanes": 4, "steps": 8},
        "model": {"path": str(folder / "model.safetensors")},
        "sink": {"path": str(folder / "out")},
        "output": {"names": [f"{name}_forecast" for name in PLANTED]},
        "target": {"column": list(COLUMNS), "horizon": ["3h", "24h", "1h"], "season": "24h"},
        "train": {
            "init": str(folder / "start.safetensors"),
            "optimizer": {"name": "sgd", "learning_rate": 0.0},
            "epochs": 1,
            "validation": {"since": CUT.isoformat()},
        },
    }


def fitted(
    folder: Path, features: list[str], table: pa.Table | None = None
) -> tuple[Pipeline, list[dict[str, Any]]]:
    """A fit of a model whose outputs are its features, and the rows of its log."""
    table = log() if table is None else table
    logs.write(table, folder / "in" / "a.parquet", row_group=100)
    model = Sequential([Input((None, len(features))), layers.Dense(len(LABELS), use_bias=False)])
    model.set_weights([np.eye(len(features), len(LABELS), dtype=np.float32)])
    model.save(folder / "start.safetensors")
    return Pipeline.from_dict(config(folder, features)), table.to_pylist()


def test_a_planted_future_forecasts_its_own_column_and_horizon_alone(tmp_path: Path) -> None:
    """Exactly: of every label in fit, and line by line in evaluate."""
    pipeline, _ = fitted(tmp_path / "one", PLANTED)
    assert pipeline.fit().best["val_rmse"] == pytest.approx(0, abs=1e-5)
    pipeline.run()
    for line in pipeline.evaluate().table.to_pylist():
        assert line["rmse"] == pytest.approx(0, abs=1e-5)
    pipeline, _ = fitted(tmp_path / "two", [*PLANTED[1:3], PLANTED[0], *PLANTED[3:]])
    assert pipeline.fit().best["val_rmse"] > 0.5
    pipeline.run()
    errors = [line["rmse"] for line in pipeline.evaluate().table.to_pylist()]
    assert min(errors[:3]) > 1 > 1e-4 > max(errors[3:])


def test_no_horizon_of_shuffled_labels_is_forecast_better_than_by_their_mean(
    tmp_path: Path,
) -> None:
    """With the planted future beside them, each is."""
    for name, features in (("shuffled", ["x", "y"]), ("planted", PLANTED)):
        fitted(tmp_path / name, features)
        data = config(tmp_path / name, features)
        normalized = [{"type": "Normalization"}, {"type": "Dense", "units": len(LABELS)}]
        data["model"]["layers"] = normalized
        del data["train"]["init"]
        data["train"] |= {"optimizer": {"name": "adam", "learning_rate": 0.1}, "epochs": 8}
        pipeline = Pipeline.from_dict(data)
        pipeline.fit()
        pipeline.run()
        lines = pipeline.evaluate(since=CUT.isoformat()).table.to_pylist()
        ratios = [line["rmse"] / line["rmse_mean"] for line in lines]
        assert len(ratios) == len(LABELS)
        assert min(ratios) > 0.95 if name == "shuffled" else max(ratios) < 0.5


def test_labels_that_lie_in_the_validation_change_no_weight(tmp_path: Path) -> None:
    """Not by any horizon; those of the training do."""
    weights = []
    for name, first in (("one", None), ("late", CUT), ("early", CUT - timedelta(hours=25))):
        table = log()
        for number, column in enumerate(table.column_names[2:], 2):
            garbage = [
                1e3 if first is not None and time >= first else value
                for time, value in zip(
                    table["t"].to_pylist(), table[column].to_pylist(), strict=True
                )
            ]
            table = table.set_column(number, column, pa.array(garbage, pa.float64()))
        fitted(tmp_path / name, ["x", "y"], table)
        data = config(tmp_path / name, ["x", "y"])
        data["train"] |= {"optimizer": {"name": "adam", "learning_rate": 0.01}}
        Pipeline.from_dict(data).fit()
        weights.append(load_model(tmp_path / name / "model.safetensors").get_weights())
    for one, late, early in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, late)
        assert (one != early).any()


def test_labels_in_another_order_are_not_compared(tmp_path: Path) -> None:
    """Each output would be compared with the label of another."""
    pipeline, _ = fitted(tmp_path, ["x", "y"])
    pipeline.fit()
    pipeline.run()
    data = config(tmp_path, ["x", "y"])
    data["target"] = {**data["target"], "column": data["target"]["column"][::-1]}
    with pytest.raises(ConfigError, match="the order in which the model was fitted, received"):
        Pipeline.from_dict(data).evaluate()


def test_figures_by_horizon_are_those_of_the_oracle(tmp_path: Path) -> None:
    """Over the rows that have all labels; baselines of each horizon too."""
    pipeline, rows = fitted(tmp_path, ["x", "y"])
    best = pipeline.fit().best
    pipeline.run()
    found = pipeline.evaluate()
    lines = found.table.to_pylist()
    assert [(line["target"], line["horizon"]) for line in lines] == [
        (column, "1d" if hours == 24 else f"{hours}h") for column, hours in LABELS
    ]
    streams = naive_labels.kept_streams(rows, "id", "t")
    complete = [n for n, row in enumerate(rows) if None not in [row[name] for name in PLANTED]]
    judged: list[float] = []
    for unit, (line, (column, hours)) in enumerate(zip(lines, LABELS, strict=True)):
        rule: dict[str, Any] = {"time": "t", "horizon": timedelta(hours=hours)}
        before = naive_labels.seasonal(rows, streams, [column], timedelta(hours=24), **rule)
        pairs = []
        for n in complete:
            outputs = [0.0 if rows[n][name] is None else rows[n][name] for name in ("x", "y")]
            score = [*map(np.float32, outputs), 0, 0, 0, 0][unit]
            pairs.append(
                Pair([float(score)], rows[n][PLANTED[unit]], rows[n][column], 1.0, before[n][0])
            )
        training = [
            pair.label
            for n, pair in zip(complete, pairs, strict=True)
            if rows[n]["t"] < CUT - timedelta(hours=24)
        ]
        figures = distances(pairs, constant=sum(training) / len(training))
        for name in ("rmse", "mae", "rmse_persistence", "rmse_seasonal", "rmse_mean"):
            assert line[name] == pytest.approx(figures[name], rel=1e-5), (line["output"], name)
        judged += [
            pair.scores[0] - pair.label
            for n, pair in zip(complete, pairs, strict=True)
            if rows[n]["t"] >= CUT
        ]
    assert found.rows == len(complete)
    assert best["val_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(judged))), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": {"horizon": ["3h", "24h"]}}, "has 6 outputs, but the loss .* needs 4: one for"),
        (
            {"train": {"loss": {"quantile": [0.1, 0.9]}}},
            "quantile takes one column and horizon, received 6 labels",
        ),
    ],
)
def test_outputs_that_do_not_fit_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    fitted(tmp_path, PLANTED)
    data = config(tmp_path, PLANTED)
    for table, keys in change.items():
        data[table] = {**data[table], **keys}
    with pytest.raises(ConfigError, match=message):
        Pipeline.from_dict(data).fit()
