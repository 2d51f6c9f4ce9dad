"""What `pytest` leaves out, and what brings it back."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from selection import first_quick

TESTS = Path(__file__).parents[1]
CONFIG = f"""\
[pytest]
testpaths = tests
pythonpath = {TESTS} {TESTS / "support"}
addopts = --import-mode=importlib --strict-markers --numprocesses=auto
markers = slow
"""
FILE = '''\
import pytest

def test_quick():
    pass

@pytest.mark.slow
def test_slow():
    """It is. Slow: more rows."""

@pytest.mark.parametrize("case", ["usual", pytest.param("rare", marks=pytest.mark.slow)])
def test_cases(case):
    """Cases. Slow: rare ones."""
'''


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A folder with a suite of four tests, two of them slow, and the conftest of this one."""
    (tmp_path / "pytest.ini").write_text(CONFIG)
    (tmp_path / "tests").mkdir()
    shutil.copy(TESTS / "conftest.py", tmp_path / "tests")
    (tmp_path / "tests" / "test_few.py").write_text(FILE)
    return tmp_path


def said(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("workers", first_quick([0, 2]))
def test_without_arguments_the_quick_set_runs(suite: Path, workers: int) -> None:
    """The processes of pytest-xdist select as the first one does. Slow: in two processes."""
    output = said(suite, f"--numprocesses={workers}")
    assert "2 passed" in output
    assert "rare" not in output


@pytest.mark.parametrize(
    ("arguments", "workers"), first_quick([("--all", 0), ("--all", 2), ("tests", 2)])
)
def test_all_runs_with_the_option_or_a_path(suite: Path, arguments: str, workers: int) -> None:
    """Slow: a path, and the processes of pytest-xdist."""
    assert "4 passed" in said(suite, arguments, f"--numprocesses={workers}")


def test_one_slow_test_runs_if_it_is_named(suite: Path) -> None:
    """And a named file does not wait for other processes."""
    output = said(suite, "tests/test_few.py::test_slow")
    assert "1 passed" in output
    assert "worker" not in output


def test_a_slow_test_says_what_it_is_for(suite: Path) -> None:
    text = FILE.replace('    """It is. Slow: more rows."""', "    pass")
    (suite / "tests" / "test_few.py").write_text(text)
    output = said(suite, "--numprocesses=0")
    assert "passed" not in output
    assert "test_slow is marked slow: end its docstring" in output
