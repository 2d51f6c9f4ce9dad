"""Threads for the independent pieces of one record batch."""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from streamrnn.nn.kernels import MIN_PRODUCTS, get_threads, one_thread
from streamrnn.nn.kernels.team import Crew

T = TypeVar("T")


class Workers:
    """A pool of `threads` threads (0: `streamrnn.get_threads()`), including the caller's.

    A piece is the work of whole kernels, so each kernel runs on one thread. The caller does not
    wait for a helper that has not started yet, so it does small pieces alone. (A pool of the
    standard library may lose a lock to an interrupt, and then wait forever.)
    """

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or get_threads()
        self._crew = Crew()
        self._share: _Share | None = None

    def shares(self, products: int) -> int:
        """Return among how many threads to divide this many multiply-adds."""
        return self.threads if products >= MIN_PRODUCTS else 1

    def map(self, work: Callable[[T], None], pieces: Sequence[T]) -> None:
        """Call `work` on each piece; raise the first error once all have ended.

        After an interrupt the remaining pieces are not started, and none is still running. Calls
        must not be concurrent.
        """
        if self._crew.process != os.getpid():  # threads do not survive a fork
            self._crew, self._share = Crew(), None
        if self._share is not None:  # left by a call that was interrupted while it waited in `end`
            self._share.end()
        if self.threads == 1 or len(pieces) < 2:
            with one_thread():
                for piece in pieces:
                    work(piece)
            return
        self._share = share = _Share(work, pieces)
        try:
            self._crew.call(share.help, min(self.threads, len(pieces)) - 1)
            with one_thread():
                share.take()
        finally:
            share.end()
        self._share = None
        if share.errors:
            raise share.errors[min(share.errors)]

    def __reduce__(self) -> "tuple[type[Workers], tuple[int]]":
        return Workers, (self.threads,)


class _Share:
    """The pieces of one call, and the helpers that may be working on one."""

    def __init__(self, work: Callable[[Any], None], pieces: Sequence[Any]) -> None:
        self.errors: dict[int, BaseException] = {}
        self._work = work
        self._left = deque(enumerate(pieces))
        self._turns: list[_Turn] = []

    def take(self) -> None:
        """Work on pieces until none is left."""
        while True:
            try:
                number, piece = self._left.popleft()
            except IndexError:
                return
            try:
                self._work(piece)
            except Exception as error:  # noqa: BLE001 - raised once all have ended
                self.errors[number] = error

    def help(self) -> None:
        """Do what `take` does, in another thread; `end` waits for it if it has started by then."""
        turn = _Turn()
        self._turns.append(turn)  # before a piece is taken
        try:
            with one_thread():
                self.take()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self.errors[-1] = error
        finally:
            turn.end()

    def end(self) -> None:
        """Drop the pieces not yet started and wait for the others, despite interrupts.

        The last interrupt is raised at the end. `end` may be called again.
        """
        interrupt = None
        self._left.clear()
        for turn in list(self._turns):  # a helper that starts later finds no piece
            while not turn.ended:
                try:
                    turn.wait()
                except BaseException as error:  # noqa: BLE001 - raised after the last wait
                    interrupt = error
        if interrupt is not None:
            raise interrupt


class _Turn:
    """One helper's work on a share, for which `_Share.end` waits.

    It is a bare lock, as an interrupt may leave the lock inside an Event held forever.
    """

    __slots__ = ("_lock", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire()

    def end(self) -> None:
        self.ended = True
        self._lock.release()
