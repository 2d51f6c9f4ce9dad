"""Threads: who decides how many, and how lanes are dealt out."""

import contextlib
import gc
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from streamrnn.nn.kernels import get_threads, one_thread, set_threads, team, threads


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(team, "SLOW", 1e9)  # on a busy machine too
    monkeypatch.setattr(team, "_team", team._Team())
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


def test_a_window_of_few_lanes_keeps_one_thread_for_longer() -> None:
    with threads.limited(2):
        assert threads.pays(threads.MIN_PRODUCTS)
        assert threads.pays(threads.MIN_PRODUCTS, 6)
        assert not threads.pays(threads.MIN_PRODUCTS, 5)
        assert threads.pays(threads.FEW_LANES_FACTOR * threads.MIN_PRODUCTS, 1)
        assert not threads.pays(threads.MIN_PRODUCTS - 1, 6)


def test_few_weights_keep_one_thread() -> None:
    """Together only where a step is long enough to meet after it, and each has units."""
    assert threads.partners(1, threads.SHARE - 1, 99) == 1
    assert threads.partners(1, 2 * threads.SHARE, 99) == 2
    assert threads.partners(3, 99 * threads.SHARE, 99) == 3
    assert threads.partners(3, 99 * threads.SHARE, 2) == 2


def test_many_lanes_are_dealt_out() -> None:
    """Each thread then has three lanes or more to use a weight for."""
    assert threads.partners(8, 99 * threads.SHARE, 99) == 3
    assert threads.partners(9, 99 * threads.SHARE, 99) == 1


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000\n", 2), ("20000 100000", 1), ("max 100000", None)]
)
def test_the_quota_of_a_container_counts(tmp_path: Path, text: str, cores: int | None) -> None:
    """More threads than that would be stopped, each while others wait for it."""
    path = tmp_path / "cpu.max"
    path.write_text(text)
    assert threads._quota(path) == cores
    assert threads._quota(tmp_path / "none") is None


def test_those_who_work_together_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)
    seen = []

    def work(part: int) -> None:
        meeting.wait()
        seen.append(part)

    assert team.together(work, 3, lambda: None)
    assert sorted(seen) == [0, 1, 2]


def test_helpers_that_are_busy_hold_nobody_up() -> None:
    """Two callers at once: one has the helpers, the other does all lanes itself."""
    inside, go_on, ranges = threading.Barrier(4, timeout=20), threading.Event(), []

    def slow(first: int, last: int) -> None:
        inside.wait()
        assert go_on.wait(20)

    one = threading.Thread(target=threads.by_lanes, args=(slow, 7))
    one.start()
    inside.wait()
    threads.by_lanes(lambda first, last: ranges.append((first, last)), 7)
    assert not team.together(lambda part: ranges.append(part), 3, lambda: None)
    go_on.set()
    one.join()
    assert ranges == [(0, 7)]
    assert team.together(lambda part: None, 3, lambda: None)


def test_a_call_inside_a_call_works_alone() -> None:
    """As in a signal handler: the helpers of the thread's own outer call are no help."""
    done, ranges = threading.Event(), []

    def work(first: int, last: int) -> None:
        if first:
            assert done.wait(20)
        else:
            threads.by_lanes(lambda *some: ranges.append(some), 5)
            done.set()

    threads.by_lanes(work, 7)
    assert ranges == [(0, 5)]


def test_without_threads_the_caller_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the system allows no more of them."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ranges = []
    threads.by_lanes(lambda first, last: ranges.append((first, last)), 7)
    assert ranges == [(0, 7)]
    assert not team.together(lambda part: None, 3, lambda: None)


def test_a_thread_that_may_not_choose_its_core_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError("not allowed")

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    monkeypatch.setattr(team, "_core", lambda: 0)
    monkeypatch.setattr(team, "usable_cores", lambda: {0, 1, 2})
    ranges = []
    threads.by_lanes(lambda first, last: ranges.append((first, last)), 6)
    assert sorted(ranges) == [(0, 2), (2, 4), (4, 6)]


