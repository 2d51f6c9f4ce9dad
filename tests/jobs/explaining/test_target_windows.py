"""Pipeline.windows with [target]: labels and weights, against the oracle."""

import io
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import logs
import naive_labels
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from selection import first_quick

from streamrnn import Input, Pipeline, Sequential, layers
from streamrnn.errors import ConfigError, DataError, DTypeError
from streamrnn.pipeline import SourceWindow

pytestmark = pytest.mark.usefixtures("model_dir")

ROWS = 400
RULES: dict[str, dict[str, Any]] = {
    "plain": {"nulls": 0.0},
    "skip": {"nulls": "skip", "max_gap": "6m"},
    "resets": {"nulls": "previous", "reset": "new", "max_gap": "9m"},
    "rejects": {"nulls": "error", "bad": "reject", "late": "reject", "reset": "new"},
    "dropped": {"nulls": 0.0, "late": "drop", "repeated": "skip"},
    "applied": {"nulls": 0.0, "late": "apply", "reset": "new", "max_gap": "9m"},
}
TARGETS: list[dict[str, Any]] = [
    {"column": "a"},
    {"column": ["x", "b"], "horizon": "3m", "weight": "w"},
    {"column": "x", "horizon": "11m"},
    {"column": ["x", "b"], "horizon": ["5m", "1m", "11m"], "weight": "w"},
    {"column": ["x", "flag"], "rows": 2, "weight": "w"},
]


def log(name: str) -> pa.Table:
    """Rows of few streams; those with late rows have some; x, flag and w are in no feature."""
    late = RULES[name].get("late", "error") != "error"
    table = logs.random_log(ROWS, streams=4, nulls=0.1, resets=0.04, jitter=4 if late else 0)
    rng = np.random.default_rng(3)
    x = pa.array(rng.normal(size=ROWS), mask=rng.random(ROWS) < 0.2)
    flag = pa.array(rng.random(ROWS) < 0.5, mask=rng.random(ROWS) < 0.1)
    w = pa.array(rng.integers(0, 4, ROWS), mask=rng.random(ROWS) < 0.1)
    for column, values in (("x", x), ("flag", flag), ("w", w)):
        table = table.append_column(column, values)
    return table


def config(name: str, target: dict[str, Any], **keys: Any) -> dict[str, Any]:
    source = {**RULES[name], **keys}
    window = {"lanes": 5, "steps": 7}
    return logs.config("in", "m.safetensors", "out", source=source, window=window, target=target)


def expected(
    table: pa.Table, name: str, target: dict[str, Any]
) -> tuple[dict[int, list[float]], dict[int, float]]:
    """Row -> labels, NaN for none; row -> weight."""
    rows, rules = table.to_pylist(), RULES[name]

    def invalid(row: dict[str, Any]) -> bool:
        return rules["nulls"] == "error" and None in (row["a"], row["b"])

    late, repeated = rules.get("late", "error"), rules.get("repeated", "score")
    streams = naive_labels.kept_streams(rows, "id", "t", late, repeated, invalid)
    names = [target["column"]] if isinstance(target["column"], str) else target["column"]
    horizon = target.get("horizon")
    each = [
        naive_labels.labels(
            rows,
            streams,
            [column],
            time="t",
            horizon=_minutes(ahead),
            ahead=target.get("rows", 0),
            reset=rules.get("reset"),
            max_gap=_minutes(rules.get("max_gap")),
        )
        for column in names
        for ahead in (horizon if isinstance(horizon, list) else [horizon])
    ]
    found = {n: [of[n][0] for of in each] for n in each[0]}
    labels = {n: [np.nan if v is None else float(v) for v in values] for n, values in found.items()}
    weights = {}
    for n, values in labels.items():
        weight = rows[n]["w"] or 0 if "weight" in target else 1
        weights[n] = 0.0 if np.isnan(values).any() else float(weight)
    return labels, weights


def _minutes(text: str | None) -> timedelta | None:
    return None if text is None else timedelta(minutes=int(text.removesuffix("m")))


