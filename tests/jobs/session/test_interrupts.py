"""Interrupts inside `process`: the state is as it was before the call or as it is after it.

For a longer search: STREAMRNN_FUZZ=20000 pytest tests/jobs/session/test_interrupts.py (200 by
default: so many interrupts at random moments, of each kind of pipeline a share).
"""

import ast
import ctypes
import itertools
import linecache
import os
import pickle
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from types import CodeType, FrameType
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pytest
from selection import first_quick

import streamrnn
from streamrnn import Pipeline
from streamrnn.errors import DataError
from streamrnn.jobs.pipeline import pipeline as pipeline_module
from streamrnn.jobs.session import calls
from streamrnn.states import diff

INTERRUPTS = int(os.environ.get("STREAMRNN_FUZZ", "200"))
KINDS: dict[str, dict[str, Any]] = {
    "carry": {},
    "plain": {"source": {"reset": None}},
    "threads": {"window": {"lanes": 1, "steps": 3}, "model": {"threads": 2}},
    "two keys": {"source": {"key": ["id", "part"]}},
    "independent": {"window": {"kind": "independent", "steps": 3, "stride": 2}},
    "final": {"output": {"emit": "final"}},
    "rejects": {"source": {"bad": "reject", "late": "reject", "max_rejects": 10**9}},
}
PROCESS: CodeType = Pipeline.process.__code__


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = str(tmp_path / "m.safetensors")
    logs.small_model().save(path)
    return path


def _batches(seed: int, spoilt: bool) -> Iterator[pa.RecordBatch]:
    """Record batches without end: old streams and new ones, nulls, resets, later and later."""
    rng = np.random.default_rng(seed)
    number = 0
    while True:
        number += 1
        rows = int(rng.integers(1, 60))
        a = rng.normal(size=rows)
        late = rng.random(rows) < 0.05
        if spoilt:
            a[rng.random(rows) < 0.1] = np.inf
        yield pa.record_batch(
            {
                "id": pa.array([f"s{i}" for i in rng.integers(0, 20 + 15 * number, rows)]),
                "part": pa.array(rng.integers(0, 2, rows)),
                "t": pa.array(number - 2 * (late if spoilt else 0 * late)).cast(pa.timestamp("s")),
                "a": pa.array(a, mask=rng.random(rows) < 0.1),
                "b": pa.array(rng.integers(-3, 4, rows).astype(np.int32)),
                "new": pa.array(rng.random(rows) < 0.1),
            }
        )


def _plain_batches(seed: int) -> Iterator[pa.RecordBatch]:
    """Record batches without end whose rows are plain, after the first one."""
    rng = np.random.default_rng(seed)
    for number in itertools.count():
        streams = rng.choice(40, int(rng.integers(1, 9)) if number else 40, replace=False)
        a, b = rng.normal(size=(2, len(streams)))
        times = pa.array(np.full(len(streams), number)).cast(pa.timestamp("s"))
        yield pa.record_batch({"id": [f"s{i}" for i in streams], "t": times, "a": a, "b": b})


class Pair:
    """A pipeline that is interrupted, and its twin that is given what counted of its calls."""

    def __init__(self, model: str, kind: str) -> None:
        config = logs.config("unused", model, None)
        config["source"].pop("path")
        config["source"] |= {"nulls": "previous", "reset": "new"}
        for name, keys in KINDS[kind].items():
            config[name] = {**config.get(name, {}), **keys}
        self.one, self.two = Pipeline.from_dict(config), Pipeline.from_dict(config)
        plain = kind == "plain"
        self.batches = _plain_batches(7) if plain else _batches(7, spoilt=kind == "rejects")
        self.counted = self.undone = 0
        first = next(self.batches)
        assert self.one.process(first) == self.two.process(first)
        self.held = self.one.state  # what a user may keep of it

    def step(self, process: Callable[[pa.RecordBatch], pa.RecordBatch]) -> bool:
        """Whether a call was interrupted; then its batch may have counted or not, but not half."""
        batch = next(self.batches)
        before = _known(self.one)
        try:
            out = process(batch)
        except KeyboardInterrupt:
            out = None
        now = pa.table(self.held), *_known(self.one)[1:]
        if out is None and now == before:
            self.undone += 1
            return True
        expected = self.two.process(batch)
        differ = diff(now[0], pa.table(self.two.state))
        assert not differ, differ
        assert now == _known(self.two)
        if out is None:
            self.counted += 1
            return True
        assert out == expected
        assert self.one.rejects == self.two.rejects
        return False

    def check_the_end(self) -> None:
        """No lock is left held; the next calls have the bits of calls without interrupts."""
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(len(self.one.state)), daemon=True)
        thread.start()
        thread.join(20)
        assert seen == [len(self.two.state)]
        batch = next(self.batches)
        assert self.one.process(batch) == self.two.process(batch)
        assert self.one.finish() == self.two.finish()
        again = pickle.loads(pickle.dumps(self.one))
        assert _known(again) == _known(self.two)


