"""How far float32 is from float64, where a model widens rounding: ours, PyTorch's, ONNX Runtime's.

    python tests/benchmarks/bench_rounding.py [--draws 24] [--markdown FILE …]

Run it from the repository's root. A stack of 3 levels and 256 units in both directions reads 3
rows of 40 steps and 64 features, N(0, 1). Its weights are those of PyTorch's initializer, times 1
or 6: the larger, the more a stack repeats and widens what was rounded. The reference is the same
PyTorch module in float64. Nothing is timed, and every draw has its own weights and inputs.
"""

import io
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import timing
import torch
from safetensors.torch import save_file

from streamrnn import layers, load_model

_LEVELS, _UNITS, _FEATURES, _ROWS, _STEPS = 3, 256, 64, 3, 40
_WIDENED = 300
_STACKS = (("LSTM", 1.0), ("LSTM", 6.0), ("GRU", 1.0))
_KINDS = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU}
Floats = npt.NDArray[np.float32]


def module_of(kind: str, scale: float, seed: int) -> torch.nn.Module:
    """A stack in evaluation mode, its weights drawn and scaled."""
    torch.manual_seed(seed)
    module: torch.nn.Module = _KINDS[kind](
        _FEATURES, _UNITS, _LEVELS, batch_first=True, bidirectional=True
    )
    with torch.no_grad():
        for weight in module.parameters():
            weight *= scale
    return module.eval()


def ours(module: torch.nn.Module, kind: str) -> Callable[[Floats], Floats]:
    """The module as a model, read from its state_dict."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        save_file(module.state_dict(), path)
        return load_model(path, layers=[{"type": kind, "weights": ""}])


def runtime(module: torch.nn.Module, x: Floats) -> Callable[[Floats], Floats]:
    """The module as PyTorch exports it, in ONNX Runtime."""
    file = io.BytesIO()
    example = (torch.from_numpy(x),)
    torch.onnx.export(module, example, file, input_names=["x"], output_names=["y"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(["y"], {"x": x})[0]


def distances(kind: str, scale: float, seed: int) -> dict[str, tuple[float, float]]:
    """The largest and the root mean square of |y - float64| by library."""
    module = module_of(kind, scale, seed)
    x = np.random.default_rng(seed).normal(0, 1, (_ROWS, _STEPS, _FEATURES)).astype(np.float32)
    with torch.no_grad():
        made = {"PyTorch": module(torch.from_numpy(x))[0].numpy()}
        made["streamrnn"] = ours(module, kind)(x)
        made["ONNX Runtime"] = runtime(module, x)(x)
        exact = module.double()(torch.from_numpy(x).double())[0].numpy()
    errors = {name: np.abs(y - exact) for name, y in made.items()}
    return {
        name: (float(error.max()), float(np.sqrt((error**2).mean())))
        for name, error in errors.items()
    }


def rows_of(kind: str, scale: float, draws: int) -> list[tuple[str, ...]]:
    """A row of the table for each library."""
    found = [distances(kind, scale, seed) for seed in range(draws)]
    rows: list[tuple[str, ...]] = []
    for name in ("streamrnn", "PyTorch", "ONNX Runtime"):
        largest = [draw[name][0] for draw in found]
        rms = statistics.median(draw[name][1] for draw in found)
        nearer = sum(draw["streamrnn"][0] <= draw[name][0] for draw in found)
        rows.append(
            (
                f"{kind}, weights x {scale:g}",
                name,
                f"{statistics.median(largest):.1e}",
                f"{max(largest):.1e}",
                f"{rms:.1e}",
                "" if name == "streamrnn" else f"{nearer} of {draws}",
            )
        )
    return rows


def simple_rnn(
    x: Floats, weights: list[Floats], state: npt.NDArray[np.float64], moved: float = 0.0
) -> npt.NDArray[np.float64]:
    """A SimpleRNN in float64; each state is moved up or down by so much, at random."""
    kernel, recurrent, bias = (weight.astype(np.float64) for weight in weights)
    signs = np.random.default_rng(0)
    h, steps = state, []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ kernel + h @ recurrent + bias)
        h = h + moved * signs.choice([-1.0, 1.0], h.shape)
        steps.append(h)
    return np.stack(steps, axis=1)


def widened(seed: int) -> dict[str, tuple[float, float]]:
    """Of a SimpleRNN(17): the largest distance from float64 after one step and after all."""
    rng = np.random.default_rng(seed)
    shapes = ((4, 17), (17, 17), (17,))
    weights = [rng.normal(0, 0.4, shape).astype(np.float32) for shape in shapes]
    x = rng.normal(0, 1, (4, 150, 4)).astype(np.float32)
    layer = layers.SimpleRNN(17, return_sequences=True)
    layer.build(x.shape)
    layer.set_weights(weights)
    module = torch.nn.RNN(4, 17, batch_first=True).eval()
    kernel, recurrent, bias = map(torch.from_numpy, weights)
    with torch.no_grad():
        for parameter, value in zip(
            module.parameters(), (kernel.T, recurrent.T, bias, 0 * bias), strict=True
        ):
            parameter.copy_(value)
        outputs = {
            "streamrnn": layer(x),
            "PyTorch": module(torch.from_numpy(x))[0].numpy(),
            "ONNX Runtime": runtime(module, x)(x),
            "float64, moved": simple_rnn(x, weights, np.zeros((4, 17)), moved=2.0**-24),
        }
    exact = simple_rnn(x, weights, np.zeros((4, 17)))
    distances = {}
    for name, y in outputs.items():
        before = np.pad(y[:, :-1].astype(np.float64), ((0, 0), (1, 0), (0, 0)))
        steps = x.reshape(-1, 1, 4), weights, before.reshape(-1, 17)
        single = np.abs(y.reshape(-1, 1, 17) - simple_rnn(*steps)).max()
        distances[name] = (float(single), float(np.abs(y - exact).max()))
    return distances


def widened_rows(draws: int) -> list[tuple[str, ...]]:
    """A row of the second table for each library, and for the moved run."""
    runs = [widened(seed) for seed in range(draws)]
    rows = []
    for name in runs[0]:
        single, whole = np.array([run[name] for run in runs]).T
        shares = np.quantile(whole, [0.5, 0.9, 0.99, 1.0])
        rows.append((name, f"{single.max():.1e}", *(f"{share:.1e}" for share in shares)))
    return rows


def main() -> None:
    arguments = timing.parser_of(__doc__, draws=24).parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = [row for kind, scale in _STACKS for row in rows_of(kind, scale, arguments.draws)]
    head = ["stack", "library", "median", "worst", "rms", "streamrnn as near or nearer"]
    machine = timing.machine("numba", "torch", "onnxruntime")
    text = f"{machine}.\n\n{timing.table(head, rows)}"
    head = ["SimpleRNN(17)", "one step, worst", "median", "9 of 10", "99 of 100", "worst"]
    second = f"{machine}; {_WIDENED} draws.\n\n{timing.table(head, widened_rows(_WIDENED))}"
    timing.publish({"rounding": text, "widened rounding": second}, arguments.markdown)
    print(second)


if __name__ == "__main__":
    main()