def labels_of(windows: list[SourceWindow]) -> tuple[dict[int, list[float]], dict[int, float]]:
    labels: dict[int, list[float]] = {}
    weights: dict[int, float] = {}
    for window in windows:
        assert window.y is not None
        assert window.weight is not None
        assert window.y.dtype == window.weight.dtype == np.float32
        assert window.y.shape[:2] == window.weight.shape == window.rows.shape
        valid = window.rows >= 0
        assert np.isnan(window.y[~valid]).all()
        assert not window.weight[~valid].any()
        assert not window.weight[np.isnan(window.y).any(axis=2)].any()
        rows = window.rows[valid].tolist()
        labels |= dict(zip(rows, window.y[valid].tolist(), strict=True))
        weights |= dict(zip(rows, window.weight[valid].tolist(), strict=True))
    return labels, weights


@pytest.mark.parametrize("name", first_quick(RULES, 3))
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    target=st.sampled_from(TARGETS),
    batch_rows=st.integers(3, 150),
    cuts=st.lists(st.integers(0, ROWS), max_size=4),
    group=st.integers(10, 200),
)
def test_labels_are_those_of_the_oracle_however_files_and_batches_are_cut(
    name: str, target: dict[str, Any], batch_rows: int, cuts: list[int], group: int
) -> None:
    """Late, rejected and skipped rows, resets and gaps among them; streams never meet.

    Slow: further rules.
    """
    table = log(name)
    for file in Path().glob("in/*"):
        file.unlink()
    ends = [*sorted(cuts), ROWS]
    for i, (first, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        logs.write(table.slice(first, end - first), Path(f"in/{i}.parquet"), row_group=group)
    windows = list(Pipeline.from_dict(config(name, target, batch_rows=batch_rows)).windows())
    labels, weights = labels_of(windows)
    assert len(labels) > 200
    wanted, wanted_weights = expected(table, name, target)
    assert labels.keys() <= wanted.keys()
    if RULES[name]["nulls"] not in ("skip", "previous"):
        assert labels.keys() == wanted.keys()
    found, right = (np.float32([each[n] for n in labels]) for each in (labels, wanted))
    np.testing.assert_array_equal(found, right)
    assert weights == {n: wanted_weights[n] for n in labels}
    if isinstance(target.get("horizon"), list):  # few rows of this log have a label at each one
        assert np.isfinite(found).any(axis=0).all()
    else:
        assert 0 < sum(weight > 0 for weight in weights.values()) <= len(weights)


def test_windows_are_the_same_without_labels() -> None:
    """[target] changes nothing else, and a run does not read its columns."""
    logs.write(log("resets"), Path("in/0.parquet"))
    plain = Pipeline.from_dict(config("resets", {}))
    labelled = Pipeline.from_dict(config("resets", TARGETS[1]))
    for a, b in zip(plain.windows(), labelled.windows(), strict=True):
        assert a.y is None
        assert a.weight is None
        assert b.y is not None
        np.testing.assert_array_equal(a.inputs[0], b.inputs[0])
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.reset, b.reset)
    assert plain.run().rows == ROWS
    written = pq.read_table("out")
    Path("in/1.parquet").write_bytes(Path("in/0.parquet").read_bytes())
    pq.write_table(log("resets").drop_columns(["x", "flag", "w"]), "in/0.parquet")
    Path("in/1.parquet").unlink()
    assert Pipeline.from_dict(config("resets", TARGETS[1])).run().rows == 0
    assert pq.read_table("out") == written


def test_all_columns_and_none(tmp_path: Path) -> None:
    """With [output] columns = "*" all columns are read anyway; a source without rows is empty."""
    table = log("plain")
    logs.write(table, Path("in/0.parquet"))
    data = config("plain", TARGETS[1])
    one = labels_of(list(Pipeline.from_dict(data).windows()))
    data["output"] = {"columns": "*"}
    two = labels_of(list(Pipeline.from_dict(data).windows()))
    np.testing.assert_equal(one, two)
    logs.write(table.slice(0, 0), Path("none/0.parquet"))
    data["source"]["path"] = "none"
    assert list(Pipeline.from_dict(data).windows()) == []


