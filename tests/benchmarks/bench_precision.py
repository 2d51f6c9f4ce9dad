"""Layers in int16 and int8 against float32; recurrent ones against others' low precision too.

    python tests/benchmarks/bench_precision.py --markdown tests/benchmarks/README.md

Needs the extra bench; a runtime that is not installed is left out. Each side runs on one thread, in
turns, and its time is that of the process's CPU: what counts are ratios to our float32, each the
median over all rounds. Errors are largest differences of h from our float32 after one chunk;
bench_accuracy.py has those of trained models.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import peers
from timing import machine, parser_of, publish, table

import streamrnn
from streamrnn.nn.kernels import conv1d, dense, integers, recurrent
from streamrnn.nn.kernels.swept import PLAIN_LSTM, pack_gru

GRID = [
    *((1, 16, 64, 128), (1, 64, 128, 128), (32, 16, 16, 128), (32, 16, 32, 128)),
    *((32, 16, 64, 128), (64, 64, 128, 128), (64, 64, 256, 64), (64, 128, 512, 32)),
    (1, 128, 512, 64),
]
ROWS_GRID = [
    *((4096, 64, 1), (4096, 128, 10), (4096, 64, 64), (4096, 128, 32), (4096, 128, 64)),
    *((4096, 128, 128), (4096, 256, 256), (4096, 512, 512), (64, 128, 128), (64, 512, 512)),
    *((1, 128, 128), (1, 512, 512)),
]
CONV_GRID = [(64, 64, 16, 64), (64, 64, 64, 64), (64, 64, 128, 128), (64, 64, 256, 256)]
TAPS = 5
KINDS = {"lstm": (PLAIN_LSTM.pack, 4, 2), "gru": (pack_gru, 3, 1)}
PRECISIONS = ("float32", "int16", "int8")

Chunk = Callable[[], np.ndarray]


def ours(kind: str, weights: peers.Weights, x: np.ndarray, precision: str) -> Chunk:
    pack, _, states = KINDS[kind]
    kernel, other, bias = weights
    packed = (
        pack(kernel, other, bias)
        if precision == "float32"
        else pack(
            integers.rounded(kernel, precision, factors=True),
            integers.rounded(other, precision, factors=False),
            bias,
        )
    )
    y = np.empty((*x.shape[:2], len(other)), np.float32)

    def chunk() -> np.ndarray:
        state = [np.zeros((len(x), len(other)), np.float32) for _ in range(states)]
        recurrent.run(packed, ("sigmoid", "tanh"), x, None, None, state, y)
        return y

    return chunk


def onnxruntime_int8(kind: str, weights: peers.Weights, x: np.ndarray) -> Chunk:
    """Quantized as its documentation does; it leaves a GRU in float32."""
    import onnx
    import onnxruntime as ort
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if kind == "gru":
        raise ImportError("ONNX Runtime does not quantize a GRU")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        model = onnx.load_from_string(peers.onnx_model(kind, weights))
        onnx.save(model, f"{folder}/m.onnx")
        quantize_dynamic(f"{folder}/m.onnx", f"{folder}/q.onnx", weight_type=QuantType.QInt8)
        session = ort.InferenceSession(
            f"{folder}/q.onnx", options, providers=["CPUExecutionProvider"]
        )
    first = np.ascontiguousarray(x.transpose(1, 0, 2))
    zeros = np.zeros((1, len(x), len(weights[1])), np.float32)

    def chunk() -> np.ndarray:
        y = session.run(None, {"X": first, "h0": zeros, "c0": zeros})[0]
        found: np.ndarray = y[:, 0].transpose(1, 0, 2)
        return found

    return chunk


def _torch(kind: str, weights: peers.Weights, x: np.ndarray, change: Callable[[Any], Any]) -> Chunk:
    import torch

    layer = change(peers.torch_layer(kind, weights))
    torch.set_num_threads(1)
    kept = next(iter(layer.parameters()), None)
    kind_of = torch.float32 if kept is None else kept.dtype
    inputs = torch.from_numpy(np.ascontiguousarray(x.transpose(1, 0, 2))).to(kind_of)

    def chunk() -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = layer(inputs)[0].float().numpy().transpose(1, 0, 2)
            return found

    return chunk


def torch_int8(kind: str, weights: peers.Weights, x: np.ndarray) -> Chunk:
    import torch

    modules = {torch.nn.LSTM, torch.nn.GRU}
    quantize = torch.ao.quantization.quantize_dynamic

    def change(layer: Any) -> Any:
        return quantize(torch.nn.Sequential(layer), modules, dtype=torch.qint8)[0]

    return _torch(kind, weights, x, change)


def torch_bf16(kind: str, weights: peers.Weights, x: np.ndarray) -> Chunk:
    return _torch(kind, weights, x, lambda layer: layer.bfloat16())


def openvino_bf16(kind: str, weights: peers.Weights, x: np.ndarray) -> Chunk:
    """By its hint. It has no int8 for these layers: they stay in float32 after NNCF's quantize, and
    compress_weights finds nothing in them."""
    carrying = peers.openvino(kind, weights, x, threads=1, precision="bf16")

    def chunk() -> np.ndarray:
        y, states = carrying()
        for state in states:
            state[:] = 0
        found: np.ndarray = y.transpose(1, 0, 2)
        return found

    return chunk


OTHERS = {
    "onnxruntime int8": onnxruntime_int8,
    "torch int8": torch_int8,
    "torch bf16": torch_bf16,
    "openvino bf16": openvino_bf16,
}


def cpu_ratios(sides: dict[str, Chunk], rounds: int) -> dict[str, float]:
    """Median over rounds of the CPU time of float32 over that of each side."""
    calls = {}
    for name, side in sides.items():
        side()
        start = time.process_time()
        side()
        calls[name] = max(1, round(0.02 / max(time.process_time() - start, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        times = {}
        for name, side in sides.items():
            start = time.process_time()
            for _ in range(calls[name]):
                side()
            times[name] = (time.process_time() - start) / calls[name]
        for name in sides:
            found[name].append(times["float32"] / times[name])
    return {name: statistics.median(ratios) for name, ratios in found.items()}


def speed(rounds: int) -> str:
    head = ["", "B, F, H, T", *PRECISIONS[1:], *OTHERS]
    rows = []
    for kind, (_, gates, _) in KINDS.items():
        for lanes, features, units, steps in GRID:
            rng = np.random.default_rng(0)
            shapes = [(features, gates * units), (units, gates * units)]
            shapes.append((2, gates * units) if kind == "gru" else (gates * units,))
            kernel, other, bias = (
                (rng.normal(size=s) / np.sqrt(units)).astype(np.float32) for s in shapes
            )
            weights = kernel, other, bias
            x = rng.normal(size=(lanes, steps, features)).astype(np.float32)
            sides = {p: ours(kind, weights, x, p) for p in PRECISIONS}
            for name, make in OTHERS.items():
                try:
                    sides[name] = make(kind, weights, x)
                except ImportError:
                    continue
            exact = sides["float32"]().copy()
            errors = {name: float(np.abs(side() - exact).max()) for name, side in sides.items()}
            ratios = cpu_ratios(sides, rounds)
            cells = [
                f"x{ratios[name]:.2f} ({errors[name]:.0e})" if name in sides else ""
                for name in head[2:]
            ]
            rows.append([kind.upper(), f"{lanes}, {features}, {units}, {steps}", *cells])
            print(*rows[-1], flush=True)
    return table(head, rows)


def rows_speed(rounds: int) -> str:
    """Dense and Conv1D of one size after another, also where they stay float32 in a model."""
    table_rows = []
    for rows, features, units in ROWS_GRID:
        sides = dense_sides(rows, features, units)
        table_rows.append(measured("Dense", f"{rows}, {features}, {units}", sides, rounds))
    for lanes, steps, features, units in CONV_GRID:
        sides = conv_sides(lanes, steps, features, units)
        name = f"{lanes} x {steps}, {TAPS} x {features}, {units}"
        table_rows.append(measured("Conv1D", name, sides, rounds))
    return table(["", "rows, inputs, units", "float32, µs", *PRECISIONS[1:]], table_rows)


def dense_sides(rows: int, features: int, units: int) -> dict[str, Chunk]:
    rng = np.random.default_rng(0)
    kernel = normal(rng, features, units)
    x = rng.normal(size=(rows, features)).astype(np.float32)

    def side(precision: str) -> Chunk:
        packed, y = dense.pack(in_precision(kernel, precision)), np.empty((rows, units), np.float32)

        def chunk() -> np.ndarray:
            dense.run(packed, x, y, activation="relu")
            return y

        return chunk

    return {precision: side(precision) for precision in PRECISIONS}


def conv_sides(lanes: int, steps: int, features: int, units: int) -> dict[str, Chunk]:
    rng = np.random.default_rng(0)
    kernel = normal(rng, TAPS, features, units)
    x = rng.normal(size=(lanes, steps, features)).astype(np.float32)

    def side(precision: str) -> Chunk:
        packed = conv1d.pack(in_precision(kernel, precision))
        y = np.empty((lanes, steps, units), np.float32)

        def chunk() -> np.ndarray:
            past = np.zeros((lanes, TAPS - 1, features), np.float32)
            conv1d.run(packed, x, None, None, past, y, activation="relu")
            return y

        return chunk

    return {precision: side(precision) for precision in PRECISIONS}


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights that keep the size of their inputs."""
    found: np.ndarray = rng.normal(size=shape).astype(np.float32)
    return found / np.float32(np.prod(shape[:-1]) ** 0.5)


