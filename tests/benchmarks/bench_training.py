"""A step of training against PyTorch and Keras on JAX, and against the machine.

    python tests/benchmarks/bench_training.py                   # every point, one thread and two
    python tests/benchmarks/bench_training.py --points 32,16,64,64 --threads 1 --peers torch

One update: B lanes, F features, T steps, one or two recurrent layers of H units that return
sequences, Dense(1), mean squared error, Adam (fused in PyTorch), the state carried from step to
step (which Keras does not do on JAX). Keras runs `fit` over 20 batches, which is faster than
`train_on_batch` there, in its own process, as JAX has its own threads. After 3 updates from the
same weights the losses must agree; then all sides are timed in turn, and the machine with them: CPU
seconds of all threads if one is measured, else seconds. `ratio` is the best peer's time over ours.
`rate` is our share of the multiply-adds a second that a loop of nothing but multiply-adds reaches
on as many threads: a layer needs those of its forward sums twice (its outputs, and the gradients of
its weights), those of its states once more, and those of its inputs too if a layer precedes it.
Needs `pip install -e '.[bench,keras-jax]'`.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import limits
import numpy as np
import timing

from streamrnn import Input, Sequential, layers, optimizers, set_threads

Point = tuple[int, int, int, int]  # lanes B, features F, units H, steps T
POINTS: list[Point] = [(32, 16, 64, 64), (64, 64, 128, 64), (256, 16, 64, 32), (8, 16, 32, 128)]
PEERS = ("torch", "keras")
GATES = {"lstm": 4, "gru": 3}
Step = Callable[[], float]
"""One update; returns the loss."""
WINDOWS = 20
"""Batches of a call of Keras's `fit`."""
ROUNDS, SECONDS = 15, 0.04


class Case(NamedTuple):
    kind: str
    point: Point
    depth: int
    """Recurrent layers."""

    @property
    def label(self) -> str:
        return self.kind.upper() + (f", {self.depth} layers" if self.depth > 1 else "")

    def products(self) -> int:
        """Multiply-adds of a lane and step."""
        _, features, units, _ = self.point
        gates, total = GATES[self.kind] * units, 0
        for layer in range(self.depth):
            read = units if layer else features
            total += gates * (2 * (read + units) + units + (read if layer else 0))
        return total

    def data(self) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Weights in Keras's layout, inputs and truth."""
        lanes, features, units, steps = self.point
        rng = np.random.default_rng(5)
        shapes: list[tuple[int, ...]] = []
        for layer in range(self.depth):
            gates = GATES[self.kind] * units
            bias = (gates,) if self.kind == "lstm" else (2, gates)
            shapes += [(units if layer else features, gates), (units, gates), bias]
        shapes += [(units, 1), (1,)]
        weights = [(rng.standard_normal(s) / units**0.5).astype(np.float32) for s in shapes]
        x = rng.standard_normal((lanes, steps, features)).astype(np.float32)
        return weights, x, np.tanh(x[..., :1])


def stack(case: Case, of: Any) -> list[Any]:
    """The layers, of either library."""
    units = case.point[2]
    layer = {"lstm": of.LSTM, "gru": of.GRU}[case.kind]
    many = [layer(units, return_sequences=True, stateful=True) for _ in range(case.depth)]
    return [*many, of.Dense(1)]


def ours(case: Case, threads: int) -> Step:
    weights, x, y = case.data()
    set_threads(threads)
    model = Sequential([Input((None, case.point[1])), *stack(case, layers)])
    model.set_weights(weights)
    model.compile(optimizers.Adam(), "mse")
    return lambda: float(model.train_on_batch(x, y))


