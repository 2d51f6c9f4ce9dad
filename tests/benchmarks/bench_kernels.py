"""LSTM and GRU kernels against ONNX Runtime, PyTorch and OpenVINO, and against the machine.

    python tests/benchmarks/bench_kernels.py                 # every point, one thread and two
    python tests/benchmarks/bench_kernels.py --points grid --threads 1 --markdown kernels.md

Stateful chunks of T steps of B lanes, all outputs kept, float32. Every side is checked against a
float64 oracle, then all sides are timed in turn, and the machine with them. `ratio` is the best
peer's time over ours. `rate` is our share of the multiply-adds a second that a loop of nothing but
multiply-adds reaches on as many threads; for one lane, our share of the rate at which a core reads
an array as large as the weights, taking all weights as read once a step (a lone lane reads those of
the input once for several steps). `speed-up` is our time on one thread over that on all. Needs
`pip install -e '.[bench]' onnx`.
"""

from typing import Any, NamedTuple

import limits
import numpy as np
import peers
import timing

from streamrnn.nn.kernels import one_thread, recurrent, set_threads
from streamrnn.nn.kernels.swept import PLAIN_LSTM, pack_gru

PACK: dict[str, Any] = {"lstm": PLAIN_LSTM.pack, "gru": pack_gru}
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
    speedup: float
    """Over one thread."""

    @property
    def ratio(self) -> float:
        others = (micros for name, micros in self.micros.items() if name != "streamrnn")
        return min(others, default=float("nan")) / self.micros["streamrnn"]

    def figure(self, name: str) -> float:
        return {"ratio": self.ratio, "rate": self.rate, "speed-up": self.speedup}[name]


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
    packed = PACK[kind](*weights)
    lanes, steps, _ = x_BTF.shape
    units = len(weights[1])
    states = [np.zeros((lanes, units), np.float32) for _ in range(2 if kind == "lstm" else 1)]
    y_BTU = np.empty((lanes, steps, units), np.float32)

    def chunk() -> tuple[np.ndarray, list[np.ndarray]]:
        recurrent.run(packed, ("sigmoid", "tanh"), x_BTF, None, None, states, y_BTU)
        return y_BTU.transpose(1, 0, 2), states

    return chunk


def measure(kind: str, point: Point, threads: int, names: list[str]) -> Result:
    """Check and time one point."""
    lanes, steps = point[0], point[3]
    weights, x_BTF = made(kind, point)
    set_threads(threads)
    sides = {"streamrnn": ours(kind, weights, x_BTF)}
    sides |= {name: peers.PEERS[name](kind, weights, x_BTF, threads) for name in names}
    wanted = oracle(kind, weights, x_BTF)
    for name, side in sides.items():
        error = np.abs(side()[0] - wanted).max()
        limit = 5e-6 if name == "streamrnn" else 1e-4
        if not error <= limit:
            raise SystemExit(f"{name} {kind} {point}: error {error} > {limit}")
    alone = ours(kind, weights, x_BTF)

    def on_one_thread() -> object:
        with one_thread():
            return alone()

    products = sum(w.size for w in weights[:2])
    of_one = lanes == 1
    limit_side, limit_work = (
        limits.reading(4 * products) if of_one else limits.multiply_adds(threads)
    )
    beside = {"limit": limit_side, "one thread": on_one_thread}
    rounds, pause = timing.turns(threads)
    seconds = timing.in_turn(sides | beside, rounds, pause=pause)
    speedup = seconds["one thread"] / seconds["streamrnn"]
    work = (4 if of_one else lanes) * products * steps
    rate = work / seconds["streamrnn"] / (limit_work / seconds["limit"])
    micros = {name: 1e6 * seconds[name] / (lanes * steps) for name in sides}
    return Result(kind, point, threads, micros, rate, speedup)


def report(results: list[Result], names: list[str]) -> str:
    """All results as Markdown tables."""
    parts = []
    for threads in sorted({r.threads for r in results}):
        chosen = [r for r in results if r.threads == threads]
        parts += [
            f"**{_threads(threads)}**, µs a lane and step",
            _table(chosen, names, speedup=threads > 1),
            summary(chosen, threads),
        ]
    return "\n\n".join(parts)


