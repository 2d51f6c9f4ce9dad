"""What is written for a model of fixed steps gives what predict gives in its own framework."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamrnn
from streamrnn import Pipeline
from streamrnn.errors import ModelMismatchError
from streamrnn.pipeline import draft_pipeline

keras = pytest.importorskip("keras", reason="needs the oracles extra")
torch = pytest.importorskip("torch", reason="needs the oracles extra")
# Keras 3.15 and NumPy 2.4, and the exporter of torch: said by them of themselves.
pytestmark = pytest.mark.filterwarnings("ignore")

WEATHER = Path(__file__).parents[3] / "data" / "weather.parquet"
FEATURES = ["temp", "dewp", "humid", "pressure"]
STEPS = 24
Windows = npt.NDArray[np.float32]


def _log(path: Path) -> pa.Table:
    """Two airports of the weather log, without nulls, their hours side by side."""
    rows = pq.read_table(WEATHER, columns=["origin", "time_hour", *FEATURES]).drop_null()
    parts = [rows.filter(pa.compute.equal(rows["origin"], name))[:400] for name in ("EWR", "LGA")]
    log = pa.concat_tables(parts).sort_by("time_hour")
    pq.write_table(log, path)
    return log


def _keras(path: Path) -> Any:
    keras.utils.set_random_seed(3)
    scale = keras.layers.Normalization(mean=[55, 40, 62, 1018], variance=[300, 370, 380, 55])
    rnn, head = keras.layers.LSTM(8), keras.layers.Dense(1, name="y")
    made = keras.Sequential([keras.Input((STEPS, 4)), scale, rnn, head])
    native = path.suffix == ".safetensors"
    made.save(path.with_suffix(".keras") if native else path)
    if native:
        streamrnn.load_model(path.with_suffix(".keras")).save(path)
    return lambda x: np.asarray(made.predict(x, verbose=0))


class _Torch(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.rnn, self.head = torch.nn.GRU(4, 8, batch_first=True), torch.nn.Linear(8, 1)
        self.rnn.weight_hh_l0.data *= 4  # it remembers more than a window

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn((x - x.new_tensor([55, 40, 62, 1018])) / 20)[0][:, -1])


def _torch(path: Path) -> Any:
    made = _Torch().eval()
    torch.onnx.export(
        made,
        (torch.zeros(2, STEPS, 4),),
        path,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        dynamo=False,
    )
    return lambda x: made(torch.from_numpy(x)).detach().numpy()


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.safetensors", "m.onnx"])
def test_the_first_answer_is_what_predict_gives(tmp_path: Path, name: str) -> None:
    """Without a kind it is refused; `init` writes the answer; carry is another forecast."""
    log, path = _log(tmp_path / "log.parquet"), tmp_path / name
    predict = (_torch if path.suffix == ".onnx" else _keras)(path)
    tables: dict[str, Any] = {
        "source": {
            "path": str(tmp_path / "log.parquet"),
            "key": "origin",
            "time": "time_hour",
            "features": FEATURES,
        },
        "model": {"path": str(path)},
        "output": {"names": ["y"]},
        "sink": {"path": str(tmp_path / "out")},
    }
    with pytest.raises(ModelMismatchError, match=f"steps = {STEPS}, stride = 1: what predict"):
        Pipeline.from_dict(tables).run()
    draft = draft_pipeline(tmp_path / "log.parquet", path, str(tmp_path / "out"))
    (tmp_path / "p.toml").write_text(draft.text)
    Pipeline.from_toml(tmp_path / "p.toml", ['output.names=["y"]']).run()
    got = pq.read_table(tmp_path / "out")
    values = np.array(got["y"].to_pylist(), float)
    x = np.column_stack([log[name].to_numpy() for name in FEATURES]).astype(np.float32)
    expected = np.full(len(x), np.nan)
    for origin in ("EWR", "LGA"):
        (rows,) = np.nonzero(log["origin"].to_numpy(zero_copy_only=False) == origin)
        ends = np.arange(STEPS - 1, len(rows))
        windows: Windows = x[rows[ends[:, None] + np.arange(1 - STEPS, 1)]]
        expected[rows[ends]] = predict(windows)[:, 0]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=2e-5)
    carried = {**tables, "window": {"kind": "carry"}, "sink": {"path": str(tmp_path / "carry")}}
    Pipeline.from_dict(carried).run()
    other = pq.read_table(tmp_path / "carry")["y"].to_numpy()
    assert np.nanmax(np.abs(other - expected)) > 1e-3
