"""Threads that take a few lanes together, more of them than there are cores."""

import os

import numpy as np
import pytest
from kernelcases import KINDS, Case

from streamrnn.kernels import one_thread, set_threads, team, threads


@pytest.mark.parametrize("kind", KINDS)
def test_threads_that_wait_for_each_other_in_vain_go_on_alone(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many threads seldom have cores at the same time: the first takes over, to the bit."""
    monkeypatch.setattr(threads, "SMALL", 0)
    monkeypatch.setattr(threads, "SHARE", 1)
    monkeypatch.setattr(team, "MOST_REST", 0)
    monkeypatch.delenv("STREAMRNN_BOUNDSCHECK", raising=False)
    cores = os.cpu_count() or 1
    learned: list[bool] = []
    monkeypatch.setattr(threads, "learn", lambda slow: learned.append(slow))
    case, rng = Case(kind, units=90), np.random.default_rng(3)
    set_threads(cores + 3)
    try:
        for _ in range(40):
            lanes, steps = int(rng.integers(1, 5)), int(rng.integers(2, 200))
            x, start = case.window(lanes, steps), case.start(lanes)
            lengths = rng.integers(0, steps + 1, lanes)
            with one_thread():
                wanted, ends = case.run(x, start, lengths=lengths)
            y, states = case.run(x, start, lengths=lengths)
            np.testing.assert_array_equal(y, wanted)
            np.testing.assert_array_equal(states, ends)
    finally:
        set_threads(0)
    assert len(learned) == 40
    assert any(learned)
