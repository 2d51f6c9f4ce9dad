"""A session over a million streams: calls beside commits and other models, memory, nothing lost.

    python tests/benchmarks/bench_session.py [--streams 1000000] [--minutes 30] [--threads 4]

LSTM(16) and Dense(1). Every stream has a row first. Then one thread makes calls of 1,000 rows,
while another model is loaded with its states: the longest call beside the median, in wall time and
in CPU of the thread. Then threads make calls for some minutes, each with streams of its own, and
with commits once a second: the memory of the process by quarter of that time, and whether each row
is in the output, and in the state of its stream.
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from timing import parser_of

from streamrnn import Pipeline, Sequential, layers
from streamrnn.outputs import read_states, verify

ROWS = 1_000


def write_model(path: Path, seed: int) -> str:
    recurrent = layers.LSTM(16, return_sequences=True, name="lstm")
    model = Sequential([layers.Input((None, 2)), recurrent, layers.Dense(1, name="y")])
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.3, w.shape).astype(np.float32) for w in model.get_weights()])
    model.save(str(path))
    return str(path)


def rows(streams: np.ndarray, second: int) -> pa.RecordBatch:
    n = len(streams)
    values = np.random.default_rng(second).random((2, n))
    times = pa.array(np.full(n, second * 10**6)).cast(pa.timestamp("us", "UTC"))
    return pa.record_batch({"id": streams, "t": times, "a": values[0], "b": values[1]})


def megabytes() -> float:
    """The resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def at_once(*calls: Any) -> Iterator[None]:
    """Run calls in threads beside the block; those that fail end the process."""
    threads = [threading.Thread(target=call) for call in calls]
    threading.excepthook = lambda failed: (threading.__excepthook__(failed), os._exit(1))[1]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def swap(session: Any, streams: int, model: str, seconds: float) -> int:
    """Load a model beside calls, and print how long they took; return the number of rows."""
    found: list[tuple[float, float, float]] = []
    ended, clock, rng = threading.Event(), count(2), np.random.default_rng(0)

    def call() -> None:
        while not ended.is_set():
            batch = rows(rng.choice(streams, ROWS, replace=False), next(clock))
            wall, cpu = time.perf_counter(), time.thread_time()
            session.process(batch)
            now = time.perf_counter()
            found.append((now, (now - wall) * 1e3, (time.thread_time() - cpu) * 1e3))
            time.sleep(0.002)

    with at_once(call):
        time.sleep(seconds)
        began = time.perf_counter()
        session.load_model(model, "carry")
        end = time.perf_counter()
        time.sleep(seconds)
        ended.set()
    at, wall, cpu = np.array(found).T
    beside = (at > began) & (at < end + 0.5)
    print(f"load_model: {end - began:.2f} s, {beside.sum()} calls of {ROWS} rows beside it")
    for name, values in (("wall", wall), ("CPU", cpu)):
        median, longest, other = np.median(values), values[beside].max(), values[~beside].max()
        print(
            f"{name}: median {median:.2f} ms, longest {longest:.1f} ms ({longest / median:.1f} "
            f"medians), without it {other:.1f} ms ({other / median:.1f})"
        )
    return ROWS * len(found)


def soak(session: Any, streams: int, threads: int, seconds: float) -> int:
    """Make calls and commits for some time, and print the memory; return the number of rows."""
    end, sent, memory = time.monotonic() + seconds, [0] * threads, [megabytes()]

    def call(thread: int) -> None:
        rng = np.random.default_rng(thread)
        for second in count(10**7):
            if time.monotonic() > end:
                return
            chosen = rng.choice(streams // threads, ROWS // 2, replace=False) * threads + thread
            answer = session.process(rows(chosen, second), align=True)
            assert answer.column("reason").null_count == len(chosen)
            sent[thread] += len(chosen)

    with at_once(*(lambda thread=thread: call(thread) for thread in range(threads))):
        while time.monotonic() < end:
            time.sleep(1)
            session.commit()
            memory.append(megabytes())
    quarters = ", ".join(f"{np.mean(part):,.0f}" for part in np.array_split(memory, 4))
    print(
        f"{sum(sent):,} rows from {threads} threads in {seconds:.0f} s, {len(memory) - 1} commits"
    )
    print(f"memory by quarter: {quarters} MB")
    return sum(sent)


def main() -> None:
    arguments = parser_of(
        __doc__, markdown=False, streams=1_000_000, minutes=30.0, threads=4
    ).parse_args()
    streams = arguments.streams
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old, new = (write_model(folder / f"{seed}.safetensors", seed) for seed in (1, 2))
        out = str(folder / "out")
        pipeline = Pipeline.from_dict(
            {
                "source": {"key": "id", "time": "t", "features": ["a", "b"]},
                "model": {"path": old, "threads": 1},
                "sink": {"path": out},
            }
        )
        with pipeline.session() as session:
            for part in np.array_split(np.arange(streams), max(1, streams // 100_000)):
                session.process(rows(part, 1))
            began = time.perf_counter()
            session.commit()
            print(f"{streams:,} streams, the first commit: {time.perf_counter() - began:.2f} s")
            sent = streams + swap(session, streams, new, 3)
            sent += soak(session, streams, arguments.threads, arguments.minutes * 60)
        found, steps = verify(out), pc.sum(read_states(out)["steps"]).as_py()
        print(
            f"sent {sent:,}, in the output {found.rows:,}, in states {steps:,}, {found.parts} parts"
        )
        if {found.rows, steps} != {sent}:
            raise SystemExit("rows were lost")


if __name__ == "__main__":
    main()
