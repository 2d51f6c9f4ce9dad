"""LSTM and GRU kernels against ONNX Runtime, PyTorch and OpenVINO, and against the machine.

    python tests/benchmarks/bench_kernels.py                 # every point, one thread and two
    python tests/benchmarks/bench_kernels.py --points grid --threads 1 --markdown kernels.md

Stateful chunks of T steps of B lanes, all outputs kept, float32. Every side is checked against a
float64 oracle, then all sides are timed in turn. `ratio` is the best peer's time over ours. `rate`
is our share of the multiply-adds a second that this program reaches with nothing but multiply-adds;
for one lane, our share of the rate at which it reads an array as large as the weights, taking all
weights as read once a step (a lone lane reads those of the input once for several steps).

A last table has the other operators, ragged lengths and masks: µs, and the share of multiply-adds
that are wanted.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import peers
import timing

sys.path.insert(0, str(Path(__file__).parents[2]))

import streamrnn
from streamrnn.kernels import conv1d, dense, embedding, gru, jit, lstm, simple_rnn
from streamrnn.kernels.packing import aligned
from streamrnn.kernels.vector import fma, load, splat, store

MODULES = {"lstm": lstm, "gru": gru}
Point = tuple[int, int, int, int]  # lanes B, features F, units H, steps T
GRID: list[Point] = [
    (1, 16, 64, 128),
    (1, 64, 128, 128),
    (8, 16, 64, 128),
    (32, 16, 64, 128),
    (64, 64, 128, 128),
    (256, 64, 128, 128),
    (64, 64, 256, 128),
    (64, 128, 512, 64),
    (1, 128, 512, 64),
]
ODD: list[Point] = [
    (3, 16, 64, 128),
    (5, 16, 64, 128),
    (1, 1, 20, 128),
    (32, 7, 20, 128),
    (5, 7, 48, 128),
    (64, 1, 48, 128),
    (3, 7, 100, 128),
    (64, 16, 100, 128),
    (5, 64, 200, 128),
    (64, 16, 200, 128),
    (1, 16, 64, 1),
    (64, 16, 64, 1),
    (1, 64, 128, 16),
    (64, 64, 128, 16),
    (1, 16, 64, 1000),
    (32, 16, 64, 1000),
]
POINTS = {"grid": GRID, "odd": ODD, "all": GRID + ODD}


class Result(NamedTuple):
    kind: str
    point: Point
    threads: int
    micros: dict[str, float]
    """µs a lane and step of each side."""
    rate: float

    @property
    def ratio(self) -> float:
        return (
            min(v for name, v in self.micros.items() if name != "streamrnn")
            / (self.micros["streamrnn"])
        )


def made(kind: str, point: Point) -> tuple[peers.Weights, np.ndarray]:
    """Weights and a chunk."""
    lanes, features, units, steps = point
    rng = np.random.default_rng(5)
    gates = 4 if kind == "lstm" else 3
    scale = 1 / np.sqrt(units)
    shapes = [(features, gates * units), (units, gates * units), (gates * units,)]
    if kind == "gru":
        shapes[2] = (2, gates * units)
    weights = tuple((rng.standard_normal(s) * scale).astype(np.float32) for s in shapes)
    return weights, rng.standard_normal((lanes, steps, features)).astype(np.float32)


def oracle(kind: str, weights: peers.Weights, x_BTF: np.ndarray) -> np.ndarray:
    """Outputs (T, B, U) in float64."""
    kernel, recurrent, bias = (w.astype(np.float64) for w in weights)
    units = len(recurrent)
    h = c = np.zeros((len(x_BTF), units))
    outputs = []

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    for x in x_BTF.transpose(1, 0, 2).astype(np.float64):
        if kind == "lstm":
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            xz, xr, xh = np.split(x @ kernel + bias[0], 3, axis=1)
            hz, hr, hh = np.split(h @ recurrent + bias[1], 3, axis=1)
            z, r = sigmoid(xz + hz), sigmoid(xr + hr)
            h = z * h + (1 - z) * np.tanh(xh + r * hh)
        outputs.append(h)
    return np.array(outputs)


def ours(kind: str, weights: peers.Weights, x_BTF: np.ndarray) -> peers.Chunk:
    module: Any = MODULES[kind]
    packed = module.pack(*weights)
    lanes, steps, _ = x_BTF.shape
    units = len(weights[1])
    states = [np.zeros((lanes, units), np.float32) for _ in range(2 if kind == "lstm" else 1)]
    y_BTU = np.empty((lanes, steps, units), np.float32)

    def chunk() -> tuple[np.ndarray, list[np.ndarray]]:
        module.run(packed, x_BTF, None, None, states, y_BTU)
        return y_BTU.transpose(1, 0, 2), states

    return chunk


def products_a_second() -> float:
    """Multiply-adds of one core that does nothing else, in as many independent sums as it likes."""
    n = jit.simd()

    @jit.kernel
    def spin(out, rounds):
        a = b = c = d = e = f = g = h = i = j = splat(0.5, n)
        k = splat(0.25, n)
        for _ in range(rounds):
            a, b, c, d, e = fma(a, k, k), fma(b, k, k), fma(c, k, k), fma(d, k, k), fma(e, k, k)
            f, g, h, i, j = fma(f, k, k), fma(g, k, k), fma(h, k, k), fma(i, k, k), fma(j, k, k)
        store(out, 0, a + b + c + d + e + f + g + h + i + j)

    out, rounds = np.zeros(n, np.float32), 100_000
    return 10 * n * rounds / timing.best(lambda: spin(out, rounds))


def bytes_a_second(size: int) -> float:
    """Rate at which one core reads an array of so many bytes again and again."""
    n = jit.simd()

    @jit.kernel
    def read(w, out, rounds):
        a = b = c = d = splat(0.0, n)
        for _ in range(rounds):
            for i in range(0, w.size, 4 * n):
                a += load(w, i, n)
                b += load(w, i + n, n)
                c += load(w, i + 2 * n, n)
                d += load(w, i + 3 * n, n)
        store(out, 0, a + b + c + d)

    w, out = aligned(-(-size // 4) // (4 * n) * 4 * n), np.zeros(n, np.float32)
    rounds = max(1, 10_000_000 // w.nbytes)
    return w.nbytes * rounds / timing.best(lambda: read(w, out, rounds))


def measure(kind: str, point: Point, threads: int, names: list[str], peak: float) -> Result:
    """Check and time one point."""
    lanes, steps = point[0], point[3]
    weights, x_BTF = made(kind, point)
    streamrnn.set_threads(threads)
    sides = {"streamrnn": ours(kind, weights, x_BTF)}
    sides |= {name: peers.PEERS[name](kind, weights, x_BTF, threads) for name in names}
    wanted = oracle(kind, weights, x_BTF)
    for name, side in sides.items():
        error = np.abs(side()[0] - wanted).max()
        limit = 5e-6 if name == "streamrnn" else 1e-4
        if not error <= limit:
            raise SystemExit(f"{name} {kind} {point}: error {error} > {limit}")
    seconds = timing.in_turn(sides, pause=timing.PAUSE if threads > 1 else 0.002)
    micros = {name: 1e6 * s / (lanes * steps) for name, s in seconds.items()}
    products = sum(w.size for w in weights[:2])
    rate = products / (micros["streamrnn"] * 1e-6) / peak / threads
    if lanes == 1:
        rate = 4 * products / (micros["streamrnn"] * 1e-6) / bytes_a_second(4 * products)
    return Result(kind, point, threads, micros, rate)


def others(peak: float) -> str:
    """The rest of the operators, and windows that are not full, one thread, as a table."""
    streamrnn.set_threads(1)
    lanes, features, units, steps = point = (64, 64, 128, 64)
    rng = np.random.default_rng(5)
    x_BTF = made("gru", point)[1]
    y_BTU = np.empty((lanes, steps, units), np.float32)
    half = rng.random((lanes, steps)) < 0.5
    ragged = np.sort(rng.integers(0, steps + 1, lanes))[::-1].copy()

    def random(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / 12).astype(np.float32)

    def recurrent(module: Any, gates: int, **options: Any) -> tuple[Any, int]:
        kernel, state = random(features, gates * units), random(units, gates * units)
        packed = module.pack(kernel, state, **options)
        states = [random(lanes, units) for _ in range(2 if module is lstm else 1)]

        def run(lengths: Any = None, mask: Any = None) -> None:
            module.run(packed, x_BTF, lengths, mask, states, y_BTU)

        return run, kernel.size + state.size

    rows = lanes * steps
    x_NF, y_NU = x_BTF.reshape(rows, features), y_BTU.reshape(rows, units)
    wide, narrow = dense.pack(random(features, units)), dense.pack(random(features, 1))
    y_N1 = np.empty((rows, 1), np.float32)
    taps, past = conv1d.pack(random(3, features, units)), random(lanes, 2, features)
    table_VE, ids_N = random(10_000, units), rng.integers(0, 10_000, rows)
    whole, products = recurrent(lstm, 4)
    before, before_products = recurrent(gru, 3, reset_after=False)
    simple, simple_products = recurrent(simple_rnn, 1)
    nothing = np.zeros_like(half)
    cases = {
        "LSTM": (whole, products, rows),
        "LSTM, ragged lengths": (lambda: whole(ragged), products, int(ragged.sum())),
        "LSTM, half of the steps masked": (lambda: whole(None, half), products, int(half.sum())),
        "LSTM, all steps masked": (lambda: whole(None, nothing), products, 0),
        "GRU, reset_after=False": (before, before_products, rows),
        "SimpleRNN": (simple, simple_products, rows),
        "Dense(128)": (lambda: dense.run(wide, x_NF, y_NU), features * units, rows),
        "Dense(1)": (lambda: dense.run(narrow, x_NF, y_N1), features, rows),
        "Conv1D(128, 3)": (
            lambda: conv1d.run(taps, x_BTF, None, None, past, y_BTU),
            3 * features * units,
            rows,
        ),
        "Embedding(10000, 128)": (lambda: embedding.run(table_VE, ids_N, y_NU), 0, rows),
    }
    lines = []
    for name, (call, each, live) in cases.items():
        seconds = timing.in_turn({name: call})[name]
        rate = each * live / seconds / peak
        lines.append([name, live, f"{1e6 * seconds:.0f}", f"{rate:.0%}" if rate else ""])
    title = f"One thread, {lanes} lanes of {steps} steps, {features} features, {units} units"
    return f"{title}:\n\n" + timing.table(["", "live steps", "µs a window", "rate"], lines)


def report(results: list[Result], names: list[str]) -> str:
    """All results as Markdown tables."""
    parts = []
    for threads in sorted({r.threads for r in results}):
        chosen = [r for r in results if r.threads == threads]
        head = ["", "B, F, H, T", "streamrnn", *names, "ratio", "rate"]
        rows = [
            [
                r.kind.upper(),
                ", ".join(map(str, r.point)),
                *(f"{r.micros[name]:.3g}" for name in ["streamrnn", *names]),
                f"{r.ratio:.2f}",
                f"{r.rate:.0%}",
            ]
            for r in chosen
        ]
        means = [
            f"{label} {timing.geometric_mean(r.ratio for r in chosen if r.point in points):.3f}"
            for label, points in POINTS.items()
            if all(point in [r.point for r in chosen] for point in points)
        ]
        parts += [
            f"**{threads} thread{'s' * (threads > 1)}**, µs a lane and step\n",
            timing.table(head, rows),
            f"\nGeometric mean of the ratios: {', '.join(means) or 'not all points were run'}; "
            f"least {min(r.ratio for r in chosen):.2f}.\n",
        ]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", default="all", help="grid, odd, all, or B,F,H,T")
    parser.add_argument("--kinds", nargs="+", default=list(MODULES), choices=list(MODULES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", nargs="*", default=list(peers.PEERS), choices=peers.PEERS)
    parser.add_argument("--markdown", type=Path, help="write the tables to this file too")
    options = parser.parse_args()
    points = POINTS.get(options.points) or [tuple(map(int, options.points.split(",")))]
    peak = products_a_second()
    top = (
        f"{timing.machine('numba', 'onnxruntime', 'torch', 'openvino')}. One core: "
        f"{2 * peak / 1e9:.0f} GFLOP/s of multiply-adds.\n"
    )
    print(top, flush=True)
    results = []
    for threads in options.threads:
        for kind in options.kinds:
            for point in points:
                results.append(measure(kind, point, threads, options.peers, peak))
                r = results[-1]
                sides = "  ".join(f"{name} {value:.3g}" for name, value in r.micros.items())
                print(f"{threads} {kind} {point}: {sides}  ratio {r.ratio:.2f}  rate {r.rate:.0%}")
                sys.stdout.flush()
    text = "\n".join([top, report(results, options.peers), others(peak)])
    print("\n" + text)
    if options.markdown:
        options.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
