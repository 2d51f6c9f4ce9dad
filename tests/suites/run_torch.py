"""Random modules of PyTorch against load_model: their state_dict and both exports to ONNX.

    python tests/suites/run_torch.py [--count 50] [--seed 0] [--dynamo 10]

Each module is an LSTM, GRU or RNN (tanh or relu) of 1 to 3 levels, in one or both directions, with
proj_size (LSTM), with or without biases, batch or time first. Its weights are PyTorch's, times 1 to
3. Counted by route: right, refused (any StreamRNNError), wrong, crash. Right means as near to the
module in float64 as 1e-5 and twice PyTorch's own distance. Where the module runs forwards only,
the model also runs in chunks with the state carried: same bits. `skipped`: PyTorch's exporter
failed, or wrote no recurrent node for what has none in ONNX (proj_size).
"""

import argparse
import collections
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import streamrnn
from streamrnn.errors import StreamRNNError
from streamrnn.models import StepRunner

OUTCOMES = ("right", "refused", "wrong", "crash", "skipped")
KINDS = {
    "LSTM": (torch.nn.LSTM, {}),
    "GRU": (torch.nn.GRU, {}),
    "RNN": (torch.nn.RNN, {}),
    "RNN-relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
}
Floats = Any


class Drawn:
    """A module, an input (batch, time, features), and its outputs in float32 and float64."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.kind = str(random.choice(list(KINDS)))
        units = int(random.integers(1, 80))
        self.options: dict[str, Any] = {
            "num_layers": int(random.integers(1, 4)),
            "bidirectional": bool(random.integers(2)),
            "bias": bool(random.random() < 0.8),
            "batch_first": bool(random.integers(2)),
        }
        if self.kind == "LSTM" and units > 1 and random.random() < 0.3:
            self.options["proj_size"] = int(random.integers(1, units))
        features, rows, steps = (int(n) for n in random.integers(1, (80, 5, 20)))
        cls, more = KINDS[self.kind]
        self.more = more
        self.module = cls(features, units, **self.options, **more).eval()
        with torch.no_grad():
            for weight in self.module.parameters():
                weight *= float(random.uniform(1, 2 if self.kind == "RNN-relu" else 3))
        x = random.normal(0, 1, (rows, steps, features)).astype(np.float32)
        self.x = torch.from_numpy(x)
        self.given = self.x if self.options["batch_first"] else self.x.transpose(0, 1)
        with torch.no_grad():
            self.single = self._batch_first(self.module(self.given)[0])
            self.module.double()
            self.exact = self._batch_first(self.module(self.given.double())[0])
            self.module.float()

    def _batch_first(self, y: Any) -> Floats:
        return (y if self.options["batch_first"] else y.transpose(0, 1)).numpy()

    def judge(self, y: Floats) -> str:
        """Return right or wrong for an output (batch, time, units)."""
        if y.shape != self.exact.shape:
            return "wrong"
        scale = max(1.0, float(np.abs(self.exact).max()))
        slack = 1e-5 * scale + 2 * float(np.abs(self.single - self.exact).max())
        return "right" if float(np.abs(y - self.exact).max()) <= slack else "wrong"


def by_state_dict(drawn: Drawn, folder: Path) -> dict[str, str]:
    path = folder / "m.safetensors"
    save_file({k: v.contiguous() for k, v in drawn.module.state_dict().items()}, path)
    table = {"type": drawn.kind.partition("-")[0], "weights": "", **drawn.more}
    model = streamrnn.load_model(path, layers=[table], strict=True)
    whole = model(drawn.x.numpy())
    found = {"state_dict": drawn.judge(whole)}
    if not drawn.options["bidirectional"]:
        stream = StepRunner(model)
        states = stream.initial_state(len(drawn.x))
        cut = drawn.x.shape[1] // 2
        windows = [np.ascontiguousarray(part) for part in np.split(drawn.x.numpy(), [cut], axis=1)]
        parts = [stream.run([window], None, states)[0] for window in windows]
        same = np.array_equal(np.concatenate(parts, axis=1), whole)
        found["state_dict in chunks"] = "right" if same else "wrong"
    return found


def by_export(drawn: Drawn, folder: Path, *, dynamo: bool) -> dict[str, str]:
    path, name = folder / "m.onnx", "dynamo export" if dynamo else "TorchScript export"
    batch = 0 if drawn.options["batch_first"] else 1
    options: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "dynamo": dynamo}
    if dynamo:
        auto = torch.export.Dim.AUTO
        options |= {"dynamic_shapes": ({0: auto, 1: auto},), "external_data": False}
    else:
        options["dynamic_axes"] = {"x": {batch: "batch", 1 - batch: "time"}}
    try:
        torch.onnx.export(drawn.module, (drawn.given,), path, **options)
    except Exception:  # noqa: BLE001 (of PyTorch's exporter, which is not judged)
        return {name: "skipped"}
    made = next(iter(streamrnn.load_model(path)(drawn.given.contiguous().numpy()).values()))
    return {name: drawn.judge(made if batch == 0 else made.transpose(1, 0, 2))}


def outcome(name: str, route: Callable[[], dict[str, str]]) -> dict[str, str]:
    try:
        return route()
    except StreamRNNError:
        return {name: "refused"}
    except Exception:  # noqa: BLE001 (a crash is what is counted)
        return {name: "crash"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="modules to draw")
    parser.add_argument("--seed", type=int, default=0, help="the first module's seed")
    parser.add_argument("--dynamo", type=int, default=10, help="of these, by the dynamo export too")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for number in range(arguments.count):
        drawn = Drawn(arguments.seed + number)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            found = outcome("state_dict", lambda d=drawn, f=folder: by_state_dict(d, f))
            for dynamo in (False, *([True] if number < arguments.dynamo else [])):
                route = "dynamo export" if dynamo else "TorchScript export"
                found |= outcome(
                    route, lambda d=drawn, f=folder, y=dynamo: by_export(d, f, dynamo=y)
                )
        for route, result in found.items():
            counts[route][result] += 1
            if result in ("wrong", "crash"):
                print(f"seed {arguments.seed + number}: {route}: {result}, {drawn.kind} ", end="")
                print(drawn.options)
    print(f"torch {torch.__version__}, {arguments.count} modules from seed {arguments.seed}")
    print("| route | " + " | ".join(OUTCOMES) + " |")
    print("| --- |" + " --- |" * len(OUTCOMES))
    for route, found in counts.items():
        print(f"| {route} | " + " | ".join(str(found[o]) for o in OUTCOMES) + " |")


if __name__ == "__main__":
    main()
