"""The process: it owns the output, listens, scores what requests bring, commits, and ends."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from typing import Any

import uvicorn
import uvloop

from streamrnn.errors import ConfigError, DataError, DTypeError, StreamRNNError
from streamrnn.jobs.pipeline import Pipeline
from streamrnn.plugins.serve.batching import Batcher
from streamrnn.plugins.serve.scoring import Asked, Scoring
from streamrnn.plugins.serve.web import Unavailable, web_app

_LOGGER = logging.getLogger("streamrnn.plugins")
_DRAINS = 10
"""Seconds in which requests that have begun must arrive once the server is stopped."""


class Server:
    """Answers requests from a session of a pipeline, until a signal or an error ends it.

    `ready` is set while it answers; `name` is that of the model in requests.
    """

    def __init__(self, pipeline: Pipeline, name: str, host: str, port: int) -> None:
        self.ready = False
        self.name = name
        self._pipeline = pipeline
        self._address = host, port
        keys = pipeline.config.serve
        self._batcher = Batcher(self._answers, keys.batch_rows, keys.queue_rows)
        self.scoring: Scoring
        self._failure: Exception | None = None
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                web_app(self),
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=60,
                timeout_graceful_shutdown=_DRAINS,
            )
        )
        self._uvicorn.capture_signals = nullcontext  # they are ours: the exit code is 0

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then commit. Raises what a session raises."""
        with ExitStack() as stack:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(stack))
            if self._failure is not None:
                raise self._failure

    async def _serve(self, stack: ExitStack) -> None:
        loop = asyncio.get_running_loop()
        listening = stack.enter_context(_listen(*self._address))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        serving = loop.create_task(self._uvicorn.serve([listening]))
        try:
            host, port = listening.getsockname()[:2]
            _LOGGER.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
            await loop.run_in_executor(None, self._open, stack)
            self.ready = not self._uvicorn.should_exit
            if self.ready:
                _LOGGER.info("ready")
            committing = loop.create_task(self._commit_regularly())
            await asyncio.wait([serving, committing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.ready = False
            self._uvicorn.should_exit = True
            await serving
            await self._batcher.drain()
        committing.cancel()

    def _open(self, stack: ExitStack) -> None:
        """Load the state, compile kernels, and score what the log has beyond the state."""
        session = stack.enter_context(self._pipeline.session())
        with suppress(ConfigError):  # no kernel can be kept on disk
            self._pipeline.compile_kernels()
        self.scoring = Scoring(session, self._pipeline.config)

    def _stop(self, number: signal.Signals) -> None:
        if self._uvicorn.should_exit:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.ready = False
        self._uvicorn.should_exit = True
        _LOGGER.info("stopping after the requests that have begun; a second signal aborts at once")

    async def _commit_regularly(self) -> None:
        """Commit every so often, until a commit fails."""
        loop = asyncio.get_running_loop()
        while self._failure is None:
            await asyncio.sleep(self._pipeline.config.serve.every.total_seconds())
            try:
                await loop.run_in_executor(None, self.scoring.commit)
            except StreamRNNError as error:
                self._failure = error

    def _answers(self, asked: Sequence[Asked]) -> Sequence[Any]:
        return self.scoring.answers(asked)

    async def score(self, asked: Asked) -> Any:
        """Return the answer to a request.

        Raises Busy, Unavailable, Conflict, DataError and DTypeError.
        """
        try:
            return await self._batcher.answer(asked, len(asked.rows))
        except (DataError, DTypeError):
            raise
        except StreamRNNError as error:
            self._failure = self._failure or error
            self._uvicorn.should_exit = True
            raise Unavailable from error

    @property
    def waiting(self) -> int:
        """Rows that are waiting."""
        return self._batcher.waiting


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"[serve] port: cannot listen on {host}, port {port}: {error.strerror}. Set another "
            "port; 0 is one that is free"
        ) from error
    return listening
