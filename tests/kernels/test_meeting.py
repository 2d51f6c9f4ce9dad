"""Threads that take a few lanes together, more of them than there are cores."""

import os
import time
from functools import partial

import numpy as np
import pytest
from kernelcases import KINDS, Case

from streamrnn.kernels import one_thread, set_threads, team, threads


@pytest.mark.parametrize("kind", KINDS)
def test_threads_that_wait_for_each_other_in_vain_go_on_alone(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes late is not waited for at every step: the first takes over, to the bit."""
    monkeypatch.setattr(threads, "SMALL", 0)
    monkeypatch.setattr(threads, "SHARE", 1)
    monkeypatch.setattr(team, "MOST_REST", 0)
    monkeypatch.setattr(team, "_team", team._Team())
    alone: list[bool] = []
    monkeypatch.setattr(threads, "learn", lambda slow: alone.append(slow))
    together, late = threads.together, False

    def work_late(work, part: int) -> None:
        if late and part == 1:
            time.sleep(0.02)
        work(part)

    monkeypatch.setattr(
        threads,
        "together",
        lambda work, *rest, **more: together(partial(work_late, work), *rest, **more),
    )
    case, rng = Case(kind, units=320), np.random.default_rng(3)
    set_threads((os.cpu_count() or 1) + 3)
    try:
        for late in [False, True] * 20:  # noqa: B007 - what work_late sees
            lanes, steps = int(rng.integers(1, 5)), int(rng.integers(2, 200))
            x, start = case.window(lanes, steps), case.start(lanes)
            lengths = rng.integers(0, steps + 1, lanes)
            lengths[0] = steps
            with one_thread():
                wanted, ends = case.run(x, start, lengths=lengths)
            y, states = case.run(x, start, lengths=lengths)
            np.testing.assert_array_equal(y, wanted)
            np.testing.assert_array_equal(states, ends)
    finally:
        set_threads(0)
    assert len(alone) == 40
    assert all(alone[1::2])
