"""Equal models give equal files, in one process and across processes. Slow: the processes."""

import json
from pathlib import Path

import numpy as np
import pytest
from fresh import printed
from safetensors import safe_open
from selection import slow

import streamrnn
from streamrnn import Input, Sequential, layers

pytestmark = slow
ROOT = Path(__file__).parents[3]
CODE = """
import hashlib, sys
from pathlib import Path
from streamrnn.nn.formats.dispatch import read

source, folder = sys.argv[1:]
for i in range(3):
    path = Path(folder) / f"{i}.safetensors"
    read(source).model.save(path)
    print(hashlib.sha256(path.read_bytes()).hexdigest())
"""
ORIGINS = {
    "pipelines/weather/model.safetensors": "safetensors",
    "tests/nn/formats/files/every_cell.keras": "h5py",
    "tests/nn/formats/files/shared_and_nested.keras": "h5py",
    "pipelines/origins/weather.onnx": "onnx",
    "tests/nn/formats/files/tf2onnx.onnx": "onnx",
}


def model() -> Sequential:
    vocabulary = layers.StringLookup(vocabulary=["é", "b", "c"], name="wörter")
    ids = Input((None,), dtype="string", name="ids")
    body = [vocabulary, layers.Embedding(5, 3, name="table"), layers.LSTM(4, name="lstm")]
    made = Sequential([ids, *body, layers.Dense(1, name="score")], name="m")
    made.set_weights([np.full(w.shape, 0.25, np.float32) for w in made.get_weights()])
    return made


def test_one_model_saved_often_is_one_file(tmp_path: Path) -> None:
    """Metadata has four keys: of their 24 orders twelve saves would show more than one."""
    for i in range(12):
        model().save(tmp_path / f"{i}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_model_that_was_read_is_one_file_in_every_process(origin: str, tmp_path: Path) -> None:
    """What `streamrnn convert` writes: three times a process, and each process hashes anew."""
    pytest.importorskip(ORIGINS[origin], reason="needs the extra")
    found = printed(CODE, str(ROOT / origin), str(tmp_path))
    assert [len(lines) for lines in found] == [3, 3, 3]
    assert len({line for lines in found for line in lines}) == 1


def test_the_header_is_what_the_format_wants(tmp_path: Path) -> None:
    """Aligned to 8 bytes, metadata sorted, and as the library reads it; the model is the same."""
    path = tmp_path / "m.safetensors"
    model().save(path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    assert size % 8 == 0
    entries = json.loads(data[8 : 8 + size])
    assert list(entries["__metadata__"]) == ["config", "format", "order", "version"]
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == entries["__metadata__"]
    assert streamrnn.load_model(path).fingerprint() == model().fingerprint()


@pytest.mark.parametrize("order", [1, -1])
def test_files_with_metadata_in_any_order_are_read(order: int, tmp_path: Path) -> None:
    """Earlier releases wrote it in whatever order came."""
    path = tmp_path / "m.safetensors"
    model().save(path)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:start])
    entries["__metadata__"] = dict(sorted(entries["__metadata__"].items())[::order])
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[start:])
    again = streamrnn.load_model(path)
    assert again.fingerprint() == model().fingerprint()
    assert again.get_config() == model().get_config()
