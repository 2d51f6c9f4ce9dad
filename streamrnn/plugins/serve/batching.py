"""Requests that are waiting, scored together: at most so many rows, in order of arrival."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException

_LONGEST = 30.0
"""Seconds that a request may wait before its rows are scored."""


class _Waiting(NamedTuple):
    data: Any
    rows: int
    since: float
    answer: "asyncio.Future[Any]"


class Batcher:
    """Calls `score` on a thread with the data of requests; one call at a time, others wait.

    It returns what becomes of each: an answer, or an exception to raise. A call has at most
    `batch_rows` rows, or one request; at most `queue_rows` rows wait.
    """

    def __init__(
        self,
        score: Callable[[Sequence[Any]], Sequence[Any]],
        batch_rows: int,
        queue_rows: int,
    ) -> None:
        self._score = score
        self._batch_rows, self._queue_rows = batch_rows, queue_rows
        self._queue: deque[_Waiting] = deque()
        self.waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "streamrnn-serve")

    async def answer(self, data: Any, rows: int) -> Any:
        """Wait for the answer to a request with so many rows, or raise its exception.

        Raises HTTPException if too many are waiting, or it has waited too long.
        """
        if self.waiting + rows > self._queue_rows:
            raise _busy()
        loop = asyncio.get_running_loop()
        entry = _Waiting(data, rows, time.monotonic(), loop.create_future())
        self._queue.append(entry)
        self.waiting += rows
        if self._task is None:
            self._task = loop.create_task(self._run())
        return await entry.answer

    async def drain(self) -> None:
        """Wait until all that is waiting has its answer."""
        while self._task is not None:
            await asyncio.wait([self._task])
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while batch := self._next():
                data = [entry.data for entry in batch]
                try:
                    answers = await loop.run_in_executor(self._thread, self._score, data)
                except Exception as error:  # noqa: BLE001 - raised where the request waits
                    answers = [error] * len(batch)
                for entry, answer in zip(batch, answers, strict=True):
                    _resolve(entry, answer)
        finally:
            self._task = None

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows, oldest = 0, time.monotonic() - _LONGEST
        while self._queue and (not batch or rows + self._queue[0].rows <= self._batch_rows):
            entry = self._queue.popleft()
            self.waiting -= entry.rows
            if entry.since < oldest:
                _resolve(entry, _busy())
            elif not entry.answer.done():  # cancelled: the client is gone
                batch.append(entry)
                rows += entry.rows
        return batch


def _resolve(entry: _Waiting, answer: Any) -> None:
    if entry.answer.done():
        return
    if isinstance(answer, Exception):
        entry.answer.set_exception(answer)
    else:
        entry.answer.set_result(answer)


def _busy() -> HTTPException:
    return HTTPException(429, "too many rows are waiting", {"retry-after": "1"})
