"""Pipeline.windows: the rows that a run scores, in windows for any model."""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Input, Model, Pipeline, Sequential, layers, load_model
from streamrnn.errors import ConfigError, DataError, LateRowError
from streamrnn.pipeline import SourceWindow
from streamrnn.states import to_layer

pytestmark = pytest.mark.usefixtures("workdir")

RULES: dict[str, dict[str, Any]] = {
    "plain": {"nulls": 0.0},
    "previous": {"nulls": "previous"},
    "skip": {"nulls": "skip", "max_gap": "30m"},
    "resets": {"nulls": "previous", "reset": "new", "max_gap": "40m"},
    "values": {
        "features": [
            {"name": "a", "nulls": "skip", "valid": [-1.5, 1.5], "clip": [-1, 1]},
            {"name": "b", "nulls": "previous", "valid": [-2, 2]},
        ],
        "late": "drop",
        "reset": "new",
    },
    "rejects": {"nulls": "error", "bad": "reject", "late": "reject"},
    "late": {"nulls": "previous", "late": "apply"},
    "time": {"nulls": 0.0, "time_features": ["hour"], "order": "time"},
}
SIZES = [{"lanes": 4, "steps": 6}, {"lanes": 1, "steps": 3}, {"lanes": 40, "steps": 100}]


def config(name: str, window: dict[str, int]) -> dict[str, Any]:
    """A pipeline over two files, with small record batches."""
    jitter = 4 if "late" in RULES[name] else 0
    log = logs.random_log(400, nulls=0.1, resets=0.05, jitter=jitter)
    log = log.append_column("n", pa.array(range(400)))
    logs.write(log.slice(0, 170), Path("in/0.parquet"), row_group=37)
    logs.write(log.slice(170), Path("in/1.parquet"), row_group=50)
    features = 4 if "time_features" in RULES[name] else 2
    logs.small_model("LSTM", features=features, stateful=True, return_sequences=True).save(
        "m.safetensors"
    )
    source = {**RULES[name], "batch_rows": 23}
    output = {"columns": ["n"]}
    return logs.config("in", "m.safetensors", "out", source=source, window=window, output=output)


def reset_lanes(layer: Any, reset: np.ndarray, start: list[np.ndarray] | None = None) -> None:
    """Give the lanes with `reset` zeros, or the states in `start`."""
    states = layer.states
    if states is None:
        states = [np.zeros((len(reset), 5), np.float32) for _ in range(2)]
    for i, state in enumerate(states):
        state[reset] = 0 if start is None else start[i][reset]
    layer.set_state(states)


def outputs_of(pipeline: Pipeline) -> tuple[dict[int, float], list[SourceWindow]]:
    """Row -> what our own stateful model gives that is fed with the windows."""
    model: Any = load_model("m.safetensors")
    layer = model.get_layer("rnn")
    found: dict[int, float] = {}
    windows = list(pipeline.windows())
    for window in windows:
        reset_lanes(layer, window.reset)
        if window.resumes.any():
            start = to_layer(pipeline.state, "rnn", window.keys, missing="initial")
            reset_lanes(layer, window.resumes, start)
        y = model(window.inputs, lengths=window.lengths)
        there = window.rows >= 0
        assert not set(window.rows[there].tolist()) & found.keys()
        found |= dict(zip(window.rows[there].tolist(), y[there][:, 0].tolist(), strict=True))
    return found, windows


def rows_of_run() -> dict[int, float]:
    """Row of the source -> the score of a run, where it has one."""
    scored = pq.read_table("out").drop_null()
    return dict(zip(scored["n"].to_pylist(), scored["score"].to_pylist(), strict=True))


