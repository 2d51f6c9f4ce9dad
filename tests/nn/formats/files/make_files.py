"""Make the small model files here, with what their frameworks compute, in outputs.npz.

    KERAS_BACKEND=jax python tests/nn/formats/files/make_files.py

Needs keras, jax, torch, onnx, onnxruntime and onnxscript. The files hold dates, so they differ from
run to run; the numbers do not.
"""

import sys
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

KERAS = {
    "keras": (
        "encoder_and_decoder",
        "every_cell",
        "masked_features",
        "masked_ids",
        "scaled_and_normalised",
        "shared_and_nested",
    ),
    "h5": ("encoder_and_decoder",),
    "weights.h5": ("stacked_cells",),
}


def keras_files(outputs):
    from nn.formats import keras_models

    for ending, names in KERAS.items():
        for name in names:
            model = keras_models.trained(name)
            save = model.save_weights if ending == "weights.h5" else model.save
            save(HERE / f"{name}.{ending}")
            inputs = keras_models.inputs(model)
            made = model(inputs if len(inputs) > 1 else inputs[0])
            record(outputs, name, inputs, made if isinstance(made, list) else [made])


def torch_files(outputs):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    module = torch.nn.ModuleDict(
        {
            "emb": torch.nn.Embedding(8, 4),
            "enc": torch.nn.GRU(4, 3, num_layers=2, bidirectional=True, batch_first=True),
            "dec": torch.nn.LSTM(6, 4, batch_first=True),
            "norm": torch.nn.LayerNorm(4),
            "out": torch.nn.Linear(4, 2),
        }
    ).eval()
    save_file(module.state_dict(), HERE / "torch.safetensors")
    ids = torch.randint(0, 8, (2, 5))
    with torch.no_grad():
        y = module["dec"](module["enc"](module["emb"](ids))[0])[0]
        y = module["out"](module["norm"](y))
    record(outputs, "torch", [ids.numpy()], [y.numpy()])
    onnx_exports(outputs)


def onnx_exports(outputs):
    import onnx
    import torch

    class Scorer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.LSTM(3, 4, num_layers=2, batch_first=True)
            self.out = torch.nn.Linear(4, 2)

        def forward(self, x, h, c):
            y, (h, c) = self.rnn(x, (h, c))
            return self.out(y), h, c

    module = Scorer().eval()
    args = (torch.randn(2, 5, 3), torch.randn(2, 2, 4), torch.randn(2, 2, 4))
    names = {"input_names": ["x", "h", "c"], "output_names": ["y", "hn", "cn"]}
    axes = {"x": {0: "batch", 1: "time"}, "h": {1: "batch"}, "c": {1: "batch"}}
    auto = torch.export.Dim.AUTO
    shapes = {"x": {0: auto, 1: auto}, "h": {1: auto}, "c": {1: auto}}
    ways = {
        "torch_old": {"dynamo": False, "dynamic_axes": axes},
        "torch_dynamo": {"dynamo": True, "dynamic_shapes": shapes, "external_data": False},
    }
    for name, options in ways.items():
        path = HERE / f"{name}.onnx"
        torch.onnx.export(module, args, path, **names, **options)
        exported = onnx.load(path)
        for node in exported.graph.node:  # stack traces, with folders of the machine that made them
            node.ClearField("metadata_props")
        onnx.save(exported, path)
        with torch.no_grad():
            made = module(*args)
        record(outputs, name, [a.numpy() for a in args], [y.numpy() for y in made])


def onnx_files(outputs):
    import onnxruntime
    from plugins.onnx import onnx_graphs

    random = np.random.default_rng(0)
    graphs = {
        "tf2onnx": (onnx_graphs.as_tf2onnx_writes_it(), random.normal(0, 1, (2, 5, 3))),
        "ids": (onnx_graphs.ids_and_scores(), random.integers(0, 7, (2, 5))),
    }
    for name, (made, x) in graphs.items():
        path = HERE / f"{name}.onnx"
        path.write_bytes(made.SerializeToString())
        x = x.astype(np.int64 if x.dtype.kind == "i" else np.float32)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        record(outputs, name, [x], session.run(None, {session.get_inputs()[0].name: x}))


def record(outputs, name, inputs, made):
    outputs |= {f"{name}/x_{i}": np.asarray(x) for i, x in enumerate(inputs)}
    outputs |= {f"{name}/y_{i}": np.asarray(y) for i, y in enumerate(made)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    recorded = {}
    keras_files(recorded)
    torch_files(recorded)
    onnx_files(recorded)
    np.savez_compressed(HERE / "outputs.npz", **recorded)
