"""Requests that are scored in a session, and are in the log before their answers."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from starlette.exceptions import HTTPException

from streamrnn.errors import ConfigError, DataError, StreamRNNError
from streamrnn.jobs.session import Session
from streamrnn.plugins.serve.log import Log, logged_batches
from streamrnn.plugins.serve.producers import Producers
from streamrnn.plugins.serve.values import JsonColumns, json_objects
from streamrnn.stream.config import Config

Objects: TypeAlias = list[dict[str, Any]]
_REPLAYED = 131_072
"""Rows of the log that are scored at once."""


class Asked(NamedTuple):
    """A request: its rows, and which one of its producer it is, if that is known.

    Rows that are objects have an answer of objects.
    """

    rows: Objects | pa.RecordBatch
    producer: str | None = None
    sequence: int = 0


class Scoring:
    """Scores requests into a session, and appends them to the log if there is one.

    What was in the log and in no commit is scored first. Calls must not overlap. Raises what a
    session raises, and SinkError.
    """

    def __init__(self, session: Session, config: Config) -> None:
        self._session = session
        self._source, self._keys = config.source, config.serve
        self.producers = Producers()
        self.columns = self._known_columns()
        self._log = Log(_log_folder(config)) if self._keys.durable == "log" else None
        if self._log is not None:
            session.read_from(self._log.take_closed)
            self._replay(self._log)

    def _known_columns(self) -> JsonColumns:
        columns = JsonColumns(self._session.start(), self._source.time, self._source.renames)
        if columns.known:
            ((nothing, _),) = self._session.process_requests(columns.batch([]), [0])
            assert isinstance(nothing, pa.RecordBatch)
            self.answer_schema = nothing.schema
        return columns

    def _replay(self, log: Log) -> None:
        """Score what is in the log and in no commit, and commit it."""
        segments = log.segments
        unused = self._session.unused(segments)
        for path in unused or segments[-1:]:
            rows = 0
            waiting: list[pa.RecordBatch] = []
            for batch, note in logged_batches(path):
                self.producers.load(note)
                if unused and len(batch):
                    waiting.append(batch)
                    rows += len(batch)
                if rows >= _REPLAYED:
                    self._again(waiting)
                    rows, waiting = 0, []
            self._again(waiting)
        for path in unused:
            log.to_commit(path)
        if unused:
            self._session.commit()
            self.columns = self._known_columns()

    def _again(self, batches: list[pa.RecordBatch]) -> None:
        if batches:
            rows = pa.concat_batches(batches)
            for answer, _ in self._session.process_requests(rows, [len(rows)]):
                if isinstance(answer, StreamRNNError):
                    raise answer

    def commit(self) -> None:
        """Commit rows and state, and remove segments of the log that may go."""
        self._session.commit()
        if self._log is not None and self._keys.keep_log:
            old = self._log.older(time.time() - self._keys.keep_log.total_seconds())
            self._log.remove(set(old).difference(self._session.unused(old, by_any=True)))

    def answers(self, requests: Sequence[Asked]) -> list[Any]:
        """Return the answer to each request, or the error that it gets."""
        found: list[Any] = [None] * len(requests)
        with self._session.together():
            waiting: dict[int, Asked] = {}
            producers: set[str] = set()
            for index, asked in enumerate(requests):
                if asked.producer is not None:
                    if asked.producer in producers:
                        self._score(waiting, found)
                        producers.clear()
                    producers.add(asked.producer)
                    try:
                        found[index] = self._retried(asked, asked.producer)
                    except (HTTPException, DataError) as error:
                        found[index] = error
                if found[index] is None:
                    waiting[index] = asked
            self._score(waiting, found)
            if self._log is not None:
                self._log.sync()
        return found

    def _retried(self, asked: Asked, producer: str) -> Objects | pa.RecordBatch | None:
        if self._log is None:
            raise DataError('producer: retries need the log of [serve] durable = "log"')
        answer = self.producers.answer(producer, asked.sequence, self.answer_schema)
        return answer if answer is None or not _as_json(asked) else json_objects(answer)

    def _score(self, waiting: dict[int, Asked], found: list[Any]) -> None:
        """Score the requests that are waiting, and enter what becomes of each."""
        asked = [*waiting.values()]
        for index, answer in zip(waiting, self._scored(asked) if asked else (), strict=True):
            found[index] = answer
        waiting.clear()

    def _scored(self, asked: list[Asked]) -> list[Any]:
        try:
            rows = self._rows_of(asked)
        except (DataError, pa.ArrowException) as error:
            if len(asked) == 1:
                return [error]
            half = len(asked) // 2
            return self._scored(asked[:half]) + self._scored(asked[half:])
        answers: list[Any] = []
        first = 0
        for answer, sizes in self._session.process_requests(rows, [len(a.rows) for a in asked]):
            size, these = sum(sizes), asked[len(answers) : len(answers) + len(sizes)]
            if isinstance(answer, StreamRNNError):
                answers.append(answer)
            else:
                self._accept(rows.slice(first, size), answer, these, sizes)
                if any(map(_as_json, these)):
                    objects = json_objects(answer)
                for each, (start, end) in zip(these, _spans(sizes), strict=True):
                    answers.append(objects[start:end] if _as_json(each) else answer[start:end])
            first += size
        if not self.columns.known:
            self.columns = self._known_columns()
        return answers

    def _rows_of(self, asked: list[Asked]) -> pa.RecordBatch:
        """Return the rows of some requests. Raises ArrowInvalid if their types differ."""
        batches: list[pa.RecordBatch] = []
        for as_json, alike in groupby(asked, _as_json):
            if as_json:
                batches.append(self.columns.batch([row for each in alike for row in each.rows]))
            else:
                batches += [each.rows for each in alike]
        return batches[0] if len(batches) == 1 else pa.concat_batches(batches)

    def state_of(self, key: Sequence[str]) -> Objects:
        """Return the state of a stream, as a list of one object; an empty one without it."""
        if len(key) != len(self._source.key):
            raise DataError(f"expected a key of {', '.join(self._source.key)}")
        keys = []
        for name, text in zip(self._source.key, key, strict=True):
            value: str | int = text
            if pa.types.is_integer(self.columns.schema.field(name).type):
                try:
                    value = int(text)
                except ValueError:
                    expected = f"column {name!r}: expected an integer, received {text!r:.80}"
                    raise DataError(expected) from None
            keys.append(self.columns.array(name, [value]))
        return [
            row for batch in self._session.states(keys).to_batches() for row in json_objects(batch)
        ]

    def load_model(self, path: str, on_change: Any) -> None:
        """Let another model score from the next request on, as `Session.load_model` does."""
        self._session.load_model(path, on_change)

    def _accept(
        self,
        rows: pa.RecordBatch,
        answer: pa.RecordBatch,
        asked: Iterable[Asked],
        sizes: Sequence[int],
    ) -> None:
        """Append rows to the log that are in the state, with what their producers were told."""
        if self._log is None:
            return
        before = self.producers.text
        told = {
            each.producer: (each.sequence, answer.slice(first, end - first))
            for each, (first, end) in zip(asked, _spans(sizes), strict=True)
            if each.producer is not None
        }
        reasons = answer.column("reason")
        if reasons.null_count < len(reasons):
            rows = rows.filter(pc.invert(_refused(reasons)))
        if len(rows) or told:
            self._log.append(rows, self.producers.note(told), before)


def _refused(reasons: pa.Array) -> pa.Array:
    """Return which rows are not in the state."""
    refused = pc.or_(
        pc.is_in(reasons, pa.array(["late", "repeated"])), pc.starts_with(reasons, "rejected: ")
    )
    return pc.fill_null(refused, False)


def _spans(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    return pairwise(accumulate(sizes, initial=0))


def _as_json(asked: Asked) -> bool:
    return isinstance(asked.rows, list)


def _log_folder(config: Config) -> str:
    """Return the folder of the log. Raises ConfigError if it is not on a disk of its own."""
    sink = str(config.sink.folder)
    folder = config.serve.log or f"{sink.rstrip('/')}.accepted"
    if "://" in folder:
        raise ConfigError(
            f"[serve] log: expected a directory on a disk of this machine, received {folder}. Set "
            'one, or [serve] durable = "commit"'
        )
    if os.path.realpath(folder).startswith(os.path.realpath(sink) + os.sep):
        raise ConfigError(
            f"[serve] log: {folder} is inside the output, {sink}, which has parts only. Set another"
        )
    return folder
