"""Models whose layers need one number of steps, or change it, and inputs and outputs of any shape.

No window or sequence reaches a layer that would read beyond it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Input, Model, Pipeline, Sequential, layers, ops, register_layer
from streamrnn.errors import DataError, ModelMismatchError
from streamrnn.nn.models.runners import fixed_steps


def _flat() -> Sequential:
    return Sequential([Input((5, 2)), layers.Flatten(name="flat"), layers.Dense(1, name="y")])


def _nested() -> Model:
    """The layer that depends on the steps is in a model, whose output does not."""
    x = Input((5, 2))
    inner = Sequential([Input((5, 2)), layers.Flatten(name="flat"), layers.Dense(3)], name="inner")
    return Model(x, layers.Dense(1, name="y")(inner(x)))


def _reshaped() -> Sequential:
    return Sequential([Input((6, 2)), layers.Reshape((3, 4)), layers.GRU(2), layers.Dense(1)])


def _of_any_length(kind: str) -> Sequential:
    """A number of steps is declared, but no layer depends on it."""
    first = layers.Conv1D(3, 2, padding="causal") if kind == "conv" else layers.LSTM(3)
    middle = [layers.GRU(2)] if kind == "conv" else []
    return Sequential([Input((5, 2)), first, *middle, layers.Dense(1)])


@pytest.mark.parametrize(("make", "steps"), [(_flat, 5), (_nested, 5), (_reshaped, 6)])
def test_layers_that_depend_on_the_steps(make: Callable[[], Model], steps: int) -> None:
    found = fixed_steps(make())
    assert found is not None
    assert found[0] == steps


@pytest.mark.parametrize("kind", ["conv", "lstm"])
def test_layers_that_do_not(kind: str) -> None:
    assert fixed_steps(_of_any_length(kind)) is None


def _pipeline(made: Model, base: Path, **window: Any) -> Pipeline:
    made.save(base / "m.safetensors")
    paths = str(base / "in"), str(base / "m.safetensors"), str(base / "out")
    return Pipeline.from_dict(logs.config(*paths, window=window))


@pytest.mark.parametrize("make", [_flat, _nested])
@pytest.mark.parametrize("steps", [4, 6, 128])
def test_windows_of_other_steps_are_refused(
    tmp_path: Path, make: Callable[[], Model], steps: int
) -> None:
    """They would read weights, or memory, of others: by `validate` as by `run`."""
    logs.write(logs.random_log(40, streams=3), tmp_path / "in" / "1.parquet")
    messages = set()
    for verb in ("validate", "run"):
        with pytest.raises(ModelMismatchError) as caught:
            getattr(_pipeline(make(), tmp_path, kind="independent", steps=steps), verb)()
        messages.add(str(caught.value))
    (message,) = messages
    assert "accepts windows of 5 steps only, as layer 'flat' (Flatten) depends" in message
    assert message.endswith(f"received {steps}. Set steps = 5")
    assert _pipeline(make(), tmp_path, kind="independent", steps=5).run().rows == 40


def test_sequences_of_another_length_are_refused(tmp_path: Path) -> None:
    """With the first row of the sequence; those of the right length are scored."""
    log = logs.random_log(200, streams=4)
    keys = log["id"].to_pylist()
    rank = [keys[:i].count(key) for i, key in enumerate(keys)]
    whole = {key for key in keys if keys.count(key) >= 5}
    rows = [i for i, key in enumerate(keys) if key in whole and rank[i] < 5]
    logs.write(log.take(rows), tmp_path / "in" / "1.parquet")
    model = _flat()
    assert _pipeline(model, tmp_path, kind="whole").run().rows == 5 * len(whole)
    logs.write(log.take(rows[:-1]), tmp_path / "in" / "1.parquet")
    last = keys[rows[-1]]
    first = [keys[row] for row in rows].index(last)
    text = (
        rf"row {first} .from 0.: stream id='{last}': a sequence of 4 rows begins here, .* 5 steps"
    )
    with pytest.raises(DataError, match=text):
        _pipeline(model, tmp_path, kind="whole").run(full_refresh=True, force=True)


KINDS: list[dict[str, Any]] = [
    {"kind": "carry"},
    {"kind": "whole"},
    {"kind": "independent", "steps": 3, "stride": 1},
]
INDEPENDENT = KINDS[-1]


def _of_numbers(make: Callable[[Any], Any], shape: tuple[int | None, ...] = (3,)) -> Model:
    """A model of one column, whose values make a vector, (B, T)."""
    x = Input(shape, name="x")
    return Model(x, make(x))


def _job(made: Model, base: Path, table: pa.Table, *features: str, **window: Any) -> Pipeline:
    """A pipeline over three columns of numbers and `tokens`."""
    logs.write(table, base / "in" / "1.parquet")
    made.save(base / "m.safetensors")
    paths = str(base / "in"), str(base / "m.safetensors"), str(base / "out")
    source = {"features": list(features)}
    return Pipeline.from_dict(logs.config(*paths, source=source, window=window))


@pytest.mark.parametrize(
    "model",
    [
        _of_numbers(layers.Dense(1, name="y")),
        _of_numbers(lambda x: layers.Dense(1, name="y")(layers.Reshape((3,))(x)), (None,)),
    ],
    ids=["vector", "any length"],
)
def test_a_window_of_one_column_is_a_vector(tmp_path: Path, model: Model) -> None:
    """A Dense reads three rows as three numbers, not each row beyond its end."""
    model.set_weights([np.array([[1], [10], [100]]), np.zeros(1)])
    log = logs.random_log(60, streams=4)
    _job(model, tmp_path, log, "b", **INDEPENDENT).run()
    scores = pq.read_table(tmp_path / "out")["y"].to_pylist()
    keys, values = log["id"].to_pylist(), log["b"].to_pylist()
    for row, key in enumerate(keys):
        past = [values[i] for i in range(row + 1) if keys[i] == key][-3:]
        expected = None if len(past) < 3 else past[0] + 10 * past[1] + 100 * past[2]
        assert scores[row] == expected
    with pytest.raises(ModelMismatchError, match=r"steps: the model .*accepts? windows of"):
        _job(model, tmp_path, log, "b", kind="independent", steps=4).validate()
    with pytest.raises(ModelMismatchError, match=r"input 'x' .* takes a sequence of numbers at"):
        _job(model, tmp_path, log, "b", kind="carry").validate()
    with pytest.raises(
        DataError, match=r"row 0 .* a sequence of \d+ rows begins here, but the mod"
    ):
        _job(model, tmp_path / "whole", log, "b", kind="whole").run()


def test_one_number_is_a_vector_of_one_feature(tmp_path: Path) -> None:
    """Input((1,)): each row by itself, in all kinds."""
    model = _of_numbers(layers.Dense(1, name="y"), (1,))
    model.set_weights([np.array([[2]]), np.ones(1)])
    log = logs.random_log(30, streams=3)
    for window in KINDS:
        base = tmp_path / window["kind"]
        _job(model, base, log, "b", **window).run()
        scores = pq.read_table(base / "out")["y"].to_pylist()
        pairs = zip(scores, log["b"].to_pylist(), strict=True)
        assert {score for score, _ in pairs if score is not None} <= {
            2 * b + 1 for b in range(-3, 4)
        }


@pytest.mark.parametrize("window", KINDS, ids=lambda window: window["kind"])
@pytest.mark.parametrize(
    "make",
    [
        lambda x: ops.stack([x, x], axis=2),
        lambda x: ops.sum(layers.GRU(2)(x), axis=1),
        lambda x: x[:, :, 0],
        layers.TimeDistributed(layers.Reshape((2, 1))),
    ],
    ids=["four axes", "one axis", "no units", "time distributed"],
)
def test_an_output_that_is_no_vector_is_refused(
    tmp_path: Path, make: Callable[[Any], Any], window: dict[str, Any]
) -> None:
    """Before a row is read: its values have no columns."""
    x = Input((None, 2))
    log = logs.random_log(20, streams=2)
    with pytest.raises(ModelMismatchError, match=r"has shape|which has other axes"):
        _job(Model(x, make(x)), tmp_path, log, "a", "b", **window).validate()


@pytest.mark.parametrize("shape", [(), (None, 2, 2)])
def test_an_input_with_other_axes_is_refused(tmp_path: Path, shape: tuple[int | None, ...]) -> None:
    x = Input(shape, name="x")
    model, log = Model(x, layers.Rescaling(2.0)(x)), logs.random_log(20, streams=2)
    for window in KINDS:
        with pytest.raises(ModelMismatchError, match=r"input 'x' has shape .*; a pipeline passes"):
            _job(model, tmp_path, log, "a", "b", **window).validate()


def test_ids_are_no_numbers_of_a_step(tmp_path: Path) -> None:
    """An axis of features is missing in kind carry; in a model inside the model, too."""
    x = Input((1,), dtype="int64", name="x")
    inner = Model(x, [layers.Embedding(9, 2)(x), layers.Dense(1)(ops.cast(x, "float32"))])
    outer = Input((1,), dtype="int64", name="outer")
    table = logs.random_log(20).append_column("token", pa.array(np.arange(20) % 9))
    for model in (inner, Model(outer, inner(outer))):
        with pytest.raises(ModelMismatchError, match=r"cast.*' .* reads the ids of input 'x' as n"):
            _job(model, tmp_path, table, "token", kind="carry").validate()


RESIZING: dict[str, Callable[[Any], Any]] = {
    "valid": layers.Conv1D(1, 2, name="y"),
    "pool": lambda x: layers.Dense(1, name="y")(layers.MaxPooling1D(2)(x)),
    "strides": layers.Conv1D(1, 2, strides=2, padding="same", name="y"),
    "slice": lambda x: layers.Dense(1, name="y")(x[:, 1:]),
    "longer": lambda x: layers.GRU(1, return_sequences=True, name="y")(layers.UpSampling1D()(x)),
}


@pytest.mark.parametrize("name", RESIZING)
def test_an_output_without_a_step_for_each_row_is_refused(tmp_path: Path, name: str) -> None:
    """In kind whole; kind independent takes the last step, as the message says."""
    x, log = Input((None, 2)), logs.random_log(30, streams=3)
    model = Model(x, RESIZING[name](x))
    with pytest.raises(ModelMismatchError, match=r"output 'y' has \d+ steps for a .* of 1000,"):
        _job(model, tmp_path, log, "a", "b", kind="whole").validate()
    assert _job(model, tmp_path, log, "a", "b", **INDEPENDENT).run().rows == 30


def test_a_custom_layer_that_leaves_out_steps_is_refused(tmp_path: Path) -> None:
    """Though its compute_output_shape does not say how many."""

    class Half(layers.Layer):
        def apply(self, inputs: Any, context: Any) -> Any:
            return inputs[:, ::2]

        def compute_output_shape(self, input_shape: Any) -> Any:
            return (input_shape[0], None, input_shape[2])

    register_layer("Half", Half)
    x, log = Input((None, 2)), logs.random_log(30, streams=3)
    with pytest.raises(ModelMismatchError, match=r"output 'y' has \d+ steps for a sequence of"):
        _job(Model(x, Half(name="y")(x)), tmp_path, log, "a", "b", kind="whole").run()


@pytest.mark.parametrize("lanes", [1, 64])
def test_sequences_that_do_not_fit_the_output_are_refused(tmp_path: Path, lanes: int) -> None:
    """However many lanes there are; and those that are too short for a window of a layer."""
    x, log = Input((5, 2)), logs.random_log(40, streams=1)
    decoded = layers.GRU(1, return_sequences=True, name="y")(
        layers.RepeatVector(5)(layers.GRU(2)(x))
    )
    of_five, x = Model(x, decoded), Input((None, 2))
    window = {"kind": "whole", "lanes": lanes}
    for rows in (4, 6):
        text = rf"row 0 .*: a sequence of {rows} rows begins here, but output 'y' has 5 steps for"
        with pytest.raises(DataError, match=text):
            _job(of_five, tmp_path / str(rows), log.slice(0, rows), "a", "b", **window).run()
    assert _job(of_five, tmp_path / "5", log.slice(0, 5), "a", "b", **window).run().rows == 5
    least = Model(x, layers.GRU(1)(layers.Conv1D(2, 4)(x)))
    with pytest.raises(
        DataError, match=r"row 0 .* of 3 rows .*accept it: .* A window needs 4 steps"
    ):
        _job(least, tmp_path / "3", log.slice(0, 3), "a", "b", **window).run()
    with pytest.raises(
        ModelMismatchError, match=r"steps: the model .* of 3 steps: .* needs 4 steps"
    ):
        _job(least, tmp_path, log, "a", "b", kind="independent", steps=3).validate()