def test_a_helper_is_kept_off_its_callers_core_before_it_wakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Woken there it would wait for a time slice of the system, some 5 ms."""
    asked, caller = [], threading.get_ident()

    def ask(thread: int, cores: set[int]) -> None:
        asked.append((threading.get_ident(), thread, cores))

    monkeypatch.setattr(team, "_core", lambda: 0 if threading.get_ident() == caller else 1)
    monkeypatch.setattr(team, "usable_cores", lambda: {0, 1})
    monkeypatch.setattr(os, "sched_setaffinity", ask, raising=False)
    for _ in range(2):
        threads.by_lanes(lambda first, last: None, 2)
    helper = team._current()._helpers[0]._thread.native_id
    assert asked == [(caller, helper, {1})]  # once: it stays so
    threads.by_lanes(lambda first, last: None, 3)  # more threads than cores: wherever there is room
    assert asked[1] == (caller, helper, {0, 1})
    assert {cores == {0, 1} for _, _, cores in asked[1:]} == {True}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """Those of its parent do not live on in it."""
    threads.by_lanes(lambda first, last: None, 7)
    child = os.fork()
    if not child:
        signal.alarm(30)  # ends a child that hangs
        names = set()
        threads.by_lanes(lambda first, last: names.add(threading.get_ident()), 7)
        os._exit(0 if len(names) == 3 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_after_slow_calls_callers_are_left_to_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer and longer while it gets no better: other work holds the cores."""
    now, ranges = [100.0], []
    monkeypatch.setattr(team.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(team, "SLOW", -1e9)
    monkeypatch.setattr(team, "_team", team._Team())

    def parts() -> int:
        ranges.clear()
        threads.by_lanes(lambda first, last: ranges.append(first), 6)
        return len(ranges)

    assert (parts(), parts(), parts()) == (3, 3, 1)
    assert threads.partners(1, 99 * threads.SHARE, 99) == 1
    now[0] += team.LEAST_BACK_OFF
    assert (parts(), parts()) == (3, 1)
    now[0] += team.LEAST_BACK_OFF
    assert parts() == 1
    now[0] += team.LEAST_BACK_OFF
    monkeypatch.setattr(team, "SLOW", 1e9)
    assert (parts(), parts()) == (3, 3)
    monkeypatch.setattr(team, "SLOW", -1e9)
    assert (parts(), parts(), parts()) == (3, 3, 1)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_who_waits_for_a_part_that_failed_is_sent_home(failing: int) -> None:
    """Or it would wait forever, and the error never be seen."""
    meeting = threading.Barrier(3, timeout=20)

    def work(part: int) -> None:
        if part == failing:
            raise RuntimeError("one of them")
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait()

    with pytest.raises(RuntimeError, match="one of them"):
        team.together(work, 3, meeting.abort)
    assert team.together(lambda part: None, 3, lambda: None)


@pytest.mark.parametrize(("where", "which"), [("start", 1), ("wait", 0)])
def test_an_interrupted_call_ends_when_its_helpers_have(where: str, which: int) -> None:
    """They write into its arrays. The next call has them again."""
    finished: list[int] = []

    def work(first: int, last: int) -> None:
        if first:
            time.sleep(0.1)
            finished.append(last)

    threads.by_lanes(lambda first, last: None, 7)
    helper = team._current()._helpers[which]
    original, calls = getattr(helper, where), []

    def interrupted(*arguments: object) -> None:
        calls.append(where)
        if where == "start" or len(calls) > 1:
            original(*arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helper, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            threads.by_lanes(work, 7)
    assert sorted(finished) == [4, 7]
    threads.by_lanes(work, 7)
    assert sorted(finished) == [4, 4, 7, 7]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_interrupts_at_any_moment_leave_nothing_behind() -> None:
    """Hundreds of them; afterwards all helpers are idle, and calls have them."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def work(part: int) -> None:
        time.sleep(1e-5)

    assert team.together(work, 3, lambda: None)  # an import that is interrupted leaves a file open
    before = signal.signal(signal.SIGALRM, interrupt)
    rng, interrupts = np.random.default_rng(1), 0
    gc.disable()  # Hypothesis has a callback in it, and Python drops what is raised in one
    try:
        for _ in range(500):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 6e-4))
                for _ in range(50):
                    team.together(work, 3, lambda: None)
                time.sleep(0.1)
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert interrupts == 500
    # An interrupt in the midst of waiting may leave a helper at its job's end.
    until = time.monotonic() + 60
    while not all(helper.idle for helper in team._current()._helpers) and time.monotonic() < until:
        time.sleep(0.001)
    assert team.together(lambda part: None, 3, lambda: None)
    other = []
    caller = threading.Thread(
        target=lambda: other.append(team.together(lambda part: None, 3, lambda: None))
    )
    caller.start()
    caller.join()
    assert other == [True]
