"""What `validate` and `explain` report from footers, the model and the config, without rows."""

import json
import re
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Input, Model, Pipeline, Sequential, layers

LOG = logs.random_log(rows=200, streams=5)


def _model(mean: Any = (0.0, 0.0), deviation: float = 1.0) -> Sequential:
    scaling = layers.Normalization(mean=list(mean), variance=[deviation**2] * 2)
    return Sequential([Input((None, 2), name="x"), scaling, layers.GRU(3, name="gru")])


@pytest.fixture
def pipeline(workdir: Path) -> Any:
    """Make a pipeline over `in` with features a and b, and a model with a Normalization."""

    def make(made: Any = None, **tables: Any) -> Pipeline:
        (made or _model()).save("m.safetensors")
        return Pipeline.from_dict(logs.config("in", "m.safetensors", "out", **tables))

    return make


def _with(column: str, values: Any, mask: Any = None) -> pa.Table:
    index = LOG.column_names.index(column)
    return LOG.set_column(index, LOG.schema.field(column), pa.array(values, mask=mask))


def test_features_are_described_over_all_files(pipeline: Any) -> None:
    """Nulls, minimum and maximum equal those of the rows, in several files and row groups."""
    nulls = np.arange(200) % 7 == 0
    table = _with("a", LOG["a"].to_numpy(), nulls)
    logs.write(table.slice(0, 90), Path("in/1.parquet"), row_group=25)
    logs.write(table.slice(90), Path("in/2.parquet"), row_group=40)
    found = pipeline(_model((0.5, 2.0), 4.0)).feature_statistics()
    a, b = (table[name].to_numpy() for name in "ab")
    assert found == [
        {
            "name": "a",
            "type": "float32",
            "rows": 200,
            "nulls": int(nulls.sum()),
            "minimum": np.nanmin(a),
            "maximum": np.nanmax(a),
            "mean": 0.5,
            "deviation": 4.0,
        },
        {
            "name": "b",
            "type": "float32",
            "rows": 200,
            "nulls": 0,
            "minimum": b.min(),
            "maximum": b.max(),
            "mean": 2.0,
            "deviation": 4.0,
        },
    ]


