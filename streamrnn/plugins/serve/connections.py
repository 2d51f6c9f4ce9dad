"""Connections of clients that are slow, send no end, or are many: uvicorn waits for them all."""

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SLOWEST = 60.0
"""Seconds in which the head of a request has to arrive, and then its body."""
_LONGEST_HEAD = 65_536
_FILES = 65_536


def most_connections() -> int:
    """Open more files than a shell lets a process; return how many may be connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most // 2


class Connection(HttpToolsProtocol):  # type: ignore[misc] # an extra
    """Closes unless the head of each request arrives in time and is short, or if there are many."""

    _in_head = True
    _received = 0
    _timer: asyncio.TimerHandle | None = None

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
        """Give the request to the app; its body has a time of its own."""
        self._in_head = False
        self._cancel()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the head of the next request."""
        self._in_head, self._received = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Close unless another request comes in time."""
        self._await_head()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._cancel()
        self._timer = self.loop.call_later(SLOWEST, self.transport.close)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
