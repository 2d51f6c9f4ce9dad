"""Inputs with steps of their own read the last rows of a window, as predict of Keras does."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing

import logs
import numpy as np
import pyarrow.parquet as pq
import pytest

from streamrnn import Input, Model, Pipeline, layers, load_model, optimizers
from streamrnn.errors import DataError, ModelMismatchError
from streamrnn.nn.kernels.random import key_of, permutation

keras = pytest.importorskip("keras", reason="needs the oracles extra")
# Keras 3.15 and NumPy 2.4: said by Keras of itself.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LOG = logs.random_log(240, streams=4)
IDS = LOG["id"].to_numpy(zero_copy_only=False)
X = np.column_stack([LOG["a"].to_numpy(), LOG["b"].to_numpy()]).astype(np.float32)
LAST = {"past": ["a", "b"], "future": {"features": "b", "steps": 4}}


def _ends(past: Any, future: Any) -> Any:
    k = keras.layers
    both = k.Concatenate()([k.LSTM(3)(past), k.Dense(2)(k.Flatten()(future))])
    return k.Dense(1, name="y")(both)


def _decoder(past: Any, future: Any) -> Any:
    """A step of output for each row of the future, from the state after the past."""
    k = keras.layers
    _, h, c = k.LSTM(3, return_state=True)(past)
    decoded = k.LSTM(3, return_sequences=True)(future, initial_state=[h, c])
    return k.Dense(1, name="y")(decoded)


def _model(make: Any, path: Path, steps: tuple[int | None, int | None] = (8, 4)) -> Any:
    past = keras.Input((steps[0], 2), name="past")
    future = keras.Input((steps[1], 1), name="future")
    keras.utils.set_random_seed(3)
    model = keras.Model([past, future], make(past, future))
    model.set_weights(
        [np.random.default_rng(5).normal(0, 0.7, w.shape) for w in model.get_weights()]
    )
    model.save(path)
    return model


def _tables(base: Path, inputs: Any, **window: Any) -> Any:
    source = logs.write(LOG, base / "log.parquet", row_group=50)
    tables = logs.config(source, str(base / "m.keras"), str(base / "out"), window=window)
    return {**tables, "model": {**tables["model"], "inputs": inputs}}


def _check(base: Path, model: Any, inputs: Any, windows: Any, **window: Any) -> None:
    found = _tables(base, inputs, **window)
    parts = []
    for number, rows in enumerate((64, 7)):
        cut = {
            "source": {**found["source"], "batch_rows": rows},
            "sink": {"path": str(base / "out")},
        }
        Pipeline.from_dict({**found, **cut}).run(full_refresh=number > 0, force=True)
        parts.append(pq.read_table(base / "out"))
    got, other = parts
    assert got.equals(other)
    names = got.column_names[2:]
    assert names == (["y"] if model.output.ndim == 2 else [f"y_{n}" for n in (1, 2, 3, 4)])
    expected = np.full((len(X), len(names)), np.nan)
    for rows in windows:
        arrays = [X[None, rows], X[None, rows[-4:], 1:]]
        expected[rows[-1]] = model.predict(arrays, verbose=0).ravel()
    values = np.array([got[name].to_pylist() for name in names], float).T
    assert np.isfinite(values).any()
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (_ends, (8, 4)),
        (_ends, (None, 4)),
        *((_decoder, of) for of in ((8, 4), (None, 4), (8, None))),
    ],
)
def test_each_window_is_what_predict_gives(tmp_path: Path, make: Any, steps: Any) -> None:
    windows = []
    for key in np.unique(IDS):
        rows = np.flatnonzero(key == IDS)
        windows += [rows[first : first + 8] for first in range(0, len(rows) - 7, 3)]
    model = _model(make, tmp_path / "m.keras", steps)
    _check(tmp_path, model, LAST, windows, kind="independent", steps=8, stride=3)


@pytest.mark.parametrize("make", [_ends, _decoder])
def test_each_stream_is_what_predict_gives(tmp_path: Path, make: Any) -> None:
    model = _model(make, tmp_path / "m.keras", (None, 4))
    windows = [np.flatnonzero(key == IDS) for key in np.unique(IDS)]
    _check(tmp_path, model, LAST, windows, kind="whole", lanes=3)


@pytest.mark.parametrize("kind", ["carry", "independent", "whole"])
def test_without_steps_they_are_refused(tmp_path: Path, kind: str) -> None:
    _model(_decoder, tmp_path / "m.keras")
    found = _tables(tmp_path, {"past": ["a", "b"], "future": "b"}, kind=kind, steps=8)
    text = r"numbers of steps of their own \(past: 8, future: 4.* future = \{ .*, steps = 4 \}"
    for verb in ("validate", "explain", "run"):
        with pytest.raises(ModelMismatchError, match=text):
            getattr(Pipeline.from_dict(found), verb)()


@pytest.mark.parametrize("window", [{"kind": "independent", "steps": 8}, {"kind": "whole"}])
def test_beside_an_input_of_any_number_they_are_refused(tmp_path: Path, window: Any) -> None:
    _model(_ends, tmp_path / "m.keras", (None, 4))
    found = _tables(tmp_path, {"past": ["a", "b"], "future": "b"}, **window)
    text = r"own \(future: 4\).* future = \{ .*, steps = 4 \}"
    with pytest.raises(ModelMismatchError, match=text):
        Pipeline.from_dict(found).validate()
    found["window"] = {"kind": "independent", "steps": 4}
    Pipeline.from_dict(found).validate()


@pytest.mark.parametrize(
    ("inputs", "window", "text"),
    [
        (
            {**LAST, "future": {"features": "b", "steps": 3}},
            {},
            r"past: 8, future: 4.*: future = \{ .*, steps = 4 \}",
        ),
        (LAST, {"steps": 3}, "windows of 3 steps: an input reads the last 4 rows"),
        (LAST, {"kind": "carry"}, 'kind carry, .* kind = "independent" or "whole"'),
    ],
)
def test_steps_that_cannot_be_read(tmp_path: Path, inputs: Any, window: Any, text: str) -> None:
    _model(_decoder, tmp_path / "m.keras")
    window = {"kind": "independent", "steps": 8, **window}
    with pytest.raises(ModelMismatchError, match=text):
        Pipeline.from_dict(_tables(tmp_path, inputs, **window)).validate()


def test_a_stream_that_is_too_short_is_refused(tmp_path: Path) -> None:
    _model(_decoder, tmp_path / "m.keras")
    found = _tables(tmp_path, LAST, kind="whole")
    logs.write(LOG.slice(0, 3), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"begins here, .* an input reads the last 4 rows"):
        Pipeline.from_dict(found).run()


def test_a_fit_trains_on_the_last_rows(tmp_path: Path) -> None:
    """The same weights, bit for bit, as train_on_batch with these rows."""
    past, future = Input((8, 2), name="past"), Input((4, 1), name="future")
    joined = layers.Concatenate()([layers.GRU(3)(past), layers.GRU(2)(future)])
    model = Model([past, future], layers.Dense(1)(joined))
    model.save(tmp_path / "init.safetensors")
    found = _tables(tmp_path, LAST, kind="independent", steps=8, stride=3, lanes=6)
    found["model"]["path"] = str(tmp_path / "m.safetensors")
    found["target"] = {"column": "a", "rows": 1}
    found["train"] = {
        "init": str(tmp_path / "init.safetensors"),
        "epochs": 2,
        "burn_in": 0,
        "scale_target": False,
        "schedule": "constant",
        "optimizer": {"name": "adam", "learning_rate": 0.01},
    }
    Pipeline.from_dict(found).fit()
    windows, labels = [], []
    for key in dict.fromkeys(IDS):
        rows = np.flatnonzero(key == IDS)
        for first in range(0, len(rows) - 7, 3):
            windows.append(rows[first : first + 8])
            labels.append(X[rows[first + 8], 0] if first + 8 < len(rows) else np.nan)
    index, truth = np.array(windows), np.array(labels, np.float32)
    model.compile(optimizers.Adam(0.01), "mse")
    for epoch in range(2):
        order = permutation(key_of(0, epoch), len(index))
        order = order[np.isfinite(truth)[order]]
        for begin in range(0, len(order), 6):
            batch = order[begin : begin + 6]
            model.train_on_batch([X[index[batch]], X[index[batch, -4:], 1:]], truth[batch])
    fitted = load_model(tmp_path / "m.safetensors")
    for one, two in zip(fitted.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
