"""Outputs and states have the bits that commit 9094e78 gave them, with vectors of any width."""

import subprocess
import sys
from pathlib import Path

from landed.make import HERE

SCRIPT = HERE.parent / "emulated" / "hashes.py"
RECORDED = HERE / "bits.txt"
"""What the script printed at commit 9094e78, with vectors of 4, 8 and 16 alike; cases that came
later, when they came."""


def test_the_hashes_are_those_that_were_recorded(tmp_path: Path) -> None:
    """Kinds, emits, cells and the weather pipeline; `.ci/run` runs it with the other widths too."""
    done = subprocess.run(
        [sys.executable, SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found, recorded = (set(text.splitlines()) for text in (done.stdout, RECORDED.read_text()))
    assert sorted(found - recorded) == []
    assert sorted(recorded - found) == []
