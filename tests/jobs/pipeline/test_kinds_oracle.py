"""The kinds independent and whole give what Keras gives for the same windows and sequences."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline

keras = pytest.importorskip("keras", reason="needs the oracles extra")
# Keras 3.15 and NumPy 2.4: said by Keras of itself.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KINDS = ("Bidirectional", "Attention", "AdditiveAttention", "MultiHeadAttention")


def _model(path: Path, kind: str, sequences: bool) -> Any:
    """A model that reads a sequence in both directions, which kind carry refuses."""
    x = keras.Input((None, 2))
    if kind == "Bidirectional":
        y = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=sequences))(x)
    else:
        y = keras.layers.LSTM(4, return_sequences=True)(x)
        heads = kind == "MultiHeadAttention"
        y = (
            keras.layers.MultiHeadAttention(2, 3)(y, y)
            if heads
            else getattr(keras.layers, kind)()([y, y])
        )
        y = y if sequences else keras.layers.GlobalAveragePooling1D()(y)
    model = keras.Model(x, keras.layers.Dense(1, name="y")(y))
    keras.utils.set_random_seed(3)
    model.set_weights(
        [np.random.default_rng(5).normal(0, 0.5, w.shape) for w in model.get_weights()]
    )
    model.save(path)
    return model


def _run(tmp_path: Path, table: pa.Table, window: dict[str, Any]) -> pa.Table:
    source = logs.write(table, tmp_path / "log.parquet", row_group=50)
    config = logs.config(
        source,
        str(tmp_path / "m.keras"),
        str(tmp_path / "out"),
        window=window,
        source={"batch_rows": 64},
    )
    Pipeline.from_dict(config).run()
    return pq.read_table(tmp_path / "out")


def _streams(table: pa.Table) -> dict[str, np.ndarray]:
    """Row numbers of each stream."""
    ids = table.column("id").to_numpy()
    return {key: np.flatnonzero(ids == key) for key in np.unique(ids)}


def _features(table: pa.Table) -> np.ndarray:
    return np.column_stack([table.column(n).to_numpy() for n in "ab"]).astype(np.float32)


@pytest.mark.parametrize("stride", [7, 3, 10])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_fixed_windows(tmp_path: Path, stride: int, sequences: bool, kind: str) -> None:
    table = logs.random_log(300, streams=6)
    model = _model(tmp_path / "m.keras", kind, sequences)
    got = _run(tmp_path, table, {"kind": "independent", "steps": 7, "stride": stride})
    expected: list[float | None] = [None] * 300
    windows = np.array(
        [
            rows[first : first + 7]
            for rows in _streams(table).values()
            for first in range(0, len(rows) - 6, stride)
        ]
    )
    y = np.asarray(model(_features(table)[windows])).reshape(len(windows), -1)[:, -1]
    for row, value in zip(windows[:, -1], y, strict=True):
        expected[row] = float(value)
    values = got.column("y").to_pylist()
    assert [v is None for v in values] == [v is None for v in expected]
    pairs = [(v, e) for v, e in zip(values, expected, strict=True) if e is not None]
    assert len(pairs) > 15
    np.testing.assert_allclose(*np.transpose(pairs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_streams(tmp_path: Path, sequences: bool, kind: str) -> None:
    table = logs.random_log(90, streams=3)
    model = _model(tmp_path / "m.keras", kind, sequences)
    got = _run(tmp_path, table, {"kind": "whole"}).column("y")
    x = _features(table)
    for rows in _streams(table).values():
        y = np.asarray(model(x[rows][None]))
        values = got.take(rows).to_pylist()
        if sequences:
            np.testing.assert_allclose(values, y[0, :, 0], rtol=0, atol=1e-5)
        else:
            assert values[:-1] == [None] * (len(rows) - 1)
            assert values[-1] == pytest.approx(float(y[0, 0]), abs=1e-5)
