"""What a request to `streamrnn serve` costs, against ONNX Runtime with states in a dict.

    python tests/benchmarks/bench_serve.py [--streams N] [--seconds N] [--rounds N]
        [--markdown FILE …]
    python tests/benchmarks/bench_serve.py --soak MINUTES [--streams 1000000]

LSTM(64) and Dense(1), 8 float features, int64 keys, one thread. Each side is a process with the
same server, which parses requests and writes answers in the same way; what scores the rows of a
batch differs: a session with `durable = "commit"`, one with "log", ONNX Runtime as in
`bench_live.py`, and an echo, which scores nothing. CPU time of the server over its requests; sides
take turns of some seconds; medians of the turns, and of the ratios of turns in the same round. "At
the limit" 128 clients each send their next request when they have an answer; at a rate they send at
fixed times. Replay: the log as it is after a crash, against a run with it as its source. The soak
asks at half of the limit, with `[state] idle`, and prints the memory of the server. Needs
`pip install -e '.[bench,serve]' onnx`.
"""

import argparse
import asyncio
import itertools
import logging
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import bench_live
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import timing
import uvloop
from bench_pipeline import NAMES, make_model, ort_session

SIDES = ("commit", "log", "dict", "echo")
CLIENTS = 128
REPLAYED = 400_000
"""Rows of the log that is replayed, in batches of 32."""
IDLE = 5_000
"""Requests after which a stream that is in none of them is dropped, in a soak."""
_TIMES = itertools.count(1)
_SCHEMA = bench_live._ROWS


def config(folder: Path, side: str) -> dict[str, Any]:
    return {
        "source": {"path": str(folder / "in"), "key": "id", "time": "t", "features": NAMES},
        "model": {"path": str(folder / "model.safetensors")},
        "output": {"names": ["y"]},
        "sink": {"path": str(folder / side)},
        "state": {"idle": IDLE} if side == "soak" else {},
        "serve": {
            "port": 0,
            "durable": "log" if side in ("log", "soak") else "commit",
            "every": "10s" if side == "soak" else "10m",
            "keep_log": "1m" if side == "soak" else "",
        },
    }


# --- a server ---------------------------------------------------------------------------------


def serve(side: str, folder: Path) -> None:
    """Serve one side; each batch adds one to a number that the benchmark reads."""
    import streamrnn
    from streamrnn import Pipeline
    from streamrnn.cli.process import collect_rarely
    from streamrnn.jobs.session import Session
    from streamrnn.plugins.serve.server import Server

    collect_rarely()  # as the command does
    logging.basicConfig(level=logging.INFO)  # says when it is ready
    streamrnn.set_threads(1)
    batches = np.memmap(folder / f"{side}.batches", np.int64, "r+", shape=1)
    scored: Callable[..., Any] = Session.process_requests
    if side in ("dict", "echo"):
        scored = _answering(_in_dict(folder) if side == "dict" else _echo)

    def process_requests(self: Session, rows: pa.RecordBatch) -> pa.RecordBatch:
        batches[0] += 1
        return scored(self, rows)

    Session.process_requests = process_requests  # type: ignore[method-assign]
    Server(Pipeline.from_dict(config(folder, side)), "bench", "127.0.0.1", 0).run()


def _in_dict(folder: Path) -> bench_live.Side:
    weights = make_model(folder / "dict.safetensors")
    return bench_live.in_dict(ort_session(weights, folder / "model.onnx", threads=1))


def _echo(rows: pa.RecordBatch) -> pa.RecordBatch:
    columns = [rows.column("id"), rows.column("t"), rows.column(NAMES[0])]
    return pa.RecordBatch.from_arrays(columns, ["id", "t", "y"])


def _answering(side: bench_live.Side) -> Callable[..., Any]:
    def process_requests(_: Any, rows: pa.RecordBatch) -> pa.RecordBatch:
        out = side(rows) if len(rows) else _echo(rows)
        return out.append_column("reason", pa.nulls(len(rows), pa.string()))

    return process_requests


