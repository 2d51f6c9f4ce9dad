"""Pieces of a record batch on threads: errors, interrupts, forks."""

import gc
import os
import pickle
import signal
import threading
import time

import pytest
from selection import first_quick

from streamrnn.stream.operators import Workers
from streamrnn.stream.operators import workers as module

PATIENCE = 60
"""Seconds until a test fails that would hang."""


def test_the_first_error_is_raised_once_all_have_ended() -> None:
    """The first of the pieces, whichever comes first in time: here that of the second."""
    meeting, failed, ended = threading.Barrier(2, timeout=PATIENCE), threading.Event(), []

    def work(piece: int) -> None:
        if piece < 2:
            meeting.wait()
        if piece == 0:
            assert failed.wait(PATIENCE)
        ended.append(piece)
        if piece == 2:  # by the thread whose piece 1 has failed
            failed.set()
        if piece < 2:
            raise ValueError(f"piece {piece}")

    with pytest.raises(ValueError, match="piece 0"):
        Workers(2).map(work, range(5))
    assert sorted(ended) == [0, 1, 2, 3, 4]


def test_after_an_interrupt_no_piece_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would write into arrays that the next call uses; those not yet begun are not done."""
    workers, begun, awaited = Workers(2), threading.Event(), threading.Event()
    started: list[int] = []
    ended: list[int] = []
    wait = module._Turn.wait

    def work(piece: int) -> None:
        if threading.current_thread() is threading.main_thread():
            assert begun.wait(PATIENCE)
            raise KeyboardInterrupt
        started.append(piece)
        begun.set()
        assert awaited.wait(PATIENCE)
        ended.append(piece)

    def wait_for_the_helper(turn: module._Turn) -> None:
        awaited.set()
        wait(turn)

    monkeypatch.setattr(module._Turn, "wait", wait_for_the_helper)
    with pytest.raises(KeyboardInterrupt):
        workers.map(work, range(20))
    assert len(started) == 1
    assert ended == started
    done: list[int] = []
    workers.map(done.append, range(4))
    assert sorted(done) == [0, 1, 2, 3]


def test_a_piece_after_an_error_is_done_and_the_threads_are_there_for_the_next_call() -> None:
    """Each of two waits for the other: they are in two threads."""
    meeting = threading.Barrier(2, timeout=PATIENCE)

    def fail(piece: int) -> None:
        meeting.wait()
        raise ValueError(f"piece {piece}")

    workers = Workers(2)
    for _ in range(3):
        with pytest.raises(ValueError, match="piece 0"):
            workers.map(fail, range(4))


def test_nobody_waits_for_a_helper_that_has_not_come() -> None:
    """As where other work holds the cores: the caller does all pieces itself."""
    workers, leave = Workers(2), threading.Event()
    meeting = threading.Barrier(2, timeout=PATIENCE)

    def hold(piece: int) -> None:
        meeting.wait()
        if threading.current_thread() is not threading.main_thread():
            workers._crew.call(keep_busy, 1)

    def keep_busy() -> None:
        assert leave.wait(PATIENCE)

    workers.map(hold, range(2))
    done: list[int] = []
    workers.map(done.append, range(50))
    assert done == list(range(50))
    leave.set()
    workers.map(lambda piece: meeting.wait(), range(2))


def test_without_threads_the_caller_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the system allows no more of them."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done: list[int] = []
    Workers(3).map(done.append, range(9))
    assert done == list(range(9))


def test_a_helper_that_is_ended_is_an_error_and_not_a_hole() -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE)

    def work(piece: int) -> None:
        meeting.wait()
        if threading.current_thread() is not threading.main_thread():
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        Workers(2).map(work, range(2))


@pytest.mark.parametrize("count", first_quick([5, 50]))
def test_helpers_end_with_their_workers(count: int) -> None:
    """Of pipelines that are gone no thread is left. Slow: many of them."""

    def ours() -> int:
        return sum(thread.name == "streamrnn-lanes" for thread in threading.enumerate())

    gc.collect()
    before = ours()
    for _ in range(count):
        Workers(3).map(lambda piece: None, range(9))
    gc.collect()
    until = time.monotonic() + PATIENCE
    while ours() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert ours() <= before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    workers = Workers(2)
    workers.map(lambda piece: None, range(4))
    child = os.fork()
    if not child:
        signal.alarm(30)  # ends a child that hangs
        meeting = threading.Barrier(2)
        workers.map(lambda piece: meeting.wait(), range(4))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_workers_can_be_pickled() -> None:
    workers = Workers(2)
    workers.map(lambda piece: None, range(4))
    done: list[int] = []
    pickle.loads(pickle.dumps(workers)).map(done.append, range(4))
    assert sorted(done) == [0, 1, 2, 3]
