"""Whole processes of the README's run: the first one ever (cold cache), later ones, their floor.

    python tests/benchmarks/bench_start.py [--rounds 9] [--markdown FILE …]

Runs `streamrnn` of the environment that runs this script, as a user would; each cold run gets an
empty cache folder. Python keeps its bytecode, as it does of what pip installs. Beside it, in the
same rounds: Python alone, and imports of the libraries that a run cannot avoid. Medians; CPU
seconds (user and system) count what other processes do less than seconds do.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import timing

ROOT = Path(__file__).parents[2]
MAIN = "from streamrnn.cli import main; main()"
ARROW = "import pyarrow, pyarrow.compute, pyarrow.parquet"
FLOORS = {
    "Python alone": "pass",
    "`import numpy`": "import numpy",
    "`import numba`": "import numba",
    "`import pyarrow.parquet`": ARROW,
    "all libraries": f"{ARROW}, numba, pydantic.main, safetensors, typer.main",
}
"""What a process runs. Numba and pyarrow both import numpy."""


class Spent(NamedTuple):
    """Seconds of a process, by the clock and of the CPU."""

    wall: float
    cpu: float


def spent(code: str, arguments: list[str], cache: Path) -> Spent:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measured(rounds: int, base: Path) -> dict[str, list[Spent]]:
    """Every process once in each round."""
    run = ["run", "pipelines/weather.toml", "--quiet", "--set", f"sink.path={base / 'out'}"]
    commands = {"cold run": run, "warm run": run, "`--help`": ["--help"]}
    found: dict[str, list[Spent]] = {name: [] for name in (*FLOORS, *commands)}
    for _ in range(rounds):
        for name, code in FLOORS.items():
            found[name].append(spent(code, [], base / "cache"))
        for name, arguments in commands.items():
            if name == "cold run":
                shutil.rmtree(base / "cache", ignore_errors=True)
            shutil.rmtree(base / "out", ignore_errors=True)
            found[name].append(spent(MAIN, arguments, base / "cache"))
    return found


def row(name: str, times: list[Spent], floor: list[Spent]) -> list[str]:
    walls, cpus = zip(*times, strict=True)
    ratios = [own.cpu / least.cpu for own, least in zip(times, floor, strict=True)]
    return [
        name,
        f"{statistics.median(walls):.2f}",
        f"{min(walls):.2f} to {max(walls):.2f}",
        f"{statistics.median(cpus):.2f}",
        f"{statistics.median(ratios):.2f}",
    ]


def main() -> None:
    options = timing.parser_of(__doc__, rounds=9).parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measured(options.rounds, Path(name))
    head = ["process", "seconds", "all rounds", "CPU seconds", "CPU / all libraries"]
    rows = [row(name, times, found["all libraries"]) for name, times in found.items()]
    machine = timing.machine("numpy", "numba", "pyarrow", "pydantic", "typer")
    texts = {"start": f"{machine}\n\n{timing.table(head, rows)}"}
    timing.publish(texts, options.markdown)


if __name__ == "__main__":
    main()
