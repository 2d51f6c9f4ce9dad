"""Tasks of a run as Ray tasks: on a cluster, or on this machine.

Ray schedules the tasks, moves rows and states between them, and repeats a task whose worker or node
died. A task changes no file of another attempt, so it does not matter how often it runs.
"""

import os
import signal
import socket
import subprocess
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from streamrnn import __version__
from streamrnn.errors import ConfigError, EngineError
from streamrnn.jobs.engines.probe import FolderToken, Probe, probe, warm_up
from streamrnn.jobs.engines.shard import Outcome, OutputPlace, ShardTask, score_shard
from streamrnn.jobs.engines.sharded import Tasks
from streamrnn.jobs.engines.splitting import Chunk, RowRange, split
from streamrnn.stream.scoring import BoundPipeline
from streamrnn.stream.sources import FileSource, SourceFile

# How often Ray repeats a task whose worker or node dies. For an error of the data, a task is not
# repeated: it returns the error as its result.
_REPEATS = 8
_PAUSE = 0.2
_PROBE_SECONDS = 300.0
_CONNECT_SECONDS = 10.0
_ENDED = (
    "error: the process of this run was ended before it could report an error. Ray ends it when "
    "its node fails, for example because the raylet or the dashboard agent was killed, or because "
    "memory ran out; a SIGKILL also ends it. Check the logs of Ray (on this machine in "
    "/tmp/ray/session_latest/logs) and rerun the command: it resumes from the last commit."
)
_Context = tuple[BoundPipeline, FileSource]


def ray() -> Any:
    """Return the module of Ray. Raises ConfigError, naming the extra, if it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray as library
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise ConfigError('[engine] type = "ray" needs Ray: pip install "streamrnn[ray]"') from None
    return library


def _split(context: _Context, row_range: RowRange, shards: int) -> tuple[Any, ...]:
    divided, chunks = split(*context, row_range, shards)
    return (divided, *chunks)


def _score(
    context: _Context, task: ShardTask, before: Outcome | None, state: Any, *chunks: Chunk
) -> tuple[Outcome, pa.Table | None]:
    return score_shard(context[0], task, before, state, chunks)


def _warm_up(context: _Context) -> None:
    warm_up(context[0].loaded)


def _probe(
    context: _Context, place: OutputPlace, token: FolderToken, file: SourceFile | None
) -> Probe:
    return probe(context[0].loaded, __version__, place, token, file)


class RayTasks(Tasks):
    """Runs tasks on Ray, which it starts here if `address` is "local", and joins otherwise.

    `workers` is the number of workers if Ray is started here. A program that has called
    `ray.init` keeps its cluster. Raises EngineError if there is no cluster.
    """

    def __init__(self, address: str, workers: int) -> None:
        self._started = not ray().is_initialized()
        if self._started:
            self._survived = weakref.finalize(self, _watcher().communicate, b"\n")
            with _own_signals(), _on_loopback(address), _no_cluster(address):
                host, _, port = address.rpartition("://")[2].rpartition(":")
                if port.isdigit():  # connect and hang up: Ray would retry for many minutes
                    there = host.strip("[]"), int(port)
                    socket.create_connection(there, _CONNECT_SECONDS).close()
                options: dict[str, Any] = {}
                if address == "local":
                    options = {"num_cpus": workers, "include_dashboard": False}
                    options["_node_ip_address"] = "127.0.0.1"
                ray().init(address=address, log_to_driver=False, logging_level="ERROR", **options)
            # Ray prints the deaths of workers to stdout, where a program may read a summary.
            ray()._private.worker._worker_logs_enabled = False
        self.workers = max(1, int(ray().cluster_resources().get("CPU", 1)))
        self._context: Any = None
        self._results: list[Any] = []

    def begin(self, bound: BoundPipeline, source: FileSource) -> None:
        self._context = ray().put((bound.for_worker(), source.subset([])))

    def check_nodes(self, place: OutputPlace, token: FolderToken, file: SourceFile | None) -> None:
        """Raise ConfigError if a node does not see the source or the output; compile kernels.

        Meanwhile all workers start, as each process needs a second for its imports.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        warming = ray().remote(_warm_up).options(name="warm-up", max_retries=_REPEATS)
        warm_ups = [warming.remote(self._context) for _ in range(self.workers)]
        nodes = [
            node for node in ray().nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0
        ]
        probes = []
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = {"num_cpus": 0, "max_retries": _REPEATS, "scheduling_strategy": there}
            probing = ray().remote(_probe).options(**options)
            probes.append(probing.remote(self._context, place, token, file))
        with _as_engine_errors("a node of the cluster does not answer"):
            answers = [_probed(node, probe) for node, probe in zip(nodes, probes, strict=True)]
        if problems := [f"node {node}: {problem}" for node, problem in answers if problem]:
            raise ConfigError("[engine] " + "; ".join(dict.fromkeys(problems)) + ".")
        ray().wait(warm_ups, num_returns=len(warm_ups), timeout=_PROBE_SECONDS)

    def put(self, state: pa.Table) -> Any:
        return ray().put(state)

    def split(self, row_range: RowRange, shards: int) -> tuple[Any, list[Any]]:
        divided, *chunks = self._task(_split, "split", shards + 1).remote(
            self._context, row_range, shards
        )
        self._results.append(divided)
        return divided, chunks

    def score(
        self, task: ShardTask, before: Any, state: Any, chunks: Sequence[Any]
    ) -> tuple[Any, Any]:
        # Chunks are separate arguments, so that Ray waits for them, and remakes lost ones.
        outcome, after = self._task(_score, f"score-{task.shard}", 2).remote(
            self._context, task, before, state, *chunks
        )
        self._results.append(outcome)
        return outcome, after

    def _task(self, function: Any, name: str, returns: int) -> Any:
        options = {"num_cpus": 1, "max_retries": _REPEATS, "retry_exceptions": False}
        task = ray().remote(function)
        return task.options(name=f"streamrnn-{name}", num_returns=returns, **options)

    def ready(self, handles: Sequence[Any]) -> list[Any]:
        handles = list(handles)
        ready: list[Any] = ray().wait(handles, num_returns=len(handles), timeout=_PAUSE)[0]
        return ready

    def get(self, handle: Any) -> Any:
        with _as_engine_errors("the workers of a task died"):
            value = ray().get(handle)
        if handle in self._results:
            self._results.remove(handle)
        return value

    def cancel(self) -> None:
        for handle in self._results:
            ray().cancel(handle, force=True)
        self._results = []

    def close(self) -> None:
        if self._started:
            ray().shutdown()
            ray()._private.worker._worker_logs_enabled = True
            self._survived()