def test_rows_without_a_time_column() -> None:
    """The file order counts; `rows` needs no time."""
    table = pa.table({"k": list("abab"), "a": [1.0, 2.0, 3.0, 4.0]})
    logs.write(table, Path("in/0.parquet"))
    model = Sequential([Input((None, 1)), layers.GRU(2, name="rnn")])
    model.save("one.safetensors")
    data: dict[str, Any] = {
        "source": {"path": "in", "key": "k", "features": ["a"]},
        "window": {"lanes": 2, "steps": 2},
        "model": {"path": "one.safetensors"},
        "target": {"column": "a", "rows": 1},
    }
    (window,) = Pipeline.from_dict(data).windows()
    np.testing.assert_array_equal(window.y, [[[3], [np.nan]], [[4], [np.nan]]])
    assert window.weight is not None
    assert window.weight.tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize(("column", "name"), [("a", "a"), ("w", "weight")])
def test_a_label_or_weight_beyond_float32_is_refused(column: str, name: str) -> None:
    rows: dict[str, list[Any]] = {"k": list("abab")}
    rows |= {feature: [1.0, 2.0, 3.0, 4.0] for feature in "abw"}
    rows[column][2] = 1e39
    logs.write(pa.table(rows), Path("in/0.parquet"))
    model = Sequential([Input((None, 1)), layers.GRU(2, name="rnn")])
    model.save("one.safetensors")
    data: dict[str, Any] = {
        "source": {"path": "in", "key": "k", "features": ["b"]},
        "model": {"path": "one.safetensors"},
        "target": {"column": "a", "weight": "w"},
    }
    message = rf"\[target\]: '{name}' of row 2 \(from 0\).*range of float32, received 1e\+39"
    with pytest.raises(DataError, match=message):
        list(Pipeline.from_dict(data).windows())


