"""What asking layers for the layers inside them costs, beside another version of streamrnn.

    git worktree add /tmp/before COMMIT
    python tests/benchmarks/bench_children.py /tmp/before --markdown tests/benchmarks/README.md

Each version runs in a process of its own, on one thread, in turns; a time is that of the process's
CPU, and what counts is the ratio, the median over all rounds.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import machine, parser_of, publish, table

ROOT = Path(__file__).parents[2]
WORDS = [f"word {i}" for i in range(40_000)]
LEAST_SECONDS = 0.2


def sides(folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    from streamrnn import Input, Sequential, layers, load_model, set_threads
    from streamrnn.nn.formats.convert import convert

    class Listed(layers.Layer):
        """A user's layer with a list."""

        stepwise = True

        def __init__(self) -> None:
            super().__init__()
            self.words = WORDS

        def apply(self, inputs: Any, context: Any) -> Any:
            return inputs

    set_threads(1)
    draw = np.random.default_rng(0)
    y = draw.normal(size=(32, 1))
    x = draw.choice(WORDS, size=(32, 10)), draw.normal(size=(32, 10, 3)).astype(np.float32)
    first = layers.StringLookup(vocabulary=WORDS), layers.Embedding(len(WORDS) + 1, 4)
    lookup = Sequential([Input((None,), dtype="string"), *first, layers.LSTM(8), layers.Dense(1)])
    custom = Sequential([Input((None, 3)), Listed(), layers.LSTM(8), layers.Dense(1)])
    small = Sequential(
        [Input((None, 3)), layers.LSTM(8, return_sequences=True), layers.LSTM(8), layers.Dense(1)]
    )
    lookup.compile("sgd", "mse")
    custom.compile("sgd", "mse")
    words, native = folder / "words.safetensors", folder / "small.safetensors"
    torch = folder / "small.torch.safetensors"
    lookup.save(words)
    small.save(native)
    convert(native, torch)
    return {
        "a batch of a fit, StringLookup of 40,000 words": lambda: lookup.train_on_batch(x[0], y),
        "a batch of a fit, a user's layer with a list of 40,000 words": lambda: (
            custom.train_on_batch(x[1], y)
        ),
        "`load_model`, StringLookup of 40,000 words": lambda: load_model(words),
        "`load_model` of a state_dict, two LSTM and a Dense": lambda: load_model(torch),
    }


def serve() -> None:
    """Answer a name a line: the seconds of a call."""
    with tempfile.TemporaryDirectory() as folder:
        calls = sides(Path(folder))
        print(*calls, sep="\t", flush=True)
        for line in sys.stdin:
            call = calls[line.strip()]
            call()
            count, start = 0, time.process_time()
            while time.process_time() - start < LEAST_SECONDS:
                call()
                count += 1
            print((time.process_time() - start) / count, flush=True)


def start(tree: Path) -> Any:
    return subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tree)},
    )


def ask(version: Any, name: str) -> float:
    version.stdin.write(name + "\n")
    version.stdin.flush()
    return float(version.stdout.readline())


def main() -> None:
    parser = parser_of(__doc__, rounds=7)
    parser.add_argument("before", type=Path, nargs="?", help="checkout to compare with")
    options = parser.parse_args()
    if options.before is None:
        serve()
        return
    versions = start(options.before), start(ROOT)
    names, _ = (version.stdout.readline().strip().split("\t") for version in versions)
    rows = []
    for name in names:
        times = [[ask(version, name) * 1e3 for version in versions] for _ in range(options.rounds)]
        old, new = map(statistics.median, zip(*times, strict=True))
        ratio = statistics.median(before / now for before, now in times)
        rows.append((name, f"{old:.2f}", f"{new:.2f}", f"x{ratio:.1f}"))
        print(*rows[-1], flush=True)
    head = ("", "before, ms", "now, ms", "ratio")
    publish({"children": f"{machine('numpy')}\n\n{table(head, rows)}"}, options.markdown)


if __name__ == "__main__":
    main()
