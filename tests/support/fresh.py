"""Code in fresh processes, for example with sets and dicts in an order of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEEDS = ("0", "1", "2")


def printed(code: str, *arguments: str) -> list[list[str]]:
    """The lines that `code` prints, once for each of SEEDS as PYTHONHASHSEED."""
    return [
        python("-c", code, *arguments, PYTHONHASHSEED=seed).stdout.splitlines() for seed in SEEDS
    ]


def python(
    *arguments: object, cwd: Path = ROOT, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python, which imports what this process does, with more variables of the environment."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0 or not check, done.stderr
    return done
