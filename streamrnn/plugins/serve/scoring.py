"""Requests wait in a queue, are scored together in a session, and are logged before answers leave.

`Service` is the queue, in the order of arrival, and `Scoring` the session with its log.
"""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, groupby
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from starlette.exceptions import HTTPException

from streamrnn.base.display import short_model
from streamrnn.errors import CheckpointError, ConfigError, DataError, DTypeError, SinkError
from streamrnn.jobs.outputs import log_folder, own_log
from streamrnn.jobs.session import Session
from streamrnn.plugins.serve.log import Log, Producers
from streamrnn.plugins.serve.values import RequestColumns, json_objects
from streamrnn.stream.config import Config
from streamrnn.stream.config.schema import ServeSection
from streamrnn.stream.config.values import LiveChange

Objects: TypeAlias = list[dict[str, Any]]
_REPLAYED = 32_768
"""Rows of the log are scored once so many are collected, or the segment ends."""
_LONGEST = 30.0
"""Seconds that a request may wait before its rows are scored."""


class Asked(NamedTuple):
    """A request: its rows, and a producer with a sequence number, if the request is numbered.

    Objects are answered with objects, a record batch with a record batch.
    """

    rows: Objects | pa.RecordBatch
    producer: str | None = None
    sequence: int = 0

    @property
    def of_objects(self) -> bool:
        """Whether the rows are objects, which are converted faster for many requests at once."""
        return isinstance(self.rows, list)


