"""A stateful Keras model that is fed with Pipeline.windows gives what a run gives."""

import os
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
keras: Any = pytest.importorskip("keras", reason="needs the oracles extra")

from streamrnn import Pipeline  # noqa: E402
from streamrnn.states import to_layer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

LANES, STEPS = 5, 8
LOG = logs.random_log(300, streams=11, nulls=0.1, resets=0.04, jitter=3).append_column(
    "n", pa.array(range(300))
)


def stateful(path: Path) -> Any:
    """The model of `path`, whose lanes keep their states from call to call."""
    x = keras.Input((STEPS, 2), batch_size=LANES)
    mask = keras.Input((STEPS,), batch_size=LANES, dtype="bool")
    lstm = keras.layers.LSTM(6, return_sequences=True, stateful=True, name="rnn")
    made = keras.Model([x, mask], keras.layers.Dense(1)(lstm(x, mask=mask)))
    made.set_weights(keras.models.load_model(path).get_weights())
    return made


@pytest.mark.parametrize("seen", [0, 120])
def test_a_stateful_keras_model_gives_what_a_run_gives(seen: int, tmp_path: Path) -> None:
    """Nulls, a rejected value, late rows, resets and gaps among the rows; from a state, too."""
    keras.utils.set_random_seed(7)
    lstm = keras.layers.LSTM(6, return_sequences=True, name="rnn")
    single = keras.Sequential([keras.Input((None, 2)), lstm, keras.layers.Dense(1, name="score")])
    single.save(tmp_path / "m.keras")
    rules = {"nulls": "previous", "late": "reject", "reset": "new", "max_gap": "45m"}
    features = [{"name": "a", "valid": [-2, 2], "nulls": "skip"}, "b"]
    logs.write(LOG.slice(seen), tmp_path / "in" / "0.parquet", row_group=70)
    data = logs.config(
        str(tmp_path / "in"),
        str(tmp_path / "m.keras"),
        str(tmp_path / "out"),
        source={**rules, "features": features, "batch_rows": 50},
        window={"lanes": LANES, "steps": STEPS},
        output={"columns": ["n"]},
    )
    before = Pipeline.from_dict(data)
    before.process(LOG.slice(0, seen))
    pipeline = Pipeline.from_dict(data, state=before.state)
    model = stateful(tmp_path / "m.keras")
    states = model.get_layer("rnn").states
    found: dict[int, float] = {}
    for window in pipeline.windows():
        start = to_layer(pipeline.state, "rnn", window.keys, missing="initial")
        for variable, initial in zip(states, start, strict=True):
            state = np.array(variable)
            state[window.reset] = 0
            state[window.resumes] = initial[window.resumes]
            variable.assign(state)
        mask = window.rows >= 0
        y = np.asarray(model([*window.inputs, mask]))
        rows = window.rows[mask].tolist()
        assert not found.keys() & set(rows)
        found |= dict(zip(rows, y[mask][:, 0].tolist(), strict=True))
    summary = pipeline.run()
    scored = pq.read_table(tmp_path / "out").drop_null()
    assert [row + seen for row in sorted(found)] == scored["n"].to_pylist()
    expected = scored["score"].to_numpy()
    assert len(expected) == summary.rows - summary.rejected - summary.skipped > 100
    assert min(summary.rejected, summary.skipped, summary.fresh_starts) > 4
    np.testing.assert_allclose([found[row] for row in sorted(found)], expected, rtol=0, atol=1e-5)
