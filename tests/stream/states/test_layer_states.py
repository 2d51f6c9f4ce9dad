"""The keyed state to and from a layer: rows, order, missing keys, and what is refused."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pytest

import streamrnn
from streamrnn import Pipeline, Sequential, StateTable, layers, register_layer
from streamrnn.errors import ConfigError, DTypeError, ShapeError, StateError
from streamrnn.states import Layout, from_layer, to_layer

ID = pa.field("id", pa.string())
NAMES = ["a", "b", "c"]


def table(columns: dict[str, int] | None = None, initial: Any = None) -> StateTable:
    """Three streams, with random states, steps, times and a previous value."""
    columns = columns or {"lstm/h": 3, "lstm/c": 3, "top/gru/h": 2}
    layout = Layout(
        (ID,), pa.int64(), columns, previous={"x": pa.float32()}, fingerprint="f", layers={"l": 1}
    )
    found = StateTable(layout, initial)
    slots = found.find([pa.array(NAMES)])
    rng = np.random.default_rng(7)
    drawn = {n: rng.normal(size=(3, size)).astype(np.float32) for n, size in columns.items()}
    found.scatter(slots, drawn)
    found.advance(
        slots, slots + 5, slots * 100, {"x": (np.ones(3, np.float32), slots < 2)}, slots > 0
    )
    return found


def values(name: str) -> np.ndarray:
    return np.array(table().to_arrow().column(name).to_pylist(), np.float32)


def both(found: StateTable) -> list[Any]:
    """As a StateTable and in Arrow, in chunks and another order of columns."""
    arrow = found.to_arrow()
    odd = pa.concat_tables([arrow.slice(0, 1), arrow.slice(1)]).select(arrow.column_names[::-1])
    return [found, odd]


@pytest.mark.parametrize("form", [0, 1])
def test_rows_are_those_of_the_keys_in_their_order(form: int) -> None:
    given = both(table())[form]
    h, c = to_layer(given, "lstm", ["c", "a", "c"])
    assert h.tobytes() == values("lstm/h")[[2, 0, 2]].tobytes()
    assert c.tobytes() == values("lstm/c")[[2, 0, 2]].tobytes()
    h[:] = 0  # a copy
    assert to_layer(given, "lstm", ["a"])[0].any()
    assert to_layer(given, "top/gru", ["b"])[0].tobytes() == values("top/gru/h")[1].tobytes()
    assert to_layer(given, "lstm", [])[0].shape == (0, 3)


@pytest.mark.parametrize("framework", ["keras", "streamrnn", "torch", "onnx"])
@pytest.mark.parametrize("form", [0, 1])
def test_there_and_back_is_the_same_table(framework: str, form: int) -> None:
    """And only what is given changes: the states of these streams, in place of others."""
    given, arrow = both(table())[form], table().to_arrow()
    found = to_layer(given, "lstm", ["c", "a"], framework=framework)
    same = from_layer(given, "lstm", ["c", "a"], found, framework=framework)
    assert same.select(arrow.column_names).equals(arrow, check_metadata=True)
    moved = from_layer(given, "lstm", ["a", "b"], found, framework=framework)
    for name in arrow.column_names:
        if not name.startswith("lstm/"):
            assert moved.column(name).combine_chunks() == arrow.column(name).combine_chunks()
        else:
            wanted = values(name)[[2, 0, 2]]
            assert (
                np.array(moved.column(name).to_pylist(), np.float32).tobytes() == wanted.tobytes()
            )
    assert (given if form else given.to_arrow()).select(arrow.column_names) == arrow


def test_frameworks_arrange_the_same_numbers() -> None:
    h, c = to_layer(table(), "lstm", ["b", "a"])
    one = to_layer(table(), "lstm", ["b", "a"], framework="torch")
    assert isinstance(one, tuple)
    assert [a.tolist() for a in one] == [[h.tolist()], [c.tolist()]]
    feed = to_layer(table(), "lstm", ["b", "a"], framework="onnx")
    assert {n: a.tolist() for n, a in feed.items()} == {
        "initial_h": [h.tolist()],
        "initial_c": [c.tolist()],
    }
    assert to_layer(table(), "top/gru", ["b"], framework="torch").shape == (1, 1, 2)
    deep = table({"l0/h": 3, "l1/h": 3, "l0/c": 3, "l1/c": 3})
    h, c = to_layer(deep, ["l1", "l0"], ["b", "a"], framework="torch")
    for name, array in (("h", h), ("c", c)):
        for number, layer in enumerate(["l1", "l0"]):
            column = deep.to_arrow([1, 0]).column(f"{layer}/{name}").to_pylist()  # type: ignore[arg-type]
            assert array[number].tolist() == column
    same = from_layer(deep, ["l1", "l0"], ["b", "a"], (h, c), framework="torch")
    assert same == deep.to_arrow()


def test_cells_of_a_stack_come_by_number_and_states_of_a_cell_by_name() -> None:
    """Not in the order of columns: h before c, cell 2 before cell 10."""
    columns = {"r/10/c": 1, "r/10/h": 1, "r/2/h": 2, "r/y": 1} | {f"q/s{i}": 1 for i in (10, 2, 1)}
    found = table(columns)
    arrow = found.to_arrow()
    nested = to_layer(found, "r", NAMES)
    order = [["r/2/h"], ["r/10/h", "r/10/c"]]
    assert [[a.tolist() for a in cell] for cell in nested] == [
        [arrow.column(name).to_pylist() for name in cell] for cell in order
    ]
    flat = to_layer(found, "q", NAMES)
    assert [a.tolist() for a in flat] == [arrow.column(f"q/s{i}").to_pylist() for i in (1, 2, 10)]
    assert from_layer(found, "q", NAMES, flat) == arrow


def test_the_output_that_a_cell_holds_comes_last_or_is_zero() -> None:
    found = table({"r/s0": 2, "r/y": 3, "r2/s0": 1, "r2/y": 1})
    arrow = found.to_arrow()
    s, y = to_layer(found, "r", NAMES, framework="streamrnn")
    assert y.tolist() == arrow.column("r/y").to_pylist()
    assert len(to_layer(found, "r", NAMES)) == 1
    assert from_layer(found, "r", NAMES, [s, y], framework="streamrnn") == arrow
    for framework in ("streamrnn", "keras"):
        moved = from_layer(found, "r", ["b"], [s[1:2]], framework=framework)
        assert moved.column("r/y").to_pylist() == [y[0].tolist(), [0, 0, 0], y[2].tolist()]
        assert moved.column("r2/y") == arrow.column("r2/y")


def test_a_missing_key_is_an_error_or_gets_what_was_chosen() -> None:
    half = {n: np.full(s, 0.5, np.float32) for n, s in table().layout.states.items()}
    found = table(initial=half)
    with pytest.raises(StateError, match=r"row 1 \(from 0\): stream id='z': .*1 of 2.*missing="):
        to_layer(found, "lstm", ["a", "z"])
    h, _ = to_layer(found, "lstm", ["a", "z", None], missing="initial")
    assert h[0].tobytes() == values("lstm/h")[0].tobytes()
    assert h[1:].tolist() == [[0.5] * 3] * 2
    for given in both(found):
        h, _ = to_layer(given, "lstm", ["z", "a"], missing="zeros")
        assert h.tolist() == [[0] * 3, values("lstm/h")[0].tolist()]
    with pytest.raises(StateError, match="initial state of a stream is not in an Arrow table"):
        to_layer(found.to_arrow(), "lstm", ["z"], missing="initial")
    assert len(found) == 3


def test_a_missing_key_is_added_without_a_step_or_a_time() -> None:
    half = {n: np.full(s, 0.5, np.float32) for n, s in table().layout.states.items()}
    found, new = table(initial=half), [np.ones((2, 3), np.float32)] * 2
    with pytest.raises(StateError, match=r"stream id='z': not in the state table"):
        from_layer(found, "lstm", ["a", "z"], new)
    for missing, other in (("initial", 0.5), ("zeros", 0.0)):
        last = from_layer(found, "lstm", ["a", "z"], new, missing=missing).to_pylist()[-1]
        assert last == {
            "id": "z", "steps": 0, "last_time": None, "lstm/h": [1.0] * 3, "lstm/c": [1.0] * 3,
            "top/gru/h": [other] * 2, "previous/x": None,
        }  # fmt: skip
    arrow = found.to_arrow()
    with pytest.raises(StateError, match="initial state of a stream is not in an Arrow table"):
        from_layer(arrow, "lstm", ["z"], [a[:1] for a in new], missing="initial")
    assert from_layer(arrow, "lstm", ["z"], [a[:1] for a in new], missing="zeros").num_rows == 4
    alone = table({"lstm/h": 3, "lstm/c": 3}).to_arrow()
    assert from_layer(alone, "lstm", ["z"], [a[:1] for a in new], missing="initial").num_rows == 4


class Frame:
    """A DataFrame, as pandas and Polars have it."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows, self.shape = rows, rows.shape

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.column_names)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._rows.__arrow_c_stream__(requested_schema)


