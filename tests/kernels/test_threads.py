"""Threads: who decides how many, and how lanes are dealt out."""

import contextlib
import os
import threading
import time

import numpy as np
import pytest

from streamrnn.kernels import get_threads, one_thread, set_threads, team, threads


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(team, "SLOW", 60)  # on a busy machine too
    monkeypatch.delenv("STREAMRNN_BOUNDSCHECK", raising=False)
    set_threads(3)
    yield
    set_threads(0)


def test_zero_means_all_cores_and_less_is_refused() -> None:
    set_threads(0)
    assert get_threads() >= 1
    with pytest.raises(ValueError, match=r"0 \(all cores\) or more, received -1"):
        set_threads(-1)


@pytest.mark.parametrize("lengths", [None, [9, 1, 1, 1, 1, 1, 1], [0] * 7, [0, 0, 0, 0, 0, 0, 8]])
def test_every_lane_is_taken_once(lengths: list[int] | None) -> None:
    taken = []
    given = None if lengths is None else np.array(lengths)
    threads.by_lanes(lambda first, last: taken.extend(range(first, last)), 7, given)
    assert sorted(taken) == list(range(7))


def test_ragged_lanes_are_dealt_out_by_steps() -> None:
    """Longest first, as windows pack them: the first thread gets fewer lanes."""
    ranges = []
    lengths = np.array([60, 30, 30, 20, 20, 10, 10])
    threads.by_lanes(lambda first, last: ranges.append((first, last)), 7, lengths)
    steps = [int(lengths[first:last].sum()) for first, last in ranges]
    assert steps == [60, 60, 60]


def test_an_error_in_another_thread_is_not_lost() -> None:
    def work(first: int, last: int) -> None:
        if first:
            raise RuntimeError("lane")

    with pytest.raises(RuntimeError, match="lane"):
        threads.by_lanes(work, 7)


def test_one_thread_holds_for_the_calling_thread_only() -> None:
    seen = {}

    def look(name: str) -> None:
        seen[name] = threads.pays(10**12)

    with one_thread(), one_thread():
        look("inside")
        other = threading.Thread(target=look, args=("elsewhere",))
        other.start()
        other.join()
    look("after")
    assert seen == {"inside": False, "elsewhere": True, "after": True}


def test_few_weights_keep_one_thread() -> None:
    """Together only where a step is long enough to meet after it; never where one might raise."""
    assert threads.partners(1, threads.SHARE - 1) == 1
    assert threads.partners(1, 2 * threads.SHARE) == 2
    assert threads.partners(3, 99 * threads.SHARE) == 3


def test_many_lanes_are_dealt_out() -> None:
    """Each thread then has three lanes or more to use a weight for."""
    assert threads.partners(8, 99 * threads.SHARE) == 3
    assert threads.partners(9, 99 * threads.SHARE) == 1


def test_checked_accesses_keep_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that raised would never come to the next meeting."""
    monkeypatch.setenv("STREAMRNN_BOUNDSCHECK", "1")
    assert threads.partners(1, 99 * threads.SHARE) == 1


def test_those_who_work_together_run_at_the_same_time() -> None:
    """Also when two callers want it at once: then one after the other."""
    meeting = threading.Barrier(3, timeout=20)
    seen = []

    def work(part: int) -> None:
        meeting.wait()
        seen.append(part)

    arguments = work, 3, meeting.abort
    callers = [threading.Thread(target=threads.together, args=arguments) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(seen) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_a_team_that_is_taken_does_not_hold_up_others() -> None:
    """Two callers at once: one has the threads, the other does all lanes itself."""
    inside, go_on, ranges = threading.Event(), threading.Event(), []

    def slow(first: int, last: int) -> None:
        if not first:
            inside.set()
            assert go_on.wait(20)

    one = threading.Thread(target=threads.by_lanes, args=(slow, 7))
    one.start()
    assert inside.wait(20)
    threads.by_lanes(lambda first, last: ranges.append((first, last)), 7)
    go_on.set()
    one.join()
    assert ranges == [(0, 7)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """Those of its parent do not live on in it."""
    threads.by_lanes(lambda first, last: None, 7)
    child = os.fork()
    if not child:
        names = set()
        threads.by_lanes(lambda first, last: names.add(threading.get_ident()), 7)
        os._exit(0 if names else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_after_a_slow_call_callers_are_left_to_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer and longer while it gets no better: other work holds the cores."""
    now, ranges = [100.0], []
    monkeypatch.setattr(team.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(team, "SLOW", -1)
    monkeypatch.setattr(team, "_team", team._Team())

    def parts() -> int:
        ranges.clear()
        threads.by_lanes(lambda first, last: ranges.append(first) or time.sleep(0.002 * first), 6)
        return len(ranges)

    assert parts() == 3
    assert parts() == 1
    assert threads.partners(1, 99 * threads.SHARE) == 1
    now[0] += team.LEAST_REST
    assert parts() == 3
    now[0] += team.LEAST_REST
    assert parts() == 1
    now[0] += team.LEAST_REST
    monkeypatch.setattr(team, "SLOW", 60)
    assert (parts(), parts()) == (3, 3)


def test_who_waits_for_a_first_part_that_failed_is_sent_home() -> None:
    """Or it would wait forever, and the error never be seen."""
    meeting = threading.Barrier(3, timeout=20)

    def work(part: int) -> None:
        if not part:
            raise RuntimeError("first")
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait()

    with pytest.raises(RuntimeError, match="first"):
        threads.together(work, 3, meeting.abort)


def test_an_interrupted_call_does_not_upset_the_next_one() -> None:
    """Ctrl-C while the caller waits: the helper ends its job later, and that end is not taken for
    the end of the job after it."""
    finished: list[int] = []
    slow = threading.Event()

    def work(first: int, last: int) -> None:
        if first:
            assert slow.wait(20)
            finished.append(last)

    helpers = team._mine()
    threads.by_lanes(lambda first, last: None, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helpers._helpers[0], "error", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            threads.by_lanes(work, 2)
    slow.set()
    threads.by_lanes(work, 2)
    assert finished == [2, 2]


def _interrupt() -> None:
    raise KeyboardInterrupt