class Scoring:
    """Scores requests in a session, and appends accepted rows to the log if there is one.

    Rows that are in the log but in no commit are scored first. `columns`: the columns of requests.
    `answer_schema`: the schema of answers, None before it is known. Calls of `answers` must not
    overlap. Raises what a session raises, and SinkError.
    """

    def __init__(self, session: Session, config: Config) -> None:
        self.session = session
        self._source, self._keys = config.source, config.serve
        self._committing = threading.Lock()
        self._start()
        self.producers = Producers()
        self._log = None
        if self._keys.durable == "log":
            self._log = Log(log_folder(config), session.used())
            self.producers = self._log.producers
            session.read_from(self._log.take_closed)
            self._replay(self._log)

    def _start(self) -> None:
        """Learn the columns of requests and answers; unknown types come with the first rows."""
        schema, self.answer_schema = self.session.start()
        self.columns = RequestColumns(schema, self._source.time, self._source.renames)

    def _replay(self, log: Log) -> None:
        """Score the rows that are in the log but in no commit, and commit them."""
        log.closed = self.session.unused(log.segments)
        for path in log.closed or log.segments[-1:]:  # the last one has all producers
            for rows in _joined(log.read(path)):
                if log.closed:
                    self._score_again(rows, path)
        if log.closed:
            self.session.commit()
            self._start()

    def _score_again(self, rows: pa.RecordBatch, path: str) -> None:
        if len(rows) and (model := self.session.replaced_model) is not None:
            raise CheckpointError(
                f"{path}: rows that are in no commit were scored by model {short_model(model)}, "
                "and answered, and would now be scored by another model. Start `streamrnn serve` "
                "once with that model, and stop it again; or move this file away, to give its rows "
                "up"
            )
        try:
            reasons = self.session.process_requests(rows).column("reason")
            refused = reasons.filter(_refused(reasons)).to_pylist()
        except (DataError, DTypeError) as error:
            refused = [str(error)]
        if refused:
            raise CheckpointError(
                f"{path}: rows of answered requests are refused now: {refused[0].rstrip('.')}. Has "
                "the output or [source] changed since? Undo that change (of the output: `streamrnn "
                "rewind`), or move this file away, to give its rows up"
            )

    def commit(self) -> None:
        """Commit rows and state; remove old segments that all retained commits have used."""
        with self._committing:  # by the clock, and by clients
            self.session.commit()
            if self._log is not None and self._keys.keep_log:
                old = self._log.older(time.time() - self._keys.keep_log.total_seconds())
                self._log.remove(set(old).difference(self.session.unused(old, by_any=True)))

    def load_model(self, path: str, on_change: LiveChange) -> None:
        """Replace the model, and commit, so that after a crash the new model is used.

        Raises what a session raises.
        """
        if self.answer_schema is None:
            raise ConfigError(
                "load_model: no row has been scored, so no commit can name the model. Set it in "
                "[model] path and start again"
            )
        self.session.load_model(path, on_change)
        self.commit()

    def answers(self, requests: Sequence[Asked]) -> list[Any]:
        """Return, for each request, the answer, with a row for each of its rows, or an error.

        No two of the requests may be from one producer. If there is a log, accepted rows are on
        disk before this returns.
        """
        with self.session.together():
            told = [self._told(asked) for asked in requests]
            new = [asked for asked, answer in zip(requests, told, strict=True) if answer is None]
            scored = iter(self._scored(new) if new else ())
            answers = [next(scored) if answer is None else answer for answer in told]
            if self._log is not None:
                self._log.sync()
        return answers

    def _told(self, asked: Asked) -> Objects | pa.RecordBatch | Exception | None:
        """Return the answer to a retry, or an error; None for a new request."""
        if asked.producer is None:
            return None
        if self._log is None:
            return DataError('producer: a numbered request needs [serve] durable = "log"')
        answer = self.producers.answer(asked.producer, asked.sequence, self.answer_schema)
        in_json = asked.of_objects and isinstance(answer, pa.RecordBatch)
        return json_objects(answer) if in_json else answer

    def _scored(self, asked: Sequence[Asked]) -> list[Any]:
        """Return the answers to new requests, or their errors; log the accepted rows.

        A request is scored as a whole or not at all: if requests fail together, each half of them
        is scored on its own.
        """
        try:
            rows = self._rows_of(asked)
            answer = self.session.process_requests(rows)
        except (DataError, DTypeError) as error:
            if len(asked) == 1:
                return [error]
            half = len(asked) // 2
            return self._scored(asked[:half]) + self._scored(asked[half:])
        if self.answer_schema is None:
            self._start()
        objects = json_objects(answer) if any(each.of_objects for each in asked) else []
        answers: list[Any] = []
        told: dict[str, tuple[int, pa.RecordBatch]] = {}
        end = 0
        for each in asked:
            begin, end = end, end + len(each.rows)
            answers.append(objects[begin:end] if each.of_objects else answer[begin:end])
            if each.producer is not None:
                told[each.producer] = each.sequence, answer[begin:end]
        if self._log is not None:
            reasons = answer.column("reason")
            if reasons.null_count < len(reasons):
                rows = rows.filter(pc.invert(_refused(reasons)))
            if len(rows) or told:
                self._log.append(rows, told)
        return answers

    def _rows_of(self, asked: Sequence[Asked]) -> pa.RecordBatch:
        """Return the rows of requests as a record batch. Raises DataError if their types differ."""
        batches: list[Any] = []
        for of_objects, alike in groupby(asked, lambda each: each.of_objects):
            rows = [each.rows for each in alike]
            batches += [self.columns.of_objects([*chain(*rows)])] if of_objects else rows
        if len(batches) == 1:
            return batches[0]
        if any(batch.schema != batches[0].schema for batch in batches):
            raise DataError("expected the types of other requests")  # each is scored alone
        return pa.concat_batches(batches)

    def state_of(self, path: str) -> Objects:
        """Return the state of a stream as a list of one object; an empty list if there is none.

        `path`: the text of each key column, escaped as in the path of a URL, with "/" between the
        texts. Raises DataError.
        """
        names = self._source.key
        key = [*map(unquote, path.split("/") if len(names) > 1 else [path])]
        if len(key) != len(names):
            raise DataError(
                f"expected a value for each key column ({', '.join(names)}), received {len(key)}"
            )
        asked = [(name, pa.array([text])) for name, text in zip(names, key, strict=True)]
        keys = self.columns.batch(asked, 1).select(names).columns
        return list(chain(*map(json_objects, self.session.states(keys).to_batches())))


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of record batches, with small record batches joined."""
    rows, waiting = 0, []
    for batch in batches:
        waiting.append(batch)
        rows += len(batch)
        if rows >= _REPLAYED:
            yield pa.concat_batches(waiting)
            rows, waiting = 0, []
    if waiting:  # even if they have no rows: the session learns the types
        yield pa.concat_batches(waiting)


def _refused(reasons: pa.Array) -> pa.Array:
    refused = pc.match_substring_regex(reasons, "^(late$|repeated$|rejected: )")
    return pc.fill_null(refused, False)


def log_of(config: Config) -> AbstractContextManager[None]:
    """Own the log, if there is one. Raises ConfigError if it is at a URI or inside the output."""
    if config.serve.durable != "log":
        return nullcontext()
    sink, folder = str(config.sink.folder), log_folder(config)
    if "://" in folder:
        raise ConfigError(
            f"[serve] log: expected a directory on a disk of this machine, received {folder}. Set "
            'one, or [serve] durable = "commit"'
        )
    if (os.path.realpath(folder) + os.sep).startswith(os.path.realpath(sink) + os.sep):
        raise ConfigError(
            f"[serve] log: {folder} is inside the output, {sink}: readers of the output would "
            "find its files. Set another directory"
        )
    return own_log(folder, sink)


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
    """Queues requests, and answers them with `scoring`, which a caller sets before `ready`.

    `name`: the model's name in requests. `ready`: whether callers may pass requests. A thread
    scores the requests, one call at a time. A call has at most `batch_rows` rows, or is for a
    single request; and it has at most one request of each producer, as the producer's next request
    may be a retry. `waiting`: the number of rows in the queue, at most `queue_rows`. An error that
    no request has caused is kept in `failure`, and sets `ended`.
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

        Raises DataError and DTypeError for the request's rows; HTTPException if it has too many
        rows (413), if too many rows wait, or it waits too long (429), if the server stops (503), or
        if an error ends the server (500; 507 for SinkError).
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
