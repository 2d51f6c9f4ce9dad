"""The weather pipeline with the model as Keras, PyTorch and ONNX have it: the same forecasts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.nn.formats.convert import Difference, convert

ROOT = Path(__file__).parents[2]
ORIGINS = {"keras": "h5py", "torch": "numpy", "onnx": "onnx"}


def run(file: str, out: Path) -> pa.Table:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        Pipeline.from_toml(file, [f"sink.path={out}"]).run()
    return pa.concat_tables([pq.read_table(part) for part in sorted(out.glob("*.parquet"))])


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return run("pipelines/weather.toml", tmp_path_factory.mktemp("weather") / "out")


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_same_forecasts(origin: str, native: pa.Table, tmp_path: Path) -> None:
    pytest.importorskip(ORIGINS[origin], reason="needs the extra")
    made = run(f"pipelines/weather_{origin}.toml", tmp_path / "out")
    assert made.drop_columns("temp_3h").equals(native.drop_columns("temp_3h"))
    ours, theirs = (np.asarray(t["temp_3h"].combine_chunks()) for t in (made, native))
    assert np.isnan(ours).sum() == np.isnan(theirs).sum() == 3 * 24
    np.testing.assert_allclose(ours, theirs, atol=1e-3)  # degrees F, carried over 8,700 steps


def test_the_same_forecasts_from_the_model_as_onnx(native: pa.Table, tmp_path: Path) -> None:
    """`streamrnn convert` writes it; the graph's state is found, without `[model] state`."""
    pytest.importorskip("onnx", reason="needs the extra")
    convert(ROOT / "pipelines" / "weather" / "model.safetensors", tmp_path / "m.onnx")
    lines = (ROOT / "pipelines" / "weather_onnx.toml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("state = ")]
    file = tmp_path / "p.toml"
    file.write_text("\n".join(kept).replace("pipelines/origins/weather.onnx", f"{tmp_path}/m.onnx"))
    made = run(str(file), tmp_path / "out")
    assert made.drop_columns("temp_3h").equals(native.drop_columns("temp_3h"))
    ours, theirs = (np.asarray(t["temp_3h"].combine_chunks()) for t in (made, native))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-3)


def test_what_keras_recorded(tmp_path: Path) -> None:
    """`streamrnn convert pipelines/origins/weather.keras m.safetensors --check …/check.npz`"""
    pytest.importorskip("h5py", reason="needs the keras extra")
    origins = ROOT / "pipelines" / "origins"
    source, check = origins / "weather.keras", origins / "check.npz"
    _, (difference,) = convert(source, tmp_path / "m.safetensors", check=check)
    assert isinstance(difference, Difference)
    assert difference.output == "temp_3h"
    assert difference.relative < 1e-6