def test_keys_of_several_columns_are_tuples_or_tables() -> None:
    layout = Layout((ID, pa.field("day", pa.timestamp("s"))), None, {"gru/h": 1})
    found = StateTable(layout)
    days = [datetime(2024, 1, 1), datetime(2024, 1, 2)]
    keys = [pa.array(["a", "a"]), pa.array(days, pa.timestamp("s"))]
    slots = found.find(keys)
    found.scatter(slots, {"gru/h": np.array([[1], [2]], np.float32)})
    wanted = [[2.0], [1.0]]
    rows = [("a", days[1]), ("a", days[0])]
    other = pa.table({"day": pa.array(days[::-1]), "n": [1, 2], "id": pa.array(["a"] * 2)})
    for given in (rows, [list(r) for r in rows], other, other.to_batches()[0], Frame(other)):
        assert to_layer(found, "gru", given)[0].tolist() == wanted
    with pytest.raises(DTypeError, match=r"row 0 \(from 0\): expected a tuple \(id, day\)"):
        to_layer(found, "gru", ["a"])
    with pytest.raises(StateError, match="expected one column 'day', received id"):
        to_layer(found, "gru", other.select(["id"]))


def test_keys_may_be_arrays_of_other_types_that_lose_nothing() -> None:
    wanted = to_layer(table(), "lstm", ["b", "a"])[0].tolist()
    views = pa.chunked_array([["b"], ["a"]], pa.large_string())
    for keys in (np.array(["b", "a"]), pa.array(["b", "a"]), views, ("b", "a")):
        assert to_layer(table(), "lstm", keys)[0].tolist() == wanted
    for wrong in ([1, 2], pa.array([1, 2]), "ba", 7, {"id": ["b", "a"]}, {"b", "a"}):
        with pytest.raises(DTypeError, match=r"^keys: "):
            to_layer(table(), "lstm", wrong)


