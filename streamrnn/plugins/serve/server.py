"""The process: it owns the output, listens, commits, and ends.

A connection closes if its client is slow or stops midway, or if there are too many connections:
uvicorn would wait.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
from contextlib import ExitStack, nullcontext, suppress
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from streamrnn.errors import ConfigError
from streamrnn.jobs.pipeline import Pipeline
from streamrnn.plugins.serve.scoring import Scoring, Service, log_of
from streamrnn.plugins.serve.web import SLOWEST, web_app

_LOGGER = logging.getLogger("streamrnn.plugins")
_LONGEST_HEAD = 65_536
_FILES = 65_536
_DRAINS = 10
"""Seconds within which requests that have begun must arrive once the server stops.

After half of these seconds, requests that still wait are refused; at the end, all others are
cancelled.
"""


class Server:
    """Answers requests from a session of a pipeline, until a signal or an error ends it.

    `name`: the model's name in requests. `port`: 0 takes a free one. `behind_proxy`: whether pages
    in browsers may send requests.
    """

    def __init__(
        self, pipeline: Pipeline, name: str, host: str, port: int, *, behind_proxy: bool = False
    ) -> None:
        self._pipeline = pipeline
        self._address = host, port
        self._service = Service(name, pipeline.config.serve)
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                web_app(self._service, behind_proxy=behind_proxy),
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",  # warnings about clients would fill disks
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=most_connections(),
                timeout_keep_alive=int(SLOWEST),
                timeout_graceful_shutdown=_DRAINS,
            )
        )
        self._uvicorn.capture_signals = nullcontext  # we handle them: the exit code is 0

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then commit.

        Raises what a session raises, and ConfigError if it cannot listen on the address.
        """
        with ExitStack() as stack:
            uvloop.run(self._serve(stack))
            if self._service.failure is not None:
                raise self._service.failure

    async def _serve(self, stack: ExitStack) -> None:
        loop, service = asyncio.get_running_loop(), self._service
        listening = stack.enter_context(_listen(*self._address))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        serving = loop.create_task(self._uvicorn.serve([listening]))
        try:
            host, port = listening.getsockname()[:2]
            _LOGGER.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
            await asyncio.to_thread(self._open, stack)
            service.ready = not self._uvicorn.should_exit
            if service.ready:
                _LOGGER.info("ready")
            committing = loop.create_task(self._commit_regularly())
            ended = loop.create_task(service.ended.wait())
            await asyncio.wait([serving, ended], return_when=asyncio.FIRST_COMPLETED)
            committing.cancel()
        finally:
            service.ready = False
            self._uvicorn.should_exit = True
            await serving
            await service.drain()

    def _open(self, stack: ExitStack) -> None:
        """Load the state, compile kernels, and score what the log has beyond the state."""
        stack.enter_context(log_of(self._pipeline.config))
        session = stack.enter_context(self._pipeline.session())
        with suppress(ConfigError):  # if no kernel can be kept on disk
            self._pipeline.compile_kernels()
        self._service.scoring = Scoring(session, self._pipeline.config)

    def _stop(self, number: signal.Signals) -> None:
        if self._uvicorn.should_exit:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._service.ready = False
        self._uvicorn.should_exit = True
        asyncio.get_running_loop().call_later(_DRAINS / 2, self._service.close)
        _LOGGER.info("stopping after the requests that have begun; a second signal aborts at once")

    async def _commit_regularly(self) -> None:
        """Commit at the interval of [serve] every; end the server if a commit fails."""
        while True:
            await asyncio.sleep(self._pipeline.config.serve.every.total_seconds())
            try:
                await asyncio.to_thread(self._service.scoring.commit)
            except Exception as error:  # noqa: BLE001 - ends the server
                self._service.fail(error)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]
        raise ConfigError(
            f"[serve] port: cannot listen on {host}, port {port}: {why}. Set another port; 0 "
            "takes a free one"
        ) from error


def most_connections() -> int:
    """Set this process's limit of open files; return how many of these may be connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most // 2


class Connection(HttpToolsProtocol):  # type: ignore[misc] # an extra
    """Closes if the head of a request is late or too long, or if too many connections are open.

    It also closes if an answer is not read, so that the answer does not stay in memory.
    """

    _in_head = True
    _received = 0
    _head: asyncio.TimerHandle | None = None
    _answer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > self.config.limit_concurrency:
            transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        if self._in_head and self._received > _LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response(f"expected a head of at most {_LONGEST_HEAD} bytes")

    def on_headers_complete(self) -> None:
        """Pass the request to the app, which limits the time of its body."""
        self._in_head = False
        self._cancel(self._head)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the head of the next request."""
        self._in_head, self._received = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Close the connection unless another request's head has arrived, or arrives in time."""
        if not self.pipeline:
            self._await_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Close the connection unless the client reads the answer in time."""
        super().pause_writing()
        self._answer = self.loop.call_later(SLOWEST, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel(self._answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel(self._head)
        self._cancel(self._answer)
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._cancel(self._head)
        self._head = self.loop.call_later(SLOWEST, self.transport.abort)

    def _cancel(self, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
