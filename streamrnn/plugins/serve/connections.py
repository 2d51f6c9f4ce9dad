"""Connections that close if clients are slow, stop midway or are too many: uvicorn would wait."""

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SLOWEST = 60.0
"""Largest number of seconds that the head or body of a request, or reading an answer, may take."""
_LONGEST_HEAD = 65_536
_FILES = 65_536


def most_connections() -> int:
    """Raise this process's limit of open files; return how many of them may be connections."""
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
        """Close the connection unless what is sent is read in time."""
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
