"""Tasks in this process, in any order, some of them twice: what a cluster may do to them."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from streamrnn.jobs.engines.probe import FolderToken
from streamrnn.jobs.engines.shard import OutputPlace, ShardTask, score_shard
from streamrnn.jobs.engines.splitting import RowRange, split
from streamrnn.stream.scoring import BoundPipeline
from streamrnn.stream.sources import FileSource, SourceFile


class Later:
    """The result of a call that is made when it is needed, or at any time before."""

    def __init__(self, call: Callable[[], bytes]) -> None:
        self._call = call
        self._value: bytes | None = None

    @property
    def done(self) -> bool:
        return self._value is not None

    def get(self) -> Any:
        """Every reader gets a copy of its own, as from another process."""
        if self._value is None:
            self._value = self._call()
        return pickle.loads(self._value)


def item(whole: Later, index: int) -> Later:
    return Later(lambda: pickle.dumps(whole.get()[index], protocol=5))


def value_of(handle: Any) -> Any:
    return handle.get() if isinstance(handle, Later) else handle


class TasksHere:
    """`twice` is the share of tasks that run twice, as after the death of a worker."""

    def __init__(self, seed: int = 0, workers: int = 2, twice: float = 0.3) -> None:
        self.workers = workers
        self.closed = self.canceled = 0
        self.tasks: list[ShardTask] = []
        self._random = random.Random(seed)
        self._twice = twice
        self._context = b""

    def begin(self, bound: BoundPipeline, source: FileSource) -> None:
        self._context = pickle.dumps((bound.for_worker(), source.subset([])), protocol=5)

    def check_nodes(self, place: OutputPlace, token: FolderToken, file: SourceFile | None) -> None:
        pass

    def put(self, state: pa.Table) -> Later:
        return Later(lambda: pickle.dumps(state, protocol=5))

    def split(self, row_range: RowRange, shards: int) -> tuple[Later, list[Later]]:
        context = self._context

        def call() -> Any:
            bound, source = pickle.loads(context)
            return split(bound, source, row_range, shards)

        whole = self._later(call)
        return item(whole, 0), [item(item(whole, 1), shard) for shard in range(shards)]

    def score(
        self, task: ShardTask, before: Any, state: Any, chunks: Sequence[Any]
    ) -> tuple[Later, Later]:
        context = self._context
        self.tasks.append(task)

        def call() -> Any:
            bound, _ = pickle.loads(context)
            values = [value_of(chunk) for chunk in chunks]
            return score_shard(bound, task, value_of(before), value_of(state), values)

        whole = self._later(call)
        return item(whole, 0), item(whole, 1)

    def _later(self, call: Callable[[], Any]) -> Later:
        def run() -> bytes:
            if self._random.random() < self._twice:
                call()
            return pickle.dumps(call(), protocol=5)

        return Later(run)

    def ready(self, handles: Sequence[Later]) -> list[Later]:
        found = self._random.sample(list(handles), self._random.randint(0, len(handles)))
        for handle in found:
            handle.get()
        return found

    def get(self, handle: Later) -> Any:
        return handle.get()

    def cancel(self) -> None:
        self.canceled += 1

    def close(self) -> None:
        self.closed += 1