def _known(pipeline: Pipeline) -> tuple[pa.Table, int, int]:
    scorer = pipeline._scorer
    assert scorer is not None
    return pa.table(pipeline.state), scorer.rows_read, scorer.rejected


class Signals:
    """SIGALRMs that raise KeyboardInterrupt in `process` of one pipeline, and only there.

    CPython drops one that is raised in a callback of the garbage collector or in a finalizer (of
    the test tools, say), and reports it as unraisable: that call was not interrupted.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.left = 0

    def __enter__(self) -> "Signals":
        self._before = signal.signal(signal.SIGALRM, self._handle)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._pass_on
        return self

    def __exit__(self, *error: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        sys.unraisablehook = self._hook

    def _pass_on(self, dropped: "sys.UnraisableHookArgs") -> None:
        if dropped.exc_type is not KeyboardInterrupt:
            self._hook(dropped)

    def start(self, delay: float, gap: float, times: int) -> None:
        """The first after `delay` seconds, the next `gap` seconds later, `times` at most."""
        self.left, self.gap = times, gap
        signal.setitimer(signal.ITIMER_REAL, delay)

    def _handle(self, _: int, frame: FrameType | None) -> None:
        if self.left and _is_within(frame, self.pipeline):
            self.left -= 1
            if self.left:
                signal.setitimer(signal.ITIMER_REAL, self.gap)
            raise KeyboardInterrupt


def _is_within(frame: FrameType | None, pipeline: Pipeline) -> bool:
    while frame is not None and frame.f_code is not PROCESS:
        frame = frame.f_back
    return frame is not None and frame.f_locals["self"] is pipeline


@pytest.mark.parametrize("kind", first_quick(KINDS, 2))
def test_interrupts_at_random_moments_tear_nothing(model: str, kind: str) -> None:
    """One, or several that come while the first one is dealt with.

    Slow: other kinds of windows; the quick tests interrupt them at lines.
    """
    rng, left, undone = random.Random(kind), -(-INTERRUPTS // len(KINDS)), 0
    while left > 0:
        pair = Pair(model, kind)  # its state grows, and with it what a comparison takes
        some = min(left, 100)
        _interrupt(pair, rng, some)
        pair.check_the_end()
        left, undone = left - some, undone + pair.undone
    assert undone > 0


LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp)
PACKAGE = Path(streamrnn.__file__).parent


def test_no_loop_stands_where_a_lock_is_held() -> None:
    """It stands in a function that is called there.

    CPython 3.12 and later leave some jumps back to the head of a loop, and of a comprehension,
    which is inlined, out of the range whose exceptions reach the end of a `with`. An interrupt that
    comes at such a jump would leave the lock held for good.
    """
    blocks = [
        (path.name, block)
        for path in PACKAGE.rglob("*.py")
        for block in ast.walk(ast.parse(path.read_text()))
        if isinstance(block, ast.With)
        if any(ast.unparse(item.context_expr).endswith("lock") for item in block.items)
    ]
    assert len(blocks) > 8
    loops = [
        f"{name}:{node.lineno}"
        for name, block in blocks
        for node in ast.walk(block)
        if isinstance(node, LOOPS)
    ]
    assert loops == []


def _interrupt(pair: Pair, rng: random.Random, count: int) -> None:
    took = 2e-3
    with Signals(pair.one) as signals:
        while count:
            delay, gap = rng.random() * took + 1e-6, rng.uniform(5e-6, 2e-4)
            signals.start(delay, gap, times=rng.choice((1, 1, 4)))
            began = time.perf_counter()
            if pair.step(pair.one.process):
                count -= 1
            else:
                took = 0.9 * took + 0.1 * (time.perf_counter() - began)


def _raise() -> None:
    raise KeyboardInterrupt


class At:
    """Calls `strike` at the n-th line of ours that runs in this thread within `process`.

    Not where CPython lets none in: at the start of a `try`, the end of a `with`, between two
    assignments that the kernels' team counts on, and before the assignment by which `one_thread`
    ends, which would keep this thread alone for good. A tracer that raises is taken off.
    """

    OURS = str(Path(pipeline_module.__file__).parents[2])
    NOT = ("jit.py", "kernels/threads.py")

    def __init__(self, line: int, strike: Callable[[], None] = _raise) -> None:
        self.left = line
        self.strike = strike

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(self.OURS) or name.endswith(self.NOT):
            return None
        if name.endswith("team.py") and not frame.f_code.co_qualname.startswith("Crew."):
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, _: Any) -> Any:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)
        if event == "line" and not line.lstrip().startswith(("with ", "try:")):
            self.left -= 1
            if self.left == 0:
                self.strike()
        return self._line


@pytest.mark.parametrize("kind", first_quick(KINDS, 3))
def test_an_interrupt_at_any_line_tears_nothing(model: str, kind: str) -> None:
    """At the first line of a call, at a later one of the next call, and so on up to the last.

    Slow: the lines of further kinds of windows and keys.
    """
    pair, line, beyond = Pair(model, kind), 1, 0

    def process(batch: pa.RecordBatch) -> pa.RecordBatch:
        before = sys.gettrace()
        sys.settrace(At(line))
        try:
            return pair.one.process(batch)
        finally:
            sys.settrace(before)

    while beyond < 5:  # calls have more lines or less
        beyond = 0 if pair.step(process) else beyond + 1
        line += 1 if INTERRUPTS > 2000 else 5
    end = line
    while not pair.counted and line > end - 200:  # each fifth line may miss the last few of a call
        line -= 1
        pair.step(process)
    assert pair.counted > 0
    assert pair.undone > 5
    pair.check_the_end()


class Worker:
    """Calls of `process` in another thread, each of which is sent an exception at a random line."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.rng = random.Random(7)
        self.lines = 0  # of a call, not known yet
        self.news: SimpleQueue[str] = SimpleQueue()
        self.sent: SimpleQueue[None] = SimpleQueue()

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        found: list[Any] = []
        line = self.rng.randrange(1, self.lines + 1) if self.lines else 10**9
        at = At(line, self._wait_for_it)
        thread = threading.Thread(target=self._work, args=(batch, at, found))
        thread.start()
        if self.news.get() == "there":
            send = ctypes.pythonapi.PyThreadState_SetAsyncExc
            send(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt))
            self.sent.put(None)
            self.news.get()
        thread.join()
        if at.left > 0:
            self.lines = line - at.left
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    def _wait_for_it(self) -> None:
        self.news.put("there")
        self.sent.get()

    def _work(self, batch: pa.RecordBatch, at: At, found: list[Any]) -> None:
        before = sys.gettrace()
        sys.settrace(at)
        try:
            found.append(self.pipeline.process(batch))
        except BaseException as error:  # noqa: BLE001 - raised in the other thread
            found.append(error)
        finally:
            sys.settrace(before)
            self.news.put("done")


