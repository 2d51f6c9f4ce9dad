"""The queue: waiting requests are scored together, in order of arrival, up to a limit of rows."""

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException

from streamrnn.errors import SinkError
from streamrnn.plugins.serve.scoring import Asked, Scoring
from streamrnn.stream.config.schema import ServeSection

_LONGEST = 30.0
"""Seconds that a request may wait before its rows are scored."""


class _Waiting(NamedTuple):
    asked: Asked
    since: float
    answer: "asyncio.Future[Any]"

    def resolve(self, answer: Any) -> None:
        if self.answer.done():  # cancelled: the client is gone
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class Service:
    """Queues requests, and answers them from `scoring`, once that is set.

    `name`: the model's name in requests. `ready`: whether callers may pass requests. A thread
    scores the requests, one call at a time. A call has at most `batch_rows` rows, or is for a
    single request; and it has at most one request of each producer, as the next one may be its
    retry. `waiting`: the number of rows in the queue, at most `queue_rows`. An error that no
    request has caused is kept in `failure`, and sets `ended`.
    """

    def __init__(self, name: str, keys: ServeSection) -> None:
        self.name = name
        self.ready = False
        self.scoring: Scoring
        self.waiting = 0
        self.failure: Exception | None = None
        self.ended = asyncio.Event()
        self._keys = keys
        self._closed = False
        self._queue: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "streamrnn-serve")

    async def score(self, asked: Asked) -> Any:
        """Wait for the answer to a request.

        Raises DataError and DTypeError for its rows; HTTPException if it has too many rows (413),
        if too many wait (429), if it waits too long (429; 503 if the server stops), or if the
        server ends (500, 507).
        """
        self.refuse_larger(len(asked.rows))
        if self._closed:
            raise try_again(503, "not ready")
        if self.waiting + len(asked.rows) > self._keys.queue_rows:
            raise _busy()
        loop = asyncio.get_running_loop()
        entry = _Waiting(asked, time.monotonic(), loop.create_future())
        self._queue.append(entry)
        self.waiting += len(asked.rows)
        if self._task is None:
            self._task = loop.create_task(self._run())
        return await entry.answer

    def refuse_larger(self, rows: int) -> None:
        """Refuse a request with more rows than may wait. Raises HTTPException."""
        if rows > self._keys.queue_rows:
            raise HTTPException(
                413,
                f"expected a request of at most {self._keys.queue_rows} rows (queue_rows of "
                f"[serve]), received {rows} or more. Send fewer at once",
            )

    def fail(self, error: Exception) -> None:
        """End the server because of an error; the first one is kept."""
        self.failure = self.failure or error
        self.ended.set()

    def close(self) -> None:
        """Refuse the requests that wait, and all new ones."""
        self._closed = True
        for entry in self._queue:
            entry.resolve(try_again(503, "not ready"))

    async def drain(self) -> None:
        """Wait until waiting requests are answered, and end the thread."""
        while self._task is not None:
            await asyncio.wait([self._task])
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while batch := self._next():
                asked = [entry.asked for entry in batch]
                try:
                    answers = await loop.run_in_executor(self._thread, self.scoring.answers, asked)
                except Exception as error:  # noqa: BLE001 - ends the server
                    self.fail(error)
                    text = "the server ends, and its log says why; it may have accepted these rows"
                    failed = HTTPException(507 if isinstance(error, SinkError) else 500, text)
                    answers = [failed] * len(batch)
                for entry, answer in zip(batch, answers, strict=True):
                    entry.resolve(answer)
        finally:
            self._task = None

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        producers: set[str | None] = set()
        rows, oldest = 0, time.monotonic() - _LONGEST
        while self._queue:
            entry = self._queue[0]
            size, producer = len(entry.asked.rows), entry.asked.producer
            if batch and (rows + size > self._keys.batch_rows or producer in producers):
                break
            self._queue.popleft()
            self.waiting -= size
            if entry.since < oldest:
                entry.resolve(_busy())
            if not entry.answer.done():
                batch.append(entry)
                rows += size
                producers |= {producer} - {None}
        return batch


def _busy() -> HTTPException:
    return try_again(429, "too many rows are waiting")


def try_again(status: int, text: str) -> HTTPException:
    """Return the refusal of a request that may be sent again in a second."""
    return HTTPException(status, text, {"retry-after": "1"})
