"""Code in fresh processes, which order their sets and dicts in their own way."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEEDS = ("0", "1", "2")


def printed(code: str, *arguments: str) -> list[list[str]]:
    """The lines that `code` prints, once for each of SEEDS as PYTHONHASHSEED."""
    return [_lines(code, seed, arguments) for seed in SEEDS]


def _lines(code: str, seed: str, arguments: Sequence[str]) -> list[str]:
    places = [str(ROOT), *filter(None, sys.path)]
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