def test_a_stream_on_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    table, buffer = log("plain"), io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(buffer.getvalue())))
    data = config("plain", TARGETS[1])
    data["source"]["path"] = "-"
    labels, _ = labels_of(list(Pipeline.from_dict(data).windows()))
    wanted, _ = expected(table, "plain", TARGETS[1])
    assert labels.keys() == wanted.keys()
    np.testing.assert_array_equal([labels[n] for n in wanted], np.float32(list(wanted.values())))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"column": "xx"}, DataError, r"in/0\.parquet: column 'xx' not found. Did you mean 'x'"),
        ({"column": "x", "weight": "ww"}, DataError, r"column 'ww' not found. Did you mean 'w'"),
        (
            {"column": "id"},
            DTypeError,
            r"in/0\.parquet: \[target\] column: column 'id': expected number or boolean, "
            r"received string\. Number its classes from 0",
        ),
        (
            {"column": "x", "weight": "id"},
            DTypeError,
            r"\[target\] weight: column 'id': expected number or boolean",
        ),
        (
            {"column": "x", "horizon": "1us2ms"},
            DTypeError,
            r"\[target\] horizon: column 't': expected a multiple of 1ms, as its type is "
            r"timestamp\[ms\], received 2ms1us",
        ),
    ],
)
def test_what_cannot_be_a_label_is_refused_before_it_is_read(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    """By windows, and by validate."""
    table = log("plain")
    if "horizon" in change:
        table = table.set_column(1, "t", table["t"].cast(pa.timestamp("ms")))
    logs.write(table, Path("in/0.parquet"))
    pipeline = Pipeline.from_dict(config("plain", change))
    with pytest.raises(error, match=message):
        pipeline.windows()
    with pytest.raises(error, match=message):
        pipeline.validate()


@pytest.mark.parametrize(
    ("kind", "horizon", "labels"),
    [
        (pa.date32(), "2d", [2.0, 3.0, None, None]),
        (pa.date64(), "2d", [2.0, 3.0, None, None]),
        (pa.timestamp("ns"), "48h", [2.0, 3.0, None, None]),
        (pa.timestamp("s"), "1w", [None, None, None, None]),
    ],
    ids=str,
)
def test_a_horizon_in_each_type_of_time(
    kind: pa.DataType, horizon: str, labels: list[float | None]
) -> None:
    days = pa.array([date(2024, 1, 1 + day) for day in range(4)]).cast(kind)
    table = pa.table({"id": ["a"] * 4, "t": days, "a": [0.0, 1, 2, 3], "b": [0.0, 1, 2, 3]})
    logs.write(table, Path("in/0.parquet"))
    data = config("plain", {"column": "a", "horizon": horizon})
    (window,) = Pipeline.from_dict(data).windows()
    assert window.y is not None
    found = [None if np.isnan(v) else v for v in window.y[0, :4, 0].tolist()]
    assert found == labels


@pytest.mark.parametrize(("key", "advice"), [("horizon", "Set rows"), ("season", "Remove season")])
@pytest.mark.parametrize("kind", [pa.int64(), pa.date32()], ids=str)
def test_a_length_that_the_times_cannot_have_is_refused(
    kind: pa.DataType, key: str, advice: str
) -> None:
    table = pa.table({"id": ["a"], "t": pa.array([1], pa.int32()).cast(kind), "a": [0.0], "b": [0]})
    logs.write(table, Path("in/0.parquet"))
    pipeline = Pipeline.from_dict(config("plain", {"column": "a", key: "3h"}))
    expected = (
        f"a timestamp or a date, received int64. {advice}"
        if kind == pa.int64()
        else ("a multiple of 1d, as its type is date32")
    )
    with pytest.raises(DTypeError, match=rf"\[target\] {key}: column 't': expected {expected}"):
        pipeline.windows()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("x", float("inf"), r"\[target\] column: column 'x': expected a finite number or null, "),
        ("w", -1.0, r"\[target\] weight: column 'w': expected a finite number, 0 or more"),
        ("w", float("nan"), r"expected a finite number, 0 or more, received nan"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_row(
    column: str, value: float, message: str
) -> None:
    table = log("plain").to_pydict()
    table[column] = [value if row == 123 else 1.0 for row in range(ROWS)]
    logs.write(pa.table(table), Path("in/0.parquet"), row_group=50)
    pipeline = Pipeline.from_dict(config("plain", {"column": "x", "weight": "w"}, batch_rows=40))
    with pytest.raises(DataError, match=rf"in/0\.parquet: row 123 .*stream id=.*{message}"):
        list(pipeline.windows())


def test_the_value_of_a_rejected_row_is_not_looked_at() -> None:
    table = log("rejects").to_pydict()
    table["x"] = [float("inf") if a is None else 1.0 for a in table["a"]]
    logs.write(pa.table(table), Path("in/0.parquet"))
    windows = list(Pipeline.from_dict(config("rejects", {"column": "x"})).windows())
    ys = [window.y[window.rows >= 0, 0] for window in windows if window.y is not None]
    assert {*np.concatenate(ys).tolist()} == {1}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            {"column": "x", "horizon": "3h", "rows": 2},
            r"target\.rows: horizon is set too; remove one of the two",
        ),
        ({"horizon": "3h"}, r"target\.horizon: needs target\.column, the column of the labels"),
        ({"season": "24h"}, r"target\.season: needs target\.column, the column of the labels"),
        ({"column": "x", "season": 24}, r'target\.season: expected a duration such as "6h"'),
        ({"rows": 3}, r"target\.rows: needs target\.column"),
        ({"weight": "w"}, r"target\.weight: needs target\.column"),
        ({"column": []}, r"target\.column: expected at least one name, received an empty list"),
        ({"column": ["x", "x"]}, r"target\.column: .*is given more than once"),
        (
            {"column": "x", "horizon": 3},
            r'target\.horizon: expected a duration such as "3h", a list of them, or 0, received '
            r"the integer 3; "
            r"a number of rows is set by target\.rows",
        ),
        (
            {"column": "x", "horizon": ["3h", 3]},
            r'target\.horizon: expected a duration such as "3h", a list of them, or 0',
        ),
        (
            {"column": "x", "horizon": []},
            r"target\.horizon: expected one or more durations above zero, or 0 alone",
        ),
        (
            {"column": "x", "horizon": ["1d", "24h"]},
            r"target\.horizon: expected each duration once, received the list",
        ),
        ({"column": "x", "horizon": "3 apples"}, r"target\.horizon: expected a duration such as"),
        ({"column": "x", "rows": -1}, r"target\.rows: expected an integer from 0"),
        ({"horizons": "3h"}, r'target\.horizons: unknown key; did you mean "horizon"'),
    ],
)
def test_a_target_that_is_invalid_is_refused(target: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipeline.from_dict(config("plain", target))


def test_a_horizon_and_a_season_need_a_time_column() -> None:
    data = config("plain", {"column": "x", "horizon": "3h"})
    del data["source"]["time"]
    with pytest.raises(ConfigError, match=r"target\.horizon: needs source\.time, .*or set rows"):
        Pipeline.from_dict(data)
    data["target"] = {"column": "x", "season": "24h"}
    with pytest.raises(ConfigError, match=r"target\.season: needs source\.time, the column"):
        Pipeline.from_dict(data)


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        ("x", {"rename": {"x": "old"}}),
        ("a", {"features": [{"name": "a", "from": ["old"], "valid": [-1, 1]}, "b"]}),
    ],
)
def test_a_renamed_column_may_be_a_target(column: str, keys: dict[str, Any]) -> None:
    """As it is in the files: what is set for a feature does not change a label."""
    table = log("plain")
    logs.write(table.slice(0, 200), Path("in/0.parquet"))
    names = ["old" if name == column else name for name in table.column_names]
    logs.write(table.slice(200).rename_columns(names), Path("in/1.parquet"))
    target = {**TARGETS[2], "column": column}
    labels, _ = labels_of(list(Pipeline.from_dict(config("plain", target, **keys)).windows()))
    wanted, _ = expected(table, "plain", target)
    np.testing.assert_array_equal([labels[n] for n in wanted], np.float32(list(wanted.values())))