class Server:
    """A process of one side."""

    def __init__(self, side: str, folder: Path) -> None:
        self._batches = np.memmap(folder / f"{side}.batches", np.int64, "w+", shape=1)
        command = [sys.executable, __file__, "--serve", side, str(folder)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        lines = iter(self.process.stderr.readline, "")
        said = [next(line for line in lines if word in line) for word in ("listening", "ready")]
        self.port = int(said[0].rpartition(":")[2])

    def used(self) -> tuple[float, int]:
        """CPU seconds, and batches, so far."""
        clock = ~self.process.pid << 3 | 2  # as clock_getcpuclockid returns it on Linux
        return time.clock_gettime(clock), int(self._batches[0])


# --- its clients ------------------------------------------------------------------------------


class Turn(NamedTuple):
    """What a turn has measured; seconds and batches are those of one request."""

    requests: int
    cpu: float
    rows_per_batch: float
    latencies: list[float]


class Load:
    """Requests of some rows, of all clients; each client has streams of its own."""

    def __init__(self, streams: int, rows: int) -> None:
        rng = np.random.default_rng(0)
        self._rows = rows
        self._streams = [
            rng.permutation(np.arange(client, streams, CLIENTS)) for client in range(CLIENTS)
        ]
        self._features = rng.normal(size=(1000, len(NAMES))).astype(np.float32).tolist()
        self._rng = rng

    def _request(self, client: int) -> bytes:
        now = next(_TIMES)
        streams = self._streams[client]
        begin = int(self._rng.integers(len(streams) - self._rows))
        keys = streams[begin : begin + self._rows]
        first = int(self._rng.integers(1000 - self._rows))
        body = orjson.dumps(
            [
                {"id": key, "t": now, **dict(zip(NAMES, values, strict=True))}
                for key, values in zip(keys.tolist(), self._features[first:], strict=False)
            ]
        )
        return b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (
            len(body),
            body,
        )

    def turn(self, server: Server, seconds: float, rate: float | None) -> Turn:
        """Send for some seconds: at a rate, or as fast as there are answers."""
        before = server.used()
        latencies = uvloop.run(self._clients(server.port, seconds, rate))
        cpu, batches = (b - a for a, b in zip(before, server.used(), strict=True))
        requests = len(latencies)
        return Turn(requests, cpu / requests, requests * self._rows / batches, latencies)

    async def _clients(self, port: int, seconds: float, rate: float | None) -> list[float]:
        begin = time.perf_counter() + 0.1
        clients = [self._client(port, n, begin, seconds, rate) for n in range(CLIENTS)]
        return list(itertools.chain(*await asyncio.gather(*clients)))

    async def _client(
        self, port: int, client: int, begin: float, seconds: float, rate: float | None
    ) -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        latencies, due = [], begin + client / (rate or CLIENTS)
        while due < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(self._request(client))
            began = time.perf_counter()
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - began)
            due = time.perf_counter() if rate is None else due + CLIENTS / rate
        writer.close()
        return latencies


def fill(server: Server, streams: int) -> None:
    """Let each stream have a state."""
    keys = np.arange(streams)
    zeros = np.zeros(streams, np.float32)
    whole = pa.table([keys, np.zeros(streams, np.int64), *[zeros] * len(NAMES)], schema=_SCHEMA)
    for first in range(0, streams, 50_000):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, _SCHEMA) as writer:
            writer.write_table(whole.slice(first, 50_000))
        _post(server, sink.getvalue().to_pybytes())


def _post(server: Server, body: bytes) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    kind = {"content-type": "application/vnd.apache.arrow.stream"}
    connection.request("POST", "/score", body, kind)
    assert connection.getresponse().status == 200
    connection.close()


def bench(
    servers: dict[str, Server], streams: int, rows: int, rate: float | None, options: Any
) -> list[str]:
    load, turns = Load(streams, rows), dict[str, list[Turn]]()
    for number in range(options.rounds):
        for side in list(servers)[:: 1 if number % 2 else -1]:
            turn = load.turn(servers[side], options.seconds, rate)
            turns.setdefault(side, []).append(turn)

    def ratio(side: str, other: str) -> str:
        pairs = zip(turns[side], turns[other], strict=True)
        return f"{statistics.median(a.cpu / b.cpu for a, b in pairs):.2f}"

    own = turns["commit"]
    p99 = statistics.median(np.percentile(t.latencies, 99) for t in own) * 1e3
    return [
        str(rows),
        "limit" if rate is None else f"{rate:.0f}/s",
        f"{statistics.median(t.requests for t in own) / options.seconds:.0f}",
        f"{statistics.median(t.rows_per_batch for t in own):.0f}",
        *(f"{statistics.median(t.cpu for t in turns[side]) * 1e6:.0f}" for side in SIDES),
        ratio("commit", "dict"),
        ratio("commit", "echo"),
        ratio("log", "commit"),
        f"{p99:.1f}",
    ]