def torch_step(case: Case, threads: int) -> Step:
    import torch

    torch.set_num_threads(threads)
    weights, x, y = case.data()
    _, features, units, _ = case.point
    cls = torch.nn.LSTM if case.kind == "lstm" else torch.nn.GRU
    rnn = cls(features, units, num_layers=case.depth, batch_first=True)
    head = torch.nn.Linear(units, 1)
    with torch.no_grad():
        for layer in range(case.depth):
            kernel, recurrent, bias = weights[3 * layer : 3 * layer + 3]
            both = bias if case.kind == "gru" else np.stack([bias, np.zeros_like(bias)])
            for name, array in (
                (f"weight_ih_l{layer}", kernel.T),
                (f"weight_hh_l{layer}", recurrent.T),
                (f"bias_ih_l{layer}", both[0]),
                (f"bias_hh_l{layer}", both[1]),
            ):
                getattr(rnn, name).copy_(torch.tensor(_ordered(case.kind, array)))
        head.weight.copy_(torch.tensor(weights[-2].T))
        head.bias.copy_(torch.tensor(weights[-1]))
    adam = torch.optim.Adam([*rnn.parameters(), *head.parameters()], eps=1e-7, fused=True)
    inputs, truth, state = torch.tensor(x), torch.tensor(y), None

    def step() -> float:
        nonlocal state
        adam.zero_grad()
        outputs, after = rnn(inputs, state)
        state = tuple(s.detach() for s in after) if isinstance(after, tuple) else after.detach()
        loss = torch.nn.functional.mse_loss(head(outputs), truth)
        loss.backward()
        adam.step()
        return float(loss.detach())

    return step


def _ordered(kind: str, array: np.ndarray) -> np.ndarray:
    """Rows of gates in PyTorch's order: of a GRU r, z, n instead of z, r, n."""
    if kind == "lstm":
        return np.ascontiguousarray(array)
    update, reset, new = np.split(array, 3)
    return np.concatenate([reset, update, new])


class Local:
    """A side in this process."""

    def __init__(self, step: Callable[[], Any], threads: int) -> None:
        self.step = step
        self._clock = clock(threads)

    def seconds(self, calls: int) -> float:
        """Do so many updates; return the seconds of one."""
        start = self._clock()
        for _ in range(calls):
            self.step()
        return (self._clock() - start) / calls


def clock(threads: int) -> Callable[[], float]:
    return time.process_time if threads == 1 else time.perf_counter