GOOD = [np.zeros((2, 3), np.float32)] * 2


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ([GOOD[0]], {}, ShapeError, r"states must be 2 \(lstm/h, lstm/c\), received 1"),
        ([GOOD[0], GOOD[0][:1]], {}, ShapeError, r"lstm/c: .*\(2, 3\), one row per key"),
        ([GOOD[0], GOOD[0][:, :2]], {}, ShapeError, r"received \(2, 2\)"),
        ([g.astype(np.float64) for g in GOOD], {}, DTypeError, "in float32, received float64"),
        ([GOOD[0], np.array([[0, 0, 0], [0, np.nan, 0]], np.float32)], {}, StateError,
         r"row 1 \(from 0\): stream id='b': lstm/c: .*received NaN"),
        (GOOD, {"keys": ["a", "a"]}, StateError, r"row 1 .*expected each stream once, but row 0"),
        (GOOD, {"keys": ["a", None]}, StateError, r"row 1 .*: key is null"),
        (GOOD, {"layer": "lst"}, StateError, r"of layer 'lst'.*a state: lstm, top/gru"),
        (GOOD, {"layer": "top"}, StateError, r"no state of layer 'top'"),
        (GOOD, {"framework": "jax"}, ConfigError, '"keras", "streamrnn", "torch" or "onnx"'),
        (GOOD, {"missing": "zero"}, ConfigError, '"error", "initial" or "zeros", received \'zero'),
        (GOOD, {"framework": "torch"}, ShapeError, r"num_layers: expected shape \(1, batch"),
        (GOOD[0], {"framework": "torch"}, ShapeError, "expected h and c of shape .*received 1"),
        (GOOD, {"framework": "onnx"}, ConfigError, "a mapping with initial_h and initial_c"),
        ({"initial_h": GOOD[0], "initial_c": GOOD[0]}, {"framework": "onnx"}, ShapeError,
         r"initial_h: num_directions: expected shape \(1, batch, size\)"),
        (GOOD, {"framework": "torch", "layer": ["lstm", "top/gru"]}, ConfigError,
         "expected the states h, or h and c, for PyTorch, received h, c; h"),
        (GOOD, {"framework": "onnx", "layer": ["lstm"] * 2}, ConfigError, "expected one layer"),
    ],
)  # fmt: skip
def test_what_cannot_be_these_states_is_refused(
    given: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    layer, keys = options.pop("layer", "lstm"), options.pop("keys", ["a", "b"])
    with pytest.raises(error, match=message):
        from_layer(table(), layer, keys, given, **options)


def test_layers_that_a_framework_does_not_have_are_refused() -> None:
    found = table({"r/s0": 2, "a/h": 1, "b/h": 2})
    for framework in ("torch", "onnx"):
        with pytest.raises(ConfigError, match="expected the states h, or h and c"):
            to_layer(found, "r", ["a"], framework=framework)
    with pytest.raises(ConfigError, match=r"expected states of one size .*received 1, 2"):
        to_layer(found, ["a", "b"], ["a"], framework="torch")
    with pytest.raises(StateError, match="Layers with a state: none"):
        to_layer(StateTable(Layout((ID,), None, {})), "r", [])


class Total(layers.Cell):
    """Adds up; what it gives is no state, so that it is held for masked steps."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def call(self, inputs: Any, states: Any) -> Any:
        total = states[0] + inputs
        return -total, [total]


def recurrent(kind: str) -> Any:
    if kind == "stack":
        cells = [layers.LSTMCell(3), layers.GRUCell(4)]
        return layers.RNN(cells, return_sequences=True, stateful=True, name="rnn")
    if kind == "custom":
        return layers.RNN(Total(2), return_sequences=True, stateful=True, name="rnn")
    layer = getattr(layers, kind)
    return layer(4, return_sequences=True, stateful=True, name="rnn")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN", "PeepholeLSTM", "stack", "custom"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_layer_here_goes_on_from_the_state_of_a_pipeline_and_back(
    kind: str, masked: bool, tmp_path: Path
) -> None:
    """With the bits of the pipeline; with a mask the cell's last output goes with the state."""
    if kind == "PeepholeLSTM":
        cell = layers.PeepholeLSTMCell(4)
        layer = layers.RNN(cell, return_sequences=True, stateful=True, name="rnn")
    else:
        layer = recurrent(kind)
    masking = [layers.Masking(0.0)] if masked else []
    model = Sequential([layers.Input((None, 2)), *masking, layer])
    rng = np.random.default_rng(11)
    model.set_weights([rng.normal(0, 0.6, w.shape).astype(np.float32) for w in model.get_weights()])
    if kind == "custom":
        register_layer("Total", Total)
    model.save(tmp_path / "m.safetensors")
    x = rng.normal(size=(3, 10, 2)).astype(np.float32)
    x[:, 5] = 0  # masked, if anything is: the first step of the second half
    rows = pa.table(
        {"id": pa.array(NAMES * 10), "a": x[:, :, 0].T.ravel(), "b": x[:, :, 1].T.ravel()}
    )
    config = {
        "source": {"key": "id", "features": ["a", "b"]},
        "model": {"path": str(tmp_path / "m.safetensors")},
    }
    pipeline = Pipeline.from_dict(config)
    pipeline.process(rows.slice(0, 15))
    start = pipeline.state.to_arrow()
    scored = pipeline.process(rows.slice(15))
    outputs = np.stack([scored.column(n) for n in scored.column_names[1:]], axis=-1)
    expected = outputs.reshape(5, 3, -1).swapaxes(0, 1)
    layer.set_state(to_layer(start, "rnn", NAMES, framework="streamrnn"))
    found = model(x[:, 5:])
    assert found.astype(np.float32).tobytes() == np.ascontiguousarray(expected).tobytes()
    if not (masked and kind == "custom"):  # whose first step gives what is held
        layer.reset_state()
        again = layer(
            np.asarray(x[:, 5:]),
            initial_state=to_layer(start, "rnn", NAMES),
            mask=(x[:, 5:] != 0).any(axis=2) if masked else None,
        )
        assert np.asarray(again)[:, 1:].tobytes() == np.ascontiguousarray(expected[:, 1:]).tobytes()
        layer.set_state(None)
        layer.set_state(to_layer(start, "rnn", NAMES, framework="streamrnn"))
        model(x[:, 5:])
    final = layer.get_state() if masked else layer.states
    moved = from_layer(start, "rnn", NAMES, final, framework="streamrnn")
    columns = [n for n in moved.column_names if n.startswith("rnn/")]
    assert moved.select(columns) == pipeline.state.to_arrow().select(columns)
    assert any("/y" in n for n in columns) == (masked and kind == "custom")


def test_streams_scored_elsewhere_begin_a_pipeline(tmp_path: Path) -> None:
    """There is no table yet: the pipeline's own, without streams, has the columns."""
    logs.small_model().save(tmp_path / "m.safetensors")
    data = logs.config("x", str(tmp_path / "m.safetensors"), None)
    data["source"].pop("path")
    log = logs.random_log(60, streams=3)
    expected = Pipeline.from_dict(data)
    expected.process(log.slice(0, 30))
    keys = expected.state.to_arrow().column("id")
    elsewhere = to_layer(expected.state, "rnn", keys)
    blank = Pipeline.from_dict(data)
    blank.process(log.slice(0, 0))
    start = from_layer(blank.state, "rnn", keys, elsewhere, missing="initial")
    found = Pipeline.from_dict(data, state=start).process(log.slice(30))
    assert found == expected.process(log.slice(30))


def test_they_are_names_of_the_package() -> None:
    assert streamrnn.states.to_layer is to_layer
    assert streamrnn.states.from_layer is from_layer