def soak(folder: Path, streams: int, minutes: int) -> None:
    """Print the load of each minute, at half of the limit, and what the server holds by quarter."""
    server = Server("soak", folder)
    held: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.5):
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            held.append(int(status.partition("VmRSS:")[2].split()[0]) // 1024)

    try:
        fill(server, streams)
        load = Load(streams, 64)
        limit = load.turn(server, 10, None).requests / 10
        sampling = threading.Thread(target=sample)
        sampling.start()
        for minute in range(minutes):
            turn = load.turn(server, 60, limit / 2)
            p99 = np.percentile(turn.latencies, 99) * 1e3
            figures = f"{turn.requests:,} requests, {turn.cpu * 1e6:.0f} µs each, p99 {p99:.0f} ms"
            print(f"minute {minute + 1}: {held[-1]:,} MB; {figures}", flush=True)
        ended.set()
        sampling.join()
        for quarter, part in enumerate(np.array_split(held, 4), 1):
            least, middle, most = np.percentile(part, [0, 50, 100])
            print(f"quarter {quarter}: {least:,.0f} to {most:,.0f} MB, median {middle:,.0f}")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(300) == 0
    finally:
        ended.set()
        server.process.kill()


# --- replay -----------------------------------------------------------------------------------


def replay(folder: Path, streams: int) -> str:
    """Rows a second of CPU: of a replay after a crash, and of a run over the same log."""
    from streamrnn import Pipeline
    from streamrnn.plugins.serve.log import Log
    from streamrnn.plugins.serve.scoring import Scoring, log_of

    found: dict[str, list[float]] = {"replay": [], "run": []}
    for number in range(3):
        for side in found:
            name = f"{side}{number}"
            log, rng = Log(str(folder / f"{name}.rows")), np.random.default_rng(1)
            for t in range(REPLAYED // 32):
                keys = rng.choice(streams, 32, replace=False)
                log.append(bench_live._batch(keys, t, rng), {})
            log.close()
            settings = config(folder, name)
            settings["serve"] |= {"durable": "log", "log": str(folder / f"{name}.rows")}
            began = time.process_time()
            if side == "run":
                settings["source"]["path"] = settings["serve"].pop("log")
                Pipeline.from_dict(settings).run()
                used = time.process_time() - began
            else:
                pipeline = Pipeline.from_dict(settings)
                with log_of(pipeline.config), pipeline.session() as session:
                    Scoring(session, pipeline.config)  # is ready, and has committed
                    used = time.process_time() - began
            found[side].append(REPLAYED / used)
            shutil.rmtree(folder / name)
            shutil.rmtree(folder / f"{name}.rows")
    first, other = (statistics.median(found[side]) for side in ("replay", "run"))
    return (
        f"Replay of {REPLAYED:,} rows: {first:,.0f} rows a second, a run {other:,.0f}, "
        f"ratio {first / other:.2f}"
    )


def main() -> None:
    parser = timing.parser_of(__doc__, streams=100_000, seconds=2.0, rounds=7)
    parser.add_argument("--soak", type=int, metavar="MINUTES")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], Path(options.serve[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model.safetensors")
        (folder / "in").mkdir()
        pq.write_table(_SCHEMA.empty_table(), folder / "in/0.parquet")
        if options.soak:
            soak(folder, options.streams, options.soak)
            return
        servers = {side: Server(side, folder) for side in SIDES}
        try:
            for server in servers.values():
                fill(server, options.streams)
            cases: list[tuple[int, float | None]]
            cases = [(64, None), (1, None), (1, 100), (1, 300), (1, 1000)]
            lines = [bench(servers, options.streams, *case, options) for case in cases]
        finally:
            for server in servers.values():
                server.process.send_signal(signal.SIGKILL)
                server.process.wait()
        replayed = replay(folder, options.streams)
    head = ["rows", "rate", "requests/s", "rows a batch"]
    head += [f"{side}, µs" for side in SIDES]
    head += ["commit / dict", "commit / echo", "log / commit", "p99 of commit, ms"]
    about = timing.machine("pyarrow", "onnxruntime", "starlette", "uvicorn", "orjson")
    text = f"{about}\n\n{timing.table(head, lines)}\n\n{replayed}"
    timing.publish({"serve": text}, options.markdown)


if __name__ == "__main__":
    main()
