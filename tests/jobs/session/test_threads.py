"""One pipeline in several threads, and in processes that are forked meanwhile: they take turns."""

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pytest

from streamrnn import Pipeline, StateTable
from streamrnn.errors import DataError
from streamrnn.stream.operators import CarryOperator
from streamrnn.stream.scoring import Scorer
from streamrnn.stream.states import KeyIndex

THREADS, CALLS, STREAMS, ROWS = 6, 40, 3, 2


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    path = str(tmp_path / "m.safetensors")
    logs.small_model().save(path)
    data = logs.config("unused", path, None, source={"nulls": "previous", "bad": "reject"})
    data["source"].pop("path")
    data["source"]["max_rejects"] = 10**6
    return data


def _batch(thread: int, call: int) -> pa.RecordBatch:
    """ROWS rows of each stream of a thread, one of them rejected in every third call."""
    rng = np.random.default_rng((thread, call))
    rows = STREAMS * ROWS
    a = rng.normal(size=rows + 1)
    a[-1] = np.inf
    keys = [f"{thread}-{i % STREAMS}" for i in range(rows + 1)]
    columns = {
        "id": pa.array(keys),
        "t": pa.array([call * ROWS + i // STREAMS for i in range(rows + 1)]).cast(
            pa.timestamp("s")
        ),
        "a": pa.array(a),
        "b": pa.array(rng.integers(-3, 4, rows + 1).astype(np.int32)),
    }
    return pa.record_batch(columns).slice(0, rows + (call % 3 == thread % 3))


def _in_threads(works: list[Callable[[], None]]) -> None:
    """All at once; the first error is raised."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]


def test_threads_with_streams_of_their_own_get_what_each_would_alone(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Six threads on one pipeline; a seventh looks at it, pickles it and writes it away."""
    pipeline = Pipeline.from_dict(config)
    busy = [True] * THREADS

    def work(thread: int) -> None:
        alone = Pipeline.from_dict(config)
        try:
            for call in range(CALLS):
                batch = _batch(thread, call)
                assert pipeline.process(batch) == alone.process(batch)
                ours, theirs = pipeline.rejects, alone.rejects
                assert (ours is None) == (theirs is None)
                if ours is not None and theirs is not None:
                    assert ours.drop_columns(["row"]) == theirs.drop_columns(["row"])
        finally:
            busy[thread] = False

    def look() -> None:
        while any(busy):
            time.sleep(0.001)
            if pipeline._scorer is None:
                continue
            _check(pa.table(pipeline.state))
            _check(pa.table(pickle.loads(pickle.dumps(pipeline)).state))
            pipeline.checkpoint(tmp_path / "c.arrow")
            _check(pa.table(Pipeline.resume(tmp_path / "c.arrow").state))
            assert pipeline.finish() is None

    _in_threads([*(lambda thread=thread: work(thread) for thread in range(THREADS)), look])
    table = pa.table(pipeline.state)
    assert table.column("steps").to_pylist() == [CALLS * ROWS] * (THREADS * STREAMS)
    one = Pipeline.from_dict(config)
    for thread in range(THREADS):
        for call in range(CALLS):
            one.process(_batch(thread, call))
    assert table.sort_by("id") == pa.table(one.state).sort_by("id")


def _check(state: pa.Table) -> None:
    """No call half done: all streams of a thread have as many steps, those of whole calls."""
    steps: dict[str, set[int]] = {}
    for row in state.to_pylist():
        steps.setdefault(row["id"].split("-")[0], set()).add(row["steps"])
    assert all(len(each) == 1 and min(each) % ROWS == 0 for each in steps.values()), steps
    assert len(state) == len(steps) * STREAMS


def test_the_first_calls_of_several_threads_make_one_state(config: dict[str, Any]) -> None:
    for _ in range(10):
        pipeline = Pipeline.from_dict(config)
        start = threading.Barrier(4)

        def work(thread: int, pipeline: Pipeline = pipeline, start: Any = start) -> None:
            start.wait()
            pipeline.process(_batch(thread, 0))

        _in_threads([lambda thread=thread: work(thread) for thread in range(4)])
        assert len(pipeline.state) == 4 * STREAMS


def test_a_thread_that_has_not_called_finds_the_rejects_of_the_last_call(
    config: dict[str, Any],
) -> None:
    """As where an event loop leaves the call to a thread, and looks at what came of it."""
    pipeline = Pipeline.from_dict(config)
    assert pipeline.rejects is None
    _in_threads([lambda: (pipeline.process(_batch(0, 0)), None)[1]])
    assert pipeline.rejects is not None
    assert pipeline.rejects["id"].to_pylist() == ["0-0"]
    pipeline.process(_batch(1, 0))
    assert pipeline.rejects is None
    _in_threads([lambda: (pipeline.process(_batch(0, 3)), None)[1]])
    assert pipeline.rejects is None


def test_a_first_call_that_fails_has_not_chosen_the_types(config: dict[str, Any]) -> None:
    """Nothing of it has counted."""
    pipeline = Pipeline.from_dict({**config, "source": {**config["source"], "bad": "error"}})
    batch = _batch(0, 0)
    at = batch.schema.get_field_index("b")
    other = batch.set_column(at, "b", batch["b"].cast(pa.float64()))
    with pytest.raises(DataError, match="expected a finite number"):
        pipeline.process(other)
    assert pipeline.process(batch.slice(0, 3)).num_rows == 3


POINTS = [
    (KeyIndex, "find"),
    (StateTable, "find"),
    (StateTable, "make_room"),
    (CarryOperator, "process"),
    (StateTable, "advance"),
    (Scorer, "_committing"),
]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name"), POINTS, ids=lambda part: getattr(part, "__name__", part)
)
def test_a_process_that_is_forked_amid_a_call_finds_no_lock_and_no_half_call(
    owner: type, name: str, when: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calling thread does not live on there; its call has counted or it has not.

    It stands still meanwhile: amid a call of Arrow it might hold a lock of Arrow's, which would
    stay locked in the child (1 of 150 forks at random moments ended so).
    """
    config["window"] = {"lanes": 1, "steps": 1}  # pieces for both threads
    config["model"]["threads"] = 2
    pipeline = Pipeline.from_dict(config)
    pipeline.process(_batch(0, 0))
    caller = threading.Thread(target=lambda: pipeline.process(_batch(1, 0)))  # new streams
    reached, proceed = threading.Event(), threading.Event()
    original, parent = getattr(owner, name), os.getpid()

    def stand_still() -> None:
        if os.getpid() == parent and threading.current_thread() is caller:
            reached.set()
            assert proceed.wait(60)

    def around(call: Callable[[], Any]) -> Any:
        if when == "before":
            stand_still()
        result = call()
        if when == "after":
            stand_still()
        return result

    def paused(*arguments: Any, **options: Any) -> Any:
        call = partial(original, *arguments, **options)
        # `_committing` returns the call that commits.
        return partial(around, call()) if name == "_committing" else around(call)

    monkeypatch.setattr(owner, name, paused)
    caller.start()
    try:
        assert reached.wait(60)
        child = os.fork()
        if not child:
            os._exit(_look_as_a_child(pipeline))
        assert os.waitpid(child, 0)[1] == 0
    finally:
        proceed.set()
        caller.join()
    _check(pa.table(pipeline.state))


def _look_as_a_child(pipeline: Pipeline) -> int:
    """0 if all is as it should be."""
    signal.alarm(60)  # ends a child that hangs
    try:
        state = pa.table(pipeline.state)
        _check(state)
        after = pipeline.process(_batch(0, 1))
        again = Pipeline(pipeline.config)
        again.process(_batch(0, 0))
        assert after == again.process(_batch(0, 1))
        pipeline.process(_batch(1, 10**6))
        pipeline.process(_batch(10**6, 0))
        known = pa.table(pipeline.state)
        _check(known)
        assert known.slice(0, len(state)).column("id") == state.column("id")
    except BaseException as error:  # noqa: BLE001 - the parent only sees the exit code
        os.write(2, repr(error).encode())
        return 1
    return 0