@pytest.mark.parametrize("window", SIZES, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_our_own_model_gives_the_bits_of_a_run(name: str, window: dict[str, int]) -> None:
    """Each row that a run scores is in one window; rows without a score are in none."""
    pipeline = Pipeline.from_dict(config(name, window))
    found, windows = outputs_of(pipeline)
    summary = pipeline.run()
    log = pq.read_table("in")
    expected = rows_of_run()
    assert len(expected) > 100
    assert found == expected
    for each in windows:
        assert_well_formed(each, window["lanes"], window["steps"], log)
    counts = pipeline.windows()
    next(counts)
    for count in ("rejected", "skipped", "dropped_late", "filled", "clipped", "out_of_range"):
        assert counts.counts[count] == getattr(summary, count), count


def assert_well_formed(window: SourceWindow, lanes: int, steps: int, log: pa.Table) -> None:
    (x,) = window.inputs
    assert x.shape[:2] == window.rows.shape == (lanes, steps)
    assert x.dtype == np.float32
    there = np.arange(steps) < window.lengths[:, None]
    assert (there == (window.rows >= 0)).all()
    assert not x[~there].any()
    assert window.lengths.any()
    ids = window.keys.column(0).to_pylist()
    for lane in range(lanes):
        rows = window.rows[lane][there[lane]]
        assert {ids[lane]} == (set(log["id"].take(rows).to_pylist()) or {None})
        assert (np.diff(rows) > 0).all()
    assert not window.reset[window.lengths == 0].any()
    assert not (window.resumes & ~window.reset).any()


def test_a_lane_continues_and_takes_the_next_stream_when_its_own_ends() -> None:
    log = pa.table({"id": list("aabaacbd"), "x": np.arange(8.0)})
    logs.write(log, Path("in/0.parquet"))
    model = Sequential([Input((None, 1)), layers.GRU(2, name="rnn")])
    model.save("m.safetensors")
    pipeline = Pipeline.from_dict(
        {
            "source": {"path": "in", "key": "id", "features": ["x"]},
            "window": {"lanes": 2, "steps": 3},
            "model": {"path": "m.safetensors"},
        }
    )
    one, two, three = pipeline.windows()
    assert one.rows.tolist() == [[0, 1, 3], [2, 6, -1]]
    assert one.inputs[0][..., 0].tolist() == [[0, 1, 3], [2, 6, 0]]
    assert one.lengths.tolist() == [3, 2]
    assert one.keys.to_pylist() == [{"id": "a"}, {"id": "b"}]
    assert one.reset.tolist() == [True, True]
    assert two.rows.tolist() == [[4, -1, -1], [5, -1, -1]]
    assert two.keys.to_pylist() == [{"id": "a"}, {"id": "c"}]
    assert two.reset.tolist() == [False, True]
    assert three.rows.tolist() == [[7, -1, -1], [-1, -1, -1]]
    assert three.lengths.tolist() == [1, 0]
    assert three.keys.to_pylist() == [{"id": "d"}, {"id": None}]
    assert three.reset.tolist() == [True, False]


@pytest.mark.parametrize("seen", [40, 150])
def test_streams_resume_from_the_initial_state_and_later_resets_do_not(seen: int) -> None:
    """The second file from the state after the first: as the run over both scores it."""
    data = config("resets", SIZES[0])
    whole = Pipeline.from_dict(data)
    whole.run()
    log = pq.read_table("in")
    expected = rows_of_run()
    first = Pipeline.from_dict({**data, "sink": {}})
    first.process(log.slice(0, seen))
    logs.write(log.slice(seen), Path("rest/0.parquet"))
    data["source"]["path"] = "rest"
    found, windows = outputs_of(Pipeline.from_dict(data, state=first.state))
    assert {row + seen: y for row, y in found.items()} == {
        row: y for row, y in expected.items() if row >= seen
    }
    assert sum(int(window.resumes.sum()) for window in windows) >= 3
    assert sum(int((window.reset & ~window.resumes).sum()) for window in windows) > 10


def test_a_reset_at_a_row_that_is_no_step_counts() -> None:
    """A stream whose first row is a reset and skipped does not resume, in the next batch either."""
    t = pa.array(range(6), pa.timestamp("s"))
    log = pa.table(
        {
            "id": ["a", "b"] * 3,
            "t": t,
            "a": pa.array([1.0, 1.0, None, 2.0, 3.0, 3.0]),
            "b": pa.array([1, 1, None, 2, 3, 3], pa.int32()),
            "new": [False, False, True, False, False, False],
        }
    )
    logs.small_model("LSTM").save("m.safetensors")
    rules = {"nulls": "skip", "reset": "new", "batch_rows": 2}
    data = logs.config("in", "m.safetensors", None, source=rules)
    first = Pipeline.from_dict({**data, "sink": {}})
    first.process(log.slice(0, 2))
    logs.write(log.slice(2), Path("in/0.parquet"))
    data["window"] = {"lanes": 3, "steps": 4}
    (window,) = Pipeline.from_dict(data, state=first.state).windows()
    assert window.keys.column(0).to_pylist() == ["a", "b", None]
    assert window.rows.tolist() == [[2, -1, -1, -1], [1, 3, -1, -1], [-1] * 4]
    assert window.reset.tolist() == [True, True, False]
    assert window.resumes.tolist() == [False, True, False]


def test_several_inputs_with_identifiers() -> None:
    """One array an input, in the model's order; strings and integers are blank behind the end."""
    ids, name, x = Input((None,), dtype="int64"), Input((None,), dtype="string"), Input((None, 1))
    found = layers.StringLookup(vocabulary=["p", "q"])(name)
    joined = layers.Concatenate()([layers.Embedding(9, 3)(ids), layers.Embedding(4, 3)(found), x])
    model = Model([ids, name, x], layers.GRU(2, return_sequences=True)(joined))
    model.save("m.safetensors")
    log = pa.table({"k": [1, 2, 1], "i": [5, 6, 7], "s": ["p", "q", "p"], "x": [0.5, 1.5, 2.5]})
    logs.write(log, Path("in/0.parquet"))
    names = [each for each, _, _ in model.input_specs]
    pipeline = Pipeline.from_dict(
        {
            "source": {"path": "in", "key": "k", "features": ["x", "i", "s"]},
            "window": {"lanes": 2, "steps": 3},
            "model": {
                "path": "m.safetensors",
                "inputs": dict(zip(names, ["i", "s", ["x"]], strict=True)),
            },
        }
    )
    (window,) = pipeline.windows()
    numbers, strings, floats = window.inputs
    assert numbers.tolist() == [[5, 7, 0], [6, 0, 0]]
    assert numbers.dtype == np.int64
    assert strings.tolist() == [["p", "p", ""], ["q", "", ""]]
    assert floats.tolist() == [[[0.5], [2.5], [0]], [[1.5], [0], [0]]]
    assert window.keys.to_pylist() == [{"k": 1}, {"k": 2}]
    assert model(window.inputs).shape == (2, 3, 2)


def test_windows_write_nothing_and_read_all_whatever_has_been_scored() -> None:
    data = config("previous", SIZES[0])
    pipeline = Pipeline.from_dict(data)
    rows = [w.rows.tolist() for w in pipeline.windows()]
    assert not Path("out").exists()
    pipeline.run()
    assert [w.rows.tolist() for w in pipeline.windows()] == rows
    logs.write(pq.read_table("in").slice(0, 0), Path("none/0.parquet"))
    data["source"]["path"] = "none"
    assert list(Pipeline.from_dict(data).windows()) == []


def test_what_stops_a_run_stops_them() -> None:
    data = config("plain", SIZES[0])
    data["source"]["nulls"] = "error"
    with pytest.raises(DataError, match=r"in/0\.parquet: row \d+ .*'a': .*is null"):
        next(Pipeline.from_dict(data).windows())
    data = config("late", SIZES[0])
    data["source"]["late"] = "error"
    with pytest.raises(LateRowError, match="time goes backwards"):
        next(Pipeline.from_dict(data).windows())
    data = config("rejects", SIZES[0])
    data["source"]["max_rejects"] = 3
    with pytest.raises(DataError, match=r"more than .* max_rejects = 3"):
        next(Pipeline.from_dict(data).windows())


def test_what_has_no_lanes_is_refused_at_once() -> None:
    data = config("plain", SIZES[0])
    for kind in ("whole", "independent"):
        data["window"] = {"kind": kind, "steps": 6}
        with pytest.raises(ConfigError, match=f'expected .* kind whose .* received "{kind}"'):
            Pipeline.from_dict(data).windows()
    data["window"] = {}
    del data["source"]["path"]
    with pytest.raises(ConfigError, match=r"\[source\] path is missing"):
        Pipeline.from_dict(data).windows()
