"""Independent pieces of one record batch on a few threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from streamrnn.kernels import get_threads, one_thread

T = TypeVar("T")


class Workers:
    """`threads` threads (0: as many as `streamrnn.get_threads()`), started when first needed.

    The pieces are whole kernels' work, so that a kernel itself stays on its thread.
    """

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or get_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def map(self, work: Callable[[T], None], pieces: Sequence[T]) -> None:
        """Do `work` on each piece; the first error is raised once all have ended."""
        if self.threads == 1 or len(pieces) < 2:
            with one_thread():
                for piece in pieces:
                    work(piece)
            return
        if self._pool is None or self._process != os.getpid():  # threads do not live on in a fork
            self._process = os.getpid()
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="streamrnn-lanes")
        try:
            futures = [self._pool.submit(_alone, work, piece) for piece in pieces]
            errors = [future.exception() for future in futures]
        except BaseException:
            # An interrupt: pieces that are under way write into arrays that the caller uses again.
            pool, self._pool = self._pool, None
            pool.shutdown(cancel_futures=True)
            raise
        for error in errors:
            if error is not None:
                raise error

    def __getstate__(self) -> dict[str, object]:
        return {"threads": self.threads, "_pool": None, "_process": 0}


def _alone(work: Callable[[T], None], piece: T) -> None:
    with one_thread():
        work(piece)