@pytest.mark.parametrize("init", [False, True])
def test_files_that_are_left_out_give_no_rows_and_no_labels(init: bool) -> None:
    """By [source] after, or because the initial state has seen them."""
    table = log("plain")
    logs.write(table.slice(0, 150), Path("in/0.parquet"))
    target = {"column": "x", "rows": 1}
    data = config("plain", target)
    if init:
        Pipeline.from_dict({**data, "sink": {"path": "first"}}).run()
        data["state"] = {"init": "first"}
    else:
        data["source"]["after"] = {"path": "in/0.parquet"}
    logs.write(table.slice(150), Path("in/1.parquet"))
    labels, _ = labels_of(list(Pipeline.from_dict(data).windows()))
    wanted, _ = expected(table.slice(150), "plain", target)
    assert labels.keys() == wanted.keys()
    np.testing.assert_array_equal([labels[n] for n in wanted], np.float32(list(wanted.values())))


def test_classes_and_flags_are_numbers() -> None:
    """Integers of any width and decimals as they are, booleans as 0 and 1."""
    kinds = [pa.int8(), pa.uint64(), pa.decimal128(25, 2), pa.float32(), pa.bool_()]
    columns = {f"y{i}": pa.array([0, 1, None, 1]).cast(kind) for i, kind in enumerate(kinds)}
    plain = {"id": ["s"] * 4, "t": pa.array(range(4)), "a": [0.0] * 4, "b": [0.0] * 4}
    logs.write(pa.table({**plain, **columns}), Path("in/0.parquet"))
    (window,) = Pipeline.from_dict(config("plain", {"column": list(columns)})).windows()
    assert window.y is not None
    assert window.weight is not None
    for k in range(len(kinds)):
        np.testing.assert_array_equal(window.y[0, :4, k], [0, 1, np.nan, 1])
    assert window.weight[0].tolist() == [1, 1, 0, 1, 0, 0, 0]