def _probed(node: dict[str, Any], result: Any) -> Probe:
    """Return a node's report; a task fails there only if its code cannot be loaded."""
    try:
        report: Probe = ray().get(result, timeout=_PROBE_SECONDS)
    except ray().exceptions.RayTaskError as error:
        reason = str(error).strip().splitlines()[-1]
        problem = f"it cannot load streamrnn {__version__}: {reason}. Install the same version"
        return Probe(node["NodeManagerHostname"], problem)
    return report


def _watcher() -> subprocess.Popen[bytes]:
    """Start a shell that waits for a line, and reports the end of this process if none comes.

    Ray ends a driver that has lost its node: a separate thread calls `_exit`, after which no code
    of this process runs.
    """
    script = 'read -r _ || printf "%s\\n" "$0" >&2'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, _ENDED],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # a terminal's signals must not reach it
    )


@contextmanager
def _on_loopback(address: str) -> Iterator[None]:
    """Make a cluster that is started here listen only on 127.0.0.1.

    Ray would use the machine's network address, except on systems without clusters.
    """
    clusters = ray()._private.ray_constants.ENABLE_RAY_CLUSTER
    if address == "local":
        ray()._private.ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray()._private.ray_constants.ENABLE_RAY_CLUSTER = clusters


@contextmanager
def _no_cluster(address: str) -> Iterator[None]:
    """Raise EngineError if Ray does not start, which it reports by errors of many classes."""
    try:
        yield
    except (ray().exceptions.RayError, OSError, ValueError, RuntimeError) as error:
        ray().shutdown()
        raise EngineError(
            f"no Ray cluster at [engine] address {address!r}: {_text(error)}. Give host:port of a "
            'running one (`ray start --head` prints it), or "local" to start one here.'
        ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray would replace by an immediate end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _as_engine_errors(what: str) -> Iterator[None]:
    """Raise EngineError for an error of the cluster; an error of a task's code stays as it is."""
    try:
        yield
    except (ray().exceptions.RayError, ConnectionError) as error:
        cause = error.cause if isinstance(error, ray().exceptions.RayTaskError) else error
        if not isinstance(cause, (ray().exceptions.RayError, ConnectionError)):
            raise
        raise EngineError(
            f"{what}: {_text(cause)}. Check the cluster (memory, nodes) and rerun the command: it "
            "resumes from the last commit."
        ) from error


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300].rstrip('.')}"
