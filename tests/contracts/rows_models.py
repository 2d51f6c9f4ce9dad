"""One row of contracts for every format of model files, and for every file of tests/nn/formats."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.declared import HOLDS, Contract, Row
from contracts.models import ROWS, STEPS

import streamrnn
from streamrnn import Model

FILES = Path(__file__).parents[1] / "nn" / "formats" / "files"
RECORDED = {
    name: array
    for file in ("outputs.npz", "keras_onnx.npz")
    for name, array in np.load(FILES / file).items()
}
TORCH = [
    {"type": "Embedding", "weights": "emb"},
    {"type": "GRU", "weights": "enc"},
    {"type": "LSTM", "weights": "dec"},
    {"type": "LayerNorm", "weights": "norm"},
    {"type": "Linear", "weights": "out"},
]
STACKED = [
    {"type": "RNN", "return_sequences": True, "cell": [
        {"type": "LSTMCell", "units": 3}, {"type": "GRUCell", "units": 4},
        {"type": "GRUCell", "units": 2}, {"type": "SimpleRNNCell", "units": 3}]},
    {"type": "RNN", "cell": {"type": "LSTMCell", "units": 2}},
]  # fmt: skip
NEEDS = {".keras": "h5py", ".h5": "h5py", ".hdf5": "h5py", ".onnx": "onnx"}


@dataclass(frozen=True)
class FormatRow(Row):
    """file: from tests/nn/formats/files. layers: of a file that holds weights alone.

    recorded: the outputs are those of the framework that wrote the file (make_files.py). config,
    saved: the model comes back from its config and from a native file. cut: on a stream, outputs
    and states do not depend on where it is cut, and no stream sees another. apart: nor does a row.
    """

    file: str
    layers: Any = None
    recorded: Contract = HOLDS
    config: Contract = HOLDS
    saved: Contract = HOLDS
    cut: Contract = HOLDS
    apart: Contract = HOLDS

    def model(self, folder: Path, ending: str) -> Model:
        """Read from a copy of the file that ends so; every stored array is used."""
        if ending in NEEDS:
            pytest.importorskip(NEEDS[ending], reason="needs the extra")
        path = folder / f"model{ending}"
        shutil.copy(FILES / self.file, path)
        return streamrnn.load_model(path, layers=self.layers, strict=True)

    def arrays(self, kind: str) -> list[np.ndarray]:
        """The recorded inputs ("x") or outputs ("y")."""
        stem = self.file.partition(".")[0]
        names = [name for name in RECORDED if name.startswith(f"{stem}/{kind}")]
        return [RECORDED[name] for name in sorted(names)]

    def inputs(self, model: Model) -> list[np.ndarray]:
        """ROWS rows of STEPS steps, without states: the recorded values, else random ones."""
        given = self.arrays("x") or [
            np.random.default_rng(3).normal(size=(ROWS, STEPS, shape[-1])).astype(np.float32)
            for _, shape, _ in model.input_specs
        ]
        fitting = zip(given, model.input_specs, strict=False)
        return [np.resize(x, (ROWS, STEPS, *x.shape[2:])) for x, _ in fitting]


BACKWARDS = "One of its layers reads the sequence from the end."
STATE_USED = "Its decoder begins from the encoder's state at the end."


BY_KERAS = "plugins/onnx/test_onnx_keras.py"


def alone(file: str, test: str) -> FormatRow:
    """A file with recorded outputs of its own, for the steps and types that its model has."""
    reason = f"tests/{test} runs it, on inputs of its own steps and types."
    return FormatRow(file, recorded=reason, config=reason, saved=reason, cut=reason, apart=reason)


FORMATS = {
    ".safetensors/native": FormatRow(
        "../../../../pipelines/weather/model.safetensors",
        recorded="No other framework writes it: its model is judged layer by layer.",
    ),
    ".safetensors/torch": FormatRow("torch.safetensors", TORCH, cut=BACKWARDS),
    ".keras/every_cell": FormatRow("every_cell.keras"),
    ".keras/masked_features": FormatRow("masked_features.keras"),
    ".keras/scaled": FormatRow("scaled_and_normalised.keras"),
    ".keras/masked_ids": FormatRow("masked_ids.keras", cut=BACKWARDS),
    ".keras/shared_and_nested": FormatRow("shared_and_nested.keras", cut=BACKWARDS),
    ".keras/encoder": FormatRow("encoder_and_decoder.keras", cut=STATE_USED),
    ".h5": FormatRow("encoder_and_decoder.h5", cut=STATE_USED),
    ".h5/weights": FormatRow("stacked_cells.weights.h5", STACKED),
    ".hdf5": FormatRow("encoder_and_decoder.h5", cut=STATE_USED),
    ".onnx/features": FormatRow("tf2onnx.onnx"),
    ".onnx/ids": FormatRow("ids.onnx"),
    ".onnx/states": FormatRow("torch_old.onnx"),
    ".onnx/dynamo": FormatRow("torch_dynamo.onnx"),
    ".keras/operations": alone("operations.keras", "formats/test_keras_operations.py"),
    ".onnx/keras_tf2onnx": FormatRow(
        "keras_tf2onnx.onnx",
        config="Numbers by which it wraps ids are among its weights, which no config has.",
    ),
    ".onnx/keras_tf2onnx_whole": alone(
        "keras_tf2onnx_whole.onnx", "plugins/onnx/test_onnx_keras.py"
    ),
    ".onnx/keras_torch": alone("keras_torch.onnx", BY_KERAS),
}
