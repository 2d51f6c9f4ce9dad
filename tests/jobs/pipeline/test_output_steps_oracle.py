"""A decoder of Keras, whose output steps are not its input steps, has a column for each of them."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing

import logs
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.nn.formats.convert import convert

keras = pytest.importorskip("keras", reason="needs the oracles extra")
# Keras 3.15 and NumPy 2.4: said by Keras of itself.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LOG = logs.random_log(240, streams=4)
IDS = LOG["id"].to_numpy(zero_copy_only=False)
X = np.column_stack([LOG["a"].to_numpy(), LOG["b"].to_numpy()]).astype(np.float32)
Array = npt.NDArray[np.float32]


def _decoder(units: int, steps: int | None = 8) -> Any:
    k = keras.layers
    return [
        keras.Input((steps, 2)),
        k.LSTM(4),
        k.RepeatVector(4),
        k.LSTM(3, return_sequences=True),
        k.Dense(units, name="y"),
    ]


def _reshaped(units: int, steps: int | None = 8) -> Any:
    k = keras.layers
    return [keras.Input((steps, 2)), k.GRU(4), k.Dense(4 * units), k.Reshape((4, units), name="y")]


def _flat(units: int, steps: int | None = 8) -> Any:
    """Its layers accept this number of steps alone."""
    k = keras.layers
    stack = [keras.Input((steps, 2)), k.Flatten(), k.Dense(4 * units)]
    return [*stack, k.Reshape((4, units), name="y")]


def _model(layers: Any, path: Path) -> Any:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(layers)
    model.set_weights(
        [np.random.default_rng(5).normal(0, 0.7, w.shape) for w in model.get_weights()]
    )
    model.save(path)
    return model


def _expected(model: Any, windows: Any) -> tuple[Array, list[str]]:
    """What predict gives for these rows, at the last of them, by unit and then by step."""
    units = model.output_shape[-1]
    expected = np.full((len(X), 4 * units), np.nan, np.float32)
    for rows in windows:
        y = model.predict(X[None, rows], verbose=0)[0]
        expected[rows[-1]] = [y[step, unit] for unit in range(units) for step in range(4)]
    of = ["y"] if units == 1 else [f"y_{unit}" for unit in range(units)]
    return expected, [f"{name}_{step}" for name in of for step in (1, 2, 3, 4)]


def _windows(steps: int, stride: int) -> Any:
    for key in np.unique(IDS):
        rows = np.flatnonzero(key == IDS)
        for first in range(0, len(rows) - steps + 1, stride):
            yield rows[first : first + steps]


def _check(base: Path, path: Path, window: dict[str, Any], expected: Array, names: Any) -> None:
    source = logs.write(LOG, base / "log.parquet", row_group=50)
    tables = logs.config(source, str(path), str(base / "out"), window=window)
    Pipeline.from_dict({**tables, "source": {**tables["source"], "batch_rows": 64}}).run()
    got = pq.read_table(base / "out")
    assert got.column_names[-len(names) :] == names
    values = np.array([got[name].to_pylist() for name in names], float).T
    assert np.isfinite(values).any()
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("make", [_decoder, _reshaped, _flat])
def test_each_window_has_all_steps_of_predict(
    tmp_path: Path, make: Any, units: int, ending: str
) -> None:
    model = _model(make(units), tmp_path / f"m.{ending}")
    window = {"kind": "independent", "steps": 8, "stride": 3}
    _check(tmp_path, tmp_path / f"m.{ending}", window, *_expected(model, _windows(8, 3)))


@pytest.mark.parametrize("steps", [8, None])
@pytest.mark.parametrize("make", [_decoder, _reshaped])
def test_the_last_row_of_a_stream_has_all_steps_of_predict(
    tmp_path: Path, make: Any, steps: int | None
) -> None:
    model = _model(make(2, steps), tmp_path / "m.keras")
    streams = (np.flatnonzero(key == IDS) for key in np.unique(IDS))
    _check(tmp_path, tmp_path / "m.keras", {"kind": "whole"}, *_expected(model, streams))


def test_keras_gives_what_a_run_of_a_fitted_decoder_writes(tmp_path: Path) -> None:
    """Its Rescaling, a number for each step and unit, is written as Keras reads it."""
    minute = [(IDS[:row] == key).sum() * 60_000_000 for row, key in enumerate(IDS)]
    times = pa.array(minute, pa.int64()).cast(LOG.schema.field("t").type)
    source = logs.write(LOG.set_column(1, "t", times), tmp_path / "log.parquet")
    tables = logs.config(
        source,
        str(tmp_path / "m.safetensors"),
        str(tmp_path / "out"),
        window={"kind": "independent", "steps": 8, "stride": 3, "lanes": 4},
        target={"column": ["b", "a"], "horizon": ["1m", "2m", "3m", "4m"]},
        train={"epochs": 1},
    )
    tables["model"]["layers"] = [
        {"type": "GRU", "units": 4},
        {"type": "RepeatVector", "n": 4},
        {"type": "GRU", "units": 3, "return_sequences": True},
        {"type": "Dense", "units": 2},
    ]
    Pipeline.from_dict(tables).fit()
    convert(tmp_path / "m.safetensors", tmp_path / "m.keras")
    expected, names = _expected(keras.saving.load_model(tmp_path / "m.keras"), _windows(8, 3))
    del tables["model"]["layers"]
    tables["output"] = {"names": names}
    Pipeline.from_dict(tables).run()
    got = pq.read_table(tmp_path / "out")
    values = np.array([got[name].to_pylist() for name in names], float).T
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)
