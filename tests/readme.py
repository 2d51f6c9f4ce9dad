"""The blocks of the pages that people read, and a folder to run them in."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import streamrnn

ROOT = Path(__file__).parents[1]
PACKAGE = Path(streamrnn.__file__).parent
PAGES = (
    "README.md",
    "streamrnn/README.md",
    "tests/benchmarks/README.md",
    "pipelines/etl/README.md",
)
READERS = re.compile(r"^import (duckdb|polars)", re.MULTILINE)
"""Of a block for those who have the library: test_readme_oracle.py runs it."""
SPARK = re.compile(r"^from pyspark", re.MULTILINE)
"""Of a block that needs Spark: tests/spark/test_readme_spark.py runs it."""
STREAMRNN = f"{shlex.quote(sys.executable)} -c 'from streamrnn.cli import main; main()'"


def located(path: Path | str) -> Path:
    """A path of the repository; the package may be installed, and not stand beside the tests."""
    return (PACKAGE.parent if Path(path).parts[:1] == (PACKAGE.name,) else ROOT) / path


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block of a page."""
    text = located(page).read_text()
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def make_clone(base: Path) -> Path:
    """A folder that looks like the repository and may be written to."""
    for name in ("data", "pipelines", "streamrnn", "tests"):
        (base / name).symlink_to(located(name))
    return base


def shell(command: str, clone: Path) -> str:
    """What a command prints; `streamrnn` and `python` are those of the test."""
    if command.startswith("streamrnn "):
        command = STREAMRNN + command.removeprefix("streamrnn")
    elif command.startswith("python "):
        command = shlex.quote(sys.executable) + command.removeprefix("python")
    done = subprocess.run(
        command, shell=True, cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_python(block: str, clone: Path) -> str:
    """What a block of Python prints."""
    return shell(f"python -c {shlex.quote(block)}", clone)
