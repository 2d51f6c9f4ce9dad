"""Runs give the bits of the earliest commits."""

import json

import pytest
from landed import make

CASES = make.cases()
RECORDED: dict[str, dict[str, str]] = json.loads((make.HERE / "hashes.json").read_text())
"""Of commit 9094e78."""


@pytest.mark.parametrize("case", CASES)
def test_a_run_from_scratch_gives_the_bits_of_the_earliest_commit(case: str) -> None:
    """No bit of rows, rejects or states has moved since."""
    assert make.undisturbed(case, CASES[case]) == RECORDED[case]
