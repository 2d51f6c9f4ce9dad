"""Whole-process seconds of the README's run: the first one ever (cold cache), and later ones.

    python tests/benchmarks/bench_start.py [--rounds 5] [--markdown FILE …]

Runs `streamrnn` of the environment that runs this script, as a user would; each cold run gets an
empty cache folder. Python keeps its bytecode, as it does of what pip installs. Also
`streamrnn --help`. Medians.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timing

ROOT = Path(__file__).parents[2]
STREAMRNN = [sys.executable, "-c", "from streamrnn.cli import main; main()"]


def seconds(arguments: list[str], cache: Path) -> float:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    subprocess.run(
        [*STREAMRNN, *arguments], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    timing.add_markdown(parser)
    options = parser.parse_args()
    found: dict[str, list[float]] = {"cold": [], "warm": [], "--help": []}
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        run = ["run", "pipelines/weather.toml", "--quiet", "--set", f"sink.path={base / 'out'}"]
        for _ in range(options.rounds):
            for kind, arguments in (("cold", run), ("warm", run), ("--help", ["--help"])):
                if kind == "cold":
                    shutil.rmtree(base / "cache", ignore_errors=True)
                shutil.rmtree(base / "out", ignore_errors=True)
                found[kind].append(seconds(arguments, base / "cache"))
    rows = [
        [kind, f"{statistics.median(times):.2f}", f"{min(times):.2f} to {max(times):.2f}"]
        for kind, times in found.items()
    ]
    table = timing.table(["start", "seconds", "all rounds"], rows)
    texts = {"start": f"{timing.machine('numba', 'pyarrow')}\n\n{table}"}
    timing.publish(texts, options.markdown)


if __name__ == "__main__":
    main()