def test_an_exception_that_another_thread_sends_tears_nothing(model: str) -> None:
    """As one that ends a request of a server."""
    pair = Pair(model, "threads")
    worker, interrupts, calls = Worker(pair.one), 0, 40 + INTERRUPTS // 20
    for _ in range(calls):
        interrupts += pair.step(worker.process)
    assert interrupts > calls / 2
    pair.check_the_end()


def test_several_record_batches_of_a_call_count_together_or_not_at_all(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow makes several of a table whose text takes over 2 GiB; here of less."""
    pair = Pair(model, "rejects")
    one, two = pair.one, pair.two
    whole = calls.batches_of

    def pieces(data: Any) -> tuple[list[pa.RecordBatch], pa.Schema]:
        batches, schema = whole(data)
        return pa.Table.from_batches(batches, schema).to_batches(max_chunksize=7), schema

    for _ in range(5):
        table = pa.Table.from_batches([next(pair.batches), next(pair.batches)]).combine_chunks()
        outputs, rejected = [], []
        for first in range(0, len(table), 7):
            outputs.append(two.process(table.slice(first, 7)))
            rejected += two.rejects.to_pylist() if two.rejects is not None else []
        with monkeypatch.context() as patch:
            patch.setattr(calls, "batches_of", pieces)
            assert one.process(table).combine_chunks() == pa.concat_tables(outputs).combine_chunks()
        assert (one.rejects.to_pylist() if one.rejects is not None else []) == rejected
        assert _known(one) == _known(two)
    monkeypatch.setattr(calls, "batches_of", pieces)
    source = one.config.source.model_copy(update={"bad": "error", "late": "apply"})
    strict = Pipeline(one.config.model_copy(update={"source": source}))
    rows = pa.Table.from_batches([next(_batches(7, spoilt=False)) for _ in range(3)])
    strict.process(rows)
    before = _known(strict)
    numbers = pa.array([*[1.0] * (len(rows) - 1), np.inf])
    with pytest.raises(DataError, match="expected a finite number"):
        strict.process(rows.set_column(3, "a", numbers))
    assert _known(strict) == before
