"""How many rows a tile should have: layers on a CPU with vectors of 8 and 16 registers.

    python tests/benchmarks/bench_tiles.py

On any x86-64 CPU with AVX2: kernels are compiled for Haswell, each number of rows in a process and
a cache of its own, in turns. Prints microseconds a window (the least of all turns) and marks what
`simd.sweep.tile_rows` chooses. All numbers of rows give the same bits, which is checked.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from timing import parser_of

TARGET = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2,+f16c"}
POINTS = {"8 lanes, 64 units": (8, 16, 8, 64), "64 lanes, 128 units": (64, 16, 16, 128)}
ROWS = (1, 2, 3, 4)
SECONDS = 0.3


def cases() -> Iterator[tuple[str, np.ndarray, Callable[[], object]]]:
    """Name, outputs, and a call that computes them."""
    from streamrnn.nn.kernels import dense, recurrent
    from streamrnn.nn.kernels.swept import PLAIN_LSTM, SIMPLE_RNN, pack_gru

    rng = np.random.default_rng(0)
    kinds: dict[str, Any] = {
        "LSTM": (PLAIN_LSTM.pack, 4, 2),
        "GRU": (pack_gru, 3, 1),
        "SimpleRNN": (SIMPLE_RNN.pack, 1, 1),
    }
    for layer, (pack, gates, states) in kinds.items():
        for point, (lanes, steps, features, units) in POINTS.items():
            shapes = (features, gates * units), (units, gates * units)
            packed = pack(*((rng.normal(size=s) * 0.1).astype(np.float32) for s in shapes))
            x = rng.normal(size=(lanes, steps, features)).astype(np.float32)
            y = np.empty((lanes, steps, units), np.float32)
            names = ("sigmoid", "tanh")[2 - min(gates, 2) :]
            state = [np.zeros((lanes, units), np.float32) for _ in range(states)]
            yield (
                f"{layer}, {point}",
                y,
                partial(_restart, recurrent.run, packed, names, x, state, y),
            )
    x, y = rng.normal(size=(4096, 64)).astype(np.float32), np.empty((4096, 128), np.float32)
    packed = dense.pack(rng.normal(size=(64, 128)).astype(np.float32))
    yield "Dense, 4096 rows, 128 units", y, partial(dense.run, packed, x, y)


def _restart(run: Any, packed: Any, names: Any, x: Any, state: Any, y: Any) -> None:
    for each in state:
        each[:] = 0
    run(packed, names, x, None, None, state, y)


def measure(rows: int) -> dict[str, tuple[float, str, bool]]:
    """Name of the point -> (µs, hash of the outputs, whether the kernels chose so many rows)."""
    from streamrnn.nn.kernels import set_threads
    from streamrnn.nn.simd import sweep

    set_threads(1)
    chosen: set[int] = set()
    choose = sweep.tile_rows

    def forced(shape: sweep.TileShape) -> int:
        chosen.add(choose(shape))
        return rows

    sweep.tile_rows = forced
    found = {}
    for name, y, run in cases():
        layer = name.partition(",")[0]
        if not any(known.startswith(layer) for known in found):
            chosen.clear()
        run()
        bits, best = hashlib.sha256(y.tobytes()).hexdigest(), np.inf
        end = time.perf_counter() + SECONDS
        while (began := time.perf_counter()) < end:
            run()
            best = min(best, time.perf_counter() - began)
        found[name] = best * 1e6, bits, chosen == {rows}
    return found


def in_process(rows: int, cache: str) -> dict[str, tuple[float, str, bool]]:
    environment = {**os.environ, **TARGET, "STREAMRNN_SIMD": "8", "XDG_CACHE_HOME": cache}
    command = [sys.executable, __file__, "--rows", str(rows)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = parser_of(__doc__, markdown=False, turns=3)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rows:
        print(json.dumps(measure(options.rows)))
        return
    with tempfile.TemporaryDirectory() as folder:
        turns = [
            {rows: in_process(rows, f"{folder}/{rows}") for rows in ROWS}
            for _ in range(options.turns)
        ]
    print(f"| point | {' | '.join(f'{rows} rows' for rows in ROWS)} |\n|---|{'---|' * len(ROWS)}")
    for point in turns[0][ROWS[0]]:
        assert len({turn[rows][point][1] for turn in turns for rows in ROWS}) == 1, point
        least = {rows: min(turn[rows][point][0] for turn in turns) for rows in ROWS}
        cells = [f"{least[r]:.0f}{' *' if turns[0][r][point][2] else ''}" for r in ROWS]
        print(f"| {point} | {' | '.join(cells)} |")
    print("\n* the number of rows that the kernels choose")


if __name__ == "__main__":
    main()