class KerasProcess:
    """Keras in a process of its own: a number of batches in; the loss of one, or seconds, out."""

    def __init__(self, case: Case, threads: int) -> None:
        flags = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
        env = {
            **os.environ,
            "KERAS_BACKEND": "jax",
            "XLA_FLAGS": f"{flags} intra_op_parallelism_threads={threads}",
        }
        command = [sys.executable, __file__, "--serve", json.dumps([case, threads])]
        command = ["taskset", "-c", "0", *command] if threads == 1 else command
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _ask(self, batches: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{batches}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def step(self) -> float:
        """Do an update; return its loss."""
        return self._ask(1)

    def seconds(self, calls: int) -> float:
        """Do at least so many updates; return the seconds of one."""
        calls = -(-calls // WINDOWS)
        return sum(self._ask(WINDOWS) for _ in range(calls)) / calls

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def serve(case: Case, threads: int) -> None:
    """For each line, fit one batch and print the loss, or many and print the seconds of one."""
    import keras

    weights, x, y = case.data()
    lanes, features, _, steps = case.point
    first = keras.Input((steps, features), batch_size=lanes)
    model = keras.Sequential([first, *stack(case, keras.layers)])
    model.set_weights(weights)
    model.compile(keras.optimizers.Adam(), "mse")
    many = [np.tile(array, (WINDOWS, 1, 1)) for array in (x, y)]
    options = {"batch_size": lanes, "shuffle": False, "verbose": 0}
    now = clock(threads)
    for line in sys.stdin:
        if int(line) == 1:
            print(model.fit(x, y, **options).history["loss"][0], flush=True)
        else:
            start = now()
            model.fit(*many, **options)
            print((now() - start) / WINDOWS, flush=True)


def in_turn(sides: dict[str, Any], threads: int) -> dict[str, float]:
    """Median seconds of an update of each side; every round runs every side."""
    _, pause = timing.turns(threads)
    calls = {}
    for name, side in sides.items():
        side.seconds(2)
        calls[name] = max(1, round(SECONDS / side.seconds(2)))
    found: dict[str, list[float]] = {name: [] for name in sides}
    gc.disable()
    try:
        for _ in range(ROUNDS if threads == 1 else 2 * ROUNDS):
            for name, side in sides.items():
                time.sleep(pause)
                found[name].append(side.seconds(calls[name]))
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in found.items()}


class Result(NamedTuple):
    case: Case
    threads: int
    micros: dict[str, float]
    """µs a lane and step of each side."""
    rate: float

    @property
    def ratio(self) -> float:
        others = (micros for name, micros in self.micros.items() if name != "streamrnn")
        return min(others, default=float("nan")) / self.micros["streamrnn"]


def measure(case: Case, threads: int, names: list[str]) -> Result:
    """Check and time one case."""
    sides: dict[str, Any] = {"streamrnn": Local(ours(case, threads), threads)}
    for name in names:
        made = KerasProcess(case, threads) if name == "keras" else torch_step(case, threads)
        sides[name] = made if name == "keras" else Local(made, threads)
    try:
        wanted = [sides["streamrnn"].step() for _ in range(3)]
        for name in names:
            found = [sides[name].step() for _ in range(3)]
            # PyTorch trains two biases, so that their sum moves twice as far.
            if abs(found[0] / wanted[0] - 1) > 1e-4 or not np.allclose(found, wanted, rtol=0.03):
                raise SystemExit(f"{name} {case}: losses {found}, expected {wanted}")
        limit, work = limits.multiply_adds(threads)
        seconds = in_turn(sides | {"limit": Local(limit, threads)}, threads)
    finally:
        for side in sides.values():
            if isinstance(side, KerasProcess):
                side.close()
    lanes, _, _, steps = case.point
    rate = lanes * steps * case.products() / seconds["streamrnn"] / (work / seconds["limit"])
    micros = {name: 1e6 * seconds[name] / (lanes * steps) for name in sides}
    return Result(case, threads, micros, rate)


def report(results: list[Result], names: list[str]) -> str:
    """All results as Markdown tables."""
    parts = []
    for threads in sorted({r.threads for r in results}):
        chosen = [r for r in results if r.threads == threads]
        rows = [
            [
                r.case.label,
                ", ".join(map(str, r.case.point)),
                *(f"{r.micros[name]:.3g}" for name in ["streamrnn", *names]),
                f"{r.ratio:.2f}",
                f"{r.rate:.0%}",
            ]
            for r in chosen
        ]
        head = ["", "B, F, H, T", "streamrnn", *names, "ratio", "rate"]
        count = "1 thread" if threads == 1 else f"{threads} threads"
        parts += [f"**{count}**, µs a lane and step", timing.table(head, rows)]
        for kind in sorted({r.case.label for r in chosen}):
            ratios = [r.ratio for r in chosen if r.case.label == kind]
            mean = timing.geometric_mean(ratios)
            parts.append(f"- {kind}: geometric mean {mean:.2f}, least {min(ratios):.2f}")
    return "\n\n".join(parts)


def main() -> None:
    parser = timing.parser_of(__doc__, depths=[1, 2], threads=[1, 2])
    parser.add_argument("--points", default="all", help="all, or B,F,H,T")
    parser.add_argument("--kinds", nargs="+", default=list(GATES), choices=list(GATES))
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        (kind, point, depth), threads = json.loads(options.serve)
        serve(Case(kind, tuple(point), depth), threads)
        return
    points = POINTS if options.points == "all" else [tuple(map(int, options.points.split(",")))]
    top = timing.machine("numba", "torch", "keras", "jax") + ".\n"
    print(top, flush=True)
    results = []
    start = time.perf_counter()
    for threads in options.threads:
        for depth in options.depths:
            for kind in options.kinds:
                for point in points:
                    r = measure(Case(kind, point, depth), threads, options.peers)
                    results.append(r)
                    sides = "  ".join(f"{name} {value:.3g}" for name, value in r.micros.items())
                    print(
                        f"{threads} {r.case.label} {point}: {sides}  ratio {r.ratio:.2f}  "
                        f"rate {r.rate:.0%}  ({time.perf_counter() - start:.0f} s)",
                        flush=True,
                    )
    timing.publish({"training": f"{top}\n{report(results, options.peers)}"}, options.markdown)


if __name__ == "__main__":
    main()
