"""Timing that all benchmarks share: sides in turn, medians, tables."""

import argparse
import datetime
import gc
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

Side = Callable[[], object]


PAUSE = 0.06
"""Seconds before a turn: threads of ONNX Runtime spin on a core for 50 ms after their last call."""


def in_turn(
    sides: dict[str, Side], rounds: int = 15, seconds: float = 0.012, pause: float = 0.002
) -> dict[str, float]:
    """Median seconds of a call of each side; every round calls every side for about `seconds`."""
    calls = {name: _calls(side, seconds) for name, side in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    gc.disable()
    try:
        for _ in range(rounds):
            for name, side in sides.items():
                time.sleep(pause)
                side()
                start = time.perf_counter()
                for _ in range(calls[name]):
                    side()
                times[name].append((time.perf_counter() - start) / calls[name])
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def turns(threads: int) -> tuple[int, float]:
    """Rounds of `in_turn`, and its pause. The cores of a virtual machine are slow together now and
    then, for longer than a round: several threads take more of them."""
    return (31, PAUSE) if threads > 1 else (15, 0.002)


def best(side: Side, rounds: int = 30, seconds: float = 0.01) -> float:
    """Least seconds of a call: what the machine can do when nothing disturbs it."""
    calls, times = _calls(side, seconds), []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            side()
        times.append((time.perf_counter() - start) / calls)
    return min(times)


def _calls(side: Side, seconds: float) -> int:
    """How many calls take about `seconds`, after a warm-up."""
    side()
    side()
    start = time.perf_counter()
    side()
    return max(1, round(seconds / max(time.perf_counter() - start, 1e-7)))


def geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def parser_of(
    doc: str | None, *, markdown: bool = True, **defaults: float | list[int]
) -> argparse.ArgumentParser:
    """The command line of a benchmark: an option for each default, and where `publish` writes.

    Options have the type of their default; after one with a list there may be several numbers.
    """
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    for name, default in defaults.items():
        several = isinstance(default, list)
        kind = int if isinstance(default, list) else type(default)
        parser.add_argument(f"--{name}", type=kind, nargs="+" if several else None, default=default)
    if markdown:
        what = "write what is found to these files"
        parser.add_argument("--markdown", type=Path, nargs="+", default=[], help=what)
    return parser


def publish(texts: dict[str, str], paths: Iterable[Path]) -> None:
    """Print the first text and write it to files. Of a page with lines `<!-- name -->` and
    `<!-- end of name -->`, as the READMEs have, only what stands between becomes that text."""
    whole = next(iter(texts.values()))
    print(whole)
    for path in paths:
        page = path.read_text() if path.exists() else ""
        for name, text in texts.items():
            begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
            if begin in page:
                head, _, rest = page.partition(begin)
                page = f"{head}{begin}\n{text}\n\n{end}{rest.partition(end)[2]}"
        path.write_text(page if "<!-- end of " in page else f"{whole}\n")


def machine(*packages: str) -> str:
    """Processor, cores, versions and the day, in a line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].partition(":")[2].strip() if names else name
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    day = datetime.datetime.now(datetime.UTC).date()
    return f"{name}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}; {day}"