def test_no_row_is_read(pipeline: Any) -> None:
    """The data pages may be garbage: only the footer is read."""
    path = Path(logs.write(LOG, Path("in/1.parquet")))
    data = bytearray(path.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little") + 8
    data[4:-footer] = b"\xff" * (len(data) - footer - 4)
    path.write_bytes(data)
    job = pipeline()
    assert [item["rows"] for item in job.feature_statistics()] == [200, 200]
    assert job.validate() == []
    assert job.explain()["rows"] == 200


def test_nulls_are_reported_if_they_stop_the_run(pipeline: Any) -> None:
    """With nulls = "error" only; with bad = "reject" the rows are rejected."""
    logs.write(_with("a", LOG["a"].to_numpy(), np.arange(200) == 3), Path("in/1.parquet"))
    (note,) = pipeline().validate()
    assert note.startswith("feature 'a': 1 null in 200 rows, and nulls = \"error\": a run stops")
    assert pipeline().explain()["notes"] == [note]
    (note,) = pipeline(source={"bad": "reject"}).validate()
    assert "their rows are rejected" in note
    assert pipeline(source={"nulls": 0}).validate() == []


def test_values_outside_valid_are_reported(pipeline: Any) -> None:
    logs.write(_with("a", np.linspace(-3, 5, 200)), Path("in/1.parquet"))
    features = [{"name": "a", "valid": [-2, 4.5], "nulls": "skip"}, "b"]
    (note,) = pipeline(source={"features": features}).validate()
    assert note == (
        "feature 'a': minimum -3 and maximum 5 outside valid = [-2, 4.5]: such values are treated "
        'as null, and nulls = "skip"'
    )
    features = [{"name": "a", "valid": [-3, 5]}, "b"]
    assert pipeline(source={"features": features}).validate() == []


@pytest.mark.parametrize(
    ("feature", "warned"),
    [
        ({}, True),
        ({"valid": [-9, 9], "nulls": 0}, False),  # null to the model
        ({"valid": [-9, 99], "nulls": 0}, True),
        ({"clip": [-9, 9]}, False),  # limited on purpose
        ({"clip": [-9, 80]}, True),
    ],
)
def test_values_far_from_the_mean_are_reported(
    pipeline: Any, feature: dict[str, Any], warned: bool
) -> None:
    """More than six deviations from the model's mean: in another unit, most likely."""
    logs.write(_with("a", np.linspace(-1, 50, 200)), Path("in/1.parquet"))
    features = [{"name": "a", **feature}, "b"]
    job = pipeline(_model((1.0, 0.0), 2.0), source={"features": features})
    notes = [note for note in job.validate() if "deviations" in note]
    assert len(notes) == warned
    if warned:
        assert notes[0].startswith(
            "feature 'a': 50 is 24 deviations from the mean of the model's Normalization (1, "
            "deviation 2)"
        )
    assert not any(
        "deviations" in note for note in pipeline(_model((1.0, 0.0), 9.0)).validate()
    )  # 5.4 deviations


def test_what_has_no_statistics_is_not_guessed(pipeline: Any) -> None:
    """Parquet without statistics, and Arrow files: neither a number nor a warning."""
    Path("in").mkdir()
    pq.write_table(LOG, "in/1.parquet", write_statistics=False)
    job = pipeline(_model((90.0, 0.0)))
    assert job.validate() == []
    (a, _) = job.feature_statistics()
    assert (a["rows"], a["nulls"], a["minimum"], a["mean"]) == (0, None, None, 90.0)
    Path("in/1.parquet").unlink()
    with pa.OSFile("in/1.arrow", "wb") as file, pa.ipc.new_file(file, LOG.schema) as writer:
        writer.write_table(LOG)
    job = pipeline(source={"format": "arrow"})
    assert job.validate() == []
    assert job.feature_statistics()[0]["nulls"] is None


def test_a_feature_that_is_a_partition_has_its_value(pipeline: Any) -> None:
    for value in (3, 12):
        logs.write(LOG.drop_columns(["b"]), Path(f"in/b={value}/1.parquet"))
    found = pipeline(source={"late": "apply"}).feature_statistics()[1]
    assert (found["nulls"], found["minimum"], found["maximum"]) == (0, 3, 12)


def test_every_input_of_the_model_is_listed_with_its_columns(pipeline: Any) -> None:
    """Ids and time features too; an id has nulls, and a range if it is a number."""
    ids, x = Input((None,), dtype="int64", name="ids"), Input((None, 3), name="x")
    both = layers.Concatenate()([layers.Embedding(9, 4)(ids), x])
    model = Model([ids, x], layers.GRU(3)(both))
    table = LOG.append_column("token", pa.array(np.arange(200) % 9))
    logs.write(table, Path("in/1.parquet"))
    plan = pipeline(
        model,
        source={"features": ["token", "a"], "time_features": ["hour"]},
        model={"inputs": {"ids": "token", "x": ["a", "hour_sin", "hour_cos"]}},
    ).explain()
    assert plan["inputs"] == [
        {"name": "ids", "type": "int64", "shape": [None], "columns": ["token"]},
        {
            "name": "x",
            "type": "float32",
            "shape": [None, 3],
            "columns": ["a", "hour_sin", "hour_cos"],
        },
    ]
    (token, _) = plan["features"]
    assert (token["name"], token["type"], token["minimum"], token["maximum"]) == (
        "token",
        "int64",
        0,
        8,
    )


def _names(value: Any) -> set[str]:
    """Return all keys of a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()


def test_a_plan_is_json_with_numbers_and_lists(pipeline: Any) -> None:
    """Keys are in snake case, sizes are integers, and nothing is changed by JSON."""
    logs.write(LOG, Path("in/1.parquet"))
    job = pipeline()
    for run in (False, True):
        if run:
            job.run()
        plan = job.explain()
        assert json.loads(json.dumps(plan)) == plan
        assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in _names(plan))
        assert type(plan["state_bytes_per_stream"]) is int
        assert type(plan["memory"]["total"]) is int
    assert plan["resume"]["commit"] == 1
    assert (plan["resume"]["rows"], plan["resume"]["streams"]) == (200, 5)
    assert (plan["new_files"], plan["vanished_files"]) == (0, 0)
