"""Recurrent layers in float32 beside another version of streamrnn; their bits must be equal.

    git worktree add /tmp/before COMMIT
    python tests/benchmarks/bench_versions.py /tmp/before --markdown tests/benchmarks/README.md

Each version runs in a process of its own, on one thread, in turns; a time is that of the process's
CPU, and what counts is the ratio, the median over all rounds. *masked*: a fifth of the steps is.
"""

import hashlib
import importlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from timing import machine, parser_of, publish, table

ROOT = Path(__file__).parents[2]
LEAST_SECONDS = 0.02
KINDS = {"lstm": (4, 2), "gru": (3, 1)}
GRID = [
    *((1, 16, 16, 128), (1, 16, 64, 128), (1, 64, 128, 128), (32, 16, 16, 128)),
    *((32, 16, 32, 128), (32, 7, 20, 128), (32, 16, 64, 128), (64, 64, 128, 64), (64, 16, 16, 1)),
]


class Version(NamedTuple):
    """A process that answers questions about one version."""

    questions: IO[str]
    answers: IO[str]


def run_of(kind: str, masked: str, sizes: list[int]) -> tuple[Callable[[], None], np.ndarray]:
    """Return a call of the kernel, and the array that it writes."""
    from streamrnn.nn.kernels import recurrent, set_threads

    set_threads(1)
    lanes, features, units, steps = sizes
    gates, count = KINDS[kind]
    draw = np.random.default_rng(0)
    shapes = (features, gates * units), (units, gates * units), (gates * units,)
    weights = [(draw.normal(size=shape) / np.sqrt(units)).astype(np.float32) for shape in shapes]
    x = draw.normal(size=(lanes, steps, features)).astype(np.float32)
    mask = draw.random((lanes, steps)) < 0.8 if masked == "masked" else None
    y = np.empty((lanes, steps, units), np.float32)
    try:
        from streamrnn.nn.kernels.swept import PLAIN_LSTM, pack_gru

        pack: Any = {"lstm": PLAIN_LSTM.pack, "gru": pack_gru}[kind]
    except ImportError:  # until December 2026
        pack = importlib.import_module(f"streamrnn.nn.kernels.{kind}").pack
    packed = pack(*weights)

    def run() -> None:
        states = [np.zeros((lanes, units), np.float32) for _ in range(count)]
        recurrent.run(packed, ("sigmoid", "tanh"), x, None, mask, states, y)

    return run, y


def serve() -> None:
    """Answer a point a line: the seconds of a lane and step, and a hash of the outputs."""
    for line in sys.stdin:
        kind, masked, *words = line.split()
        sizes = [int(word) for word in words]
        run, y = run_of(kind, masked, sizes)
        run()
        calls, seconds = 1, 0.0
        while seconds < LEAST_SECONDS:
            calls *= 2
            start = time.process_time()
            for _ in range(calls):
                run()
            seconds = time.process_time() - start
        steps = calls * sizes[0] * sizes[3]
        print(seconds / steps, hashlib.sha256(y.tobytes()).hexdigest(), flush=True)


def start(tree: Path) -> Version:
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tree)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    return Version(process.stdin, process.stdout)


def ask(version: Version, question: str) -> tuple[float, str]:
    version.questions.write(question + "\n")
    version.questions.flush()
    seconds, bits = version.answers.readline().split()
    return float(seconds), bits


def compare(before: Version, now: Version, question: str, rounds: int) -> tuple[str, ...]:
    """Return microseconds before and now, and the median of their ratios."""
    times = []
    for _ in range(rounds):
        (old, bits), (new, same) = ask(before, question), ask(now, question)
        if bits != same:
            raise SystemExit(f"{question}: the outputs differ")
        times.append((old * 1e6, new * 1e6, old / new))
    old, new, ratio = (statistics.median(column) for column in zip(*times, strict=True))
    return f"{old:.3f}", f"{new:.3f}", f"x{ratio:.2f}"


def main() -> None:
    parser = parser_of(__doc__, rounds=11)
    parser.add_argument("before", type=Path, nargs="?", help="checkout to compare with")
    options = parser.parse_args()
    if options.before is None:
        serve()
        return
    before, now = start(options.before), start(ROOT)
    rows = []
    for kind, sizes, masked in itertools.product(KINDS, GRID, ("", "masked")):
        question = " ".join([kind, masked or "all", *map(str, sizes)])
        point = ", ".join(map(str, sizes))
        row = (kind.upper(), point, masked, *compare(before, now, question, options.rounds))
        print(*row, flush=True)
        rows.append(row)
    head = ("", "B, F, H, T", "", "before, µs", "now, µs", "ratio")
    publish({"versions": f"{machine('numba')}\n\n{table(head, rows)}"}, options.markdown)


if __name__ == "__main__":
    main()