def in_short(results: list[Result]) -> str:
    """What the results of all kinds, shapes and peers say, in one sentence."""
    *others, last = peers.PEERS
    means, least = [], []
    for threads in sorted({r.threads for r in results}):
        all_shapes = [r for r in results if r.threads == threads]
        grid = [r.ratio for r in all_shapes if r.point in GRID]
        times = " times as fast" if not means else ""
        means.append(f"{timing.geometric_mean(grid):.2f}{times} on {_threads(threads)}")
        worst = min(all_shapes, key=lambda r: r.ratio)
        least.append(f"{worst.ratio:.2f} ({_shape(worst)})")
    cpu, *_, day = timing.machine().split("; ")
    return (
        f"{cpu}; {day}: LSTM and GRU kernels in float32 against the fastest of "
        f"{', '.join(others)} and {last}, shape by shape: {', '.join(means)} (geometric mean of "
        f"the grid of {len(grid)}; least of all {len(all_shapes)} shapes of lanes, features, units "
        f"and steps: {', '.join(least)})."
    )


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _table(results: list[Result], names: list[str], speedup: bool = False) -> str:
    head = ["", "B, F, H, T", "streamrnn", *names, "ratio", "rate"]
    rows = [
        [
            r.kind.upper(),
            ", ".join(map(str, r.point)),
            *(f"{r.micros[name]:.3g}" for name in ["streamrnn", *names]),
            f"{r.ratio:.2f}",
            f"{r.rate:.0%}",
            *([f"{r.speedup:.2f}"] if speedup else []),
        ]
        for r in results
    ]
    return timing.table(head + ["speed-up"] * speedup, rows)


def summary(results: list[Result], threads: int) -> str:
    """What all points together say, as a list."""

    def mean(points: list[Point]) -> str:
        found = [r.ratio for r in results if r.point in points]
        wanted = len(points) * len({r.kind for r in results})
        return f"{timing.geometric_mean(found):.2f}" if len(found) == wanted else "not run"

    grid = [r for r in results if r.point in GRID]
    many = [r for r in grid if r.point[0] >= 64]
    lines = [
        f"geometric mean of the ratios: grid {mean(GRID)}, with the odd shapes {mean(GRID + ODD)}",
        _least("ratio", results),
        _least("rate", [r for r in many if r.point[2] == 128], "64 lanes or more, 128 units"),
        _least("rate", [r for r in many if r.point[2] > 128], "64 lanes or more, more units"),
    ]
    if threads == 1:
        lines.append(_least("rate", [r for r in grid if r.point[0] == 1], "one lane"))
    else:
        lines.append(_least("speed-up", many, "64 lanes or more"))
    return "\n".join(f"- {line}" for line in lines if line)


def _least(figure: str, results: list[Result], which: str = "") -> str:
    """The least of a figure, and where that is."""
    if not results:
        return ""
    worst = min(results, key=lambda r: r.figure(figure))
    value = worst.figure(figure)
    text = f"{value:.0%}" if figure == "rate" else f"{value:.2f}"
    return f"least {figure}{', ' if which else ''}{which}: {text} ({_shape(worst)})"


def _shape(result: Result) -> str:
    return f"{result.kind.upper()} {', '.join(map(str, result.point))}"


def main() -> None:
    parser = timing.parser_of(__doc__, threads=[1, 2])
    parser.add_argument("--points", default="all", help="grid, odd, all, or B,F,H,T")
    parser.add_argument("--kinds", nargs="+", default=list(PACK), choices=list(PACK))
    parser.add_argument("--peers", nargs="*", default=list(peers.PEERS), choices=peers.PEERS)
    options = parser.parse_args()
    points = POINTS.get(options.points) or [tuple(map(int, options.points.split(",")))]
    side, products = limits.multiply_adds()
    rate = 2e-9 * products / timing.best(side)
    top = timing.machine("numba", "onnxruntime", "torch", "openvino")
    top += f". One core: {rate:.0f} GFLOP/s of multiply-adds.\n"
    print(top, flush=True)
    results = []
    for threads in options.threads:
        for kind in options.kinds:
            for point in points:
                r = measure(kind, point, threads, options.peers)
                results.append(r)
                sides = "  ".join(f"{name} {value:.3g}" for name, value in r.micros.items())
                print(
                    f"{threads} {kind} {point}: {sides}  ratio {r.ratio:.2f}  rate {r.rate:.0%}"
                    f"  speed-up {r.speedup:.2f}",
                    flush=True,
                )
    print()
    texts = {"kernels": f"{top}\n{report(results, options.peers)}"}
    if (options.points, options.kinds, options.peers) == ("all", list(PACK), list(peers.PEERS)):
        texts["kernels in short"] = in_short(results)
    timing.publish(texts, options.markdown)


if __name__ == "__main__":
    main()
