"""Pieces of a record batch on threads: errors, interrupts, forks."""

import os
import pickle
import signal
import threading
import time
from concurrent.futures import Future

import pytest

from streamrnn.operators import Workers


def test_the_first_error_is_raised_once_all_have_ended() -> None:
    ended = []

    def work(piece: int) -> None:
        time.sleep(0.02 * piece)
        ended.append(piece)
        if piece < 2:
            raise ValueError(f"piece {piece}")

    with pytest.raises(ValueError, match="piece 0"):
        Workers(2).map(work, range(5))
    assert sorted(ended) == [0, 1, 2, 3, 4]


def test_after_an_interrupt_no_piece_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would write into arrays that the next call uses; those not yet begun are not done."""
    workers, ended = Workers(2), []

    def work(piece: int) -> None:
        time.sleep(0.05)
        ended.append(piece)

    def interrupted(future: Future[None]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Future, "exception", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workers.map(work, range(20))
    there = sorted(ended)
    assert len(there) < 20
    time.sleep(0.2)
    assert sorted(ended) == there
    ended.clear()
    workers.map(work, range(4))
    assert sorted(ended) == [0, 1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    workers = Workers(2)
    workers.map(lambda piece: None, range(4))
    child = os.fork()
    if not child:
        signal.alarm(30)  # ends a child that hangs
        names: set[int] = set()
        workers.map(lambda piece: names.add(threading.get_ident()), range(4))
        os._exit(0 if names and threading.get_ident() not in names else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_workers_can_be_pickled() -> None:
    workers = Workers(2)
    workers.map(lambda piece: None, range(4))
    done: list[int] = []
    pickle.loads(pickle.dumps(workers)).map(done.append, range(4))
    assert sorted(done) == [0, 1, 2, 3]