def in_precision(kernel: np.ndarray, precision: str) -> Any:
    if precision == "float32":
        return kernel
    return integers.rounded(kernel, precision, factors=True)


def measured(kind: str, name: str, sides: dict[str, Chunk], rounds: int) -> list[str]:
    exact = sides["float32"]().copy()
    errors = {p: float(np.abs(sides[p]() - exact).max()) for p in PRECISIONS[1:]}
    ratios = cpu_ratios(sides, rounds)
    start, calls = time.process_time(), 0
    while time.process_time() - start < 0.05:
        sides["float32"]()
        calls += 1
    each = (time.process_time() - start) / calls * 1e6
    took = f"{each:,.0f}" if each >= 100 else f"{each:.3g}"
    row = [kind, name, took, *(f"x{ratios[p]:.2f} ({errors[p]:.0e})" for p in errors)]
    print(*row, flush=True)
    return row


def main() -> None:
    options = parser_of(__doc__, rounds=9).parse_args()
    warnings.simplefilter("ignore")
    streamrnn.set_threads(1)
    installed = [name for name in ("onnxruntime", "torch", "openvino") if find_spec(name)]
    text = f"{machine('numba', *installed)}\n\n{speed(options.rounds)}"
    rows = f"{machine('numba')}\n\n{rows_speed(options.rounds)}"
    publish({"precision": text, "precision of rows": rows}, options.markdown)


if __name__ == "__main__":
    main()
