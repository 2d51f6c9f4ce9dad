"""Requests and responses. All that is HTTP comes from starlette."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from streamrnn.errors import DataError, DTypeError
from streamrnn.plugins.serve.batching import Busy

_LARGEST = 64 << 20
"""Bytes of a body."""
_SLOWEST = 60.0
"""Seconds in which a body has to arrive."""
_LOGGER = logging.getLogger("streamrnn.plugins")


class Unavailable(Exception):  # noqa: N818 - as Busy
    """The server ends because of an error; whether the rows are in the state is not known."""


class Service(Protocol):
    """What answers requests."""

    ready: bool

    async def score(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Score the rows of a request. Raises Busy, Unavailable, DataError and DTypeError."""


def web_app(service: Service) -> Starlette:
    """Return the ASGI app of a service."""

    async def score(request: Request) -> Response:
        rows = _rows_of(await _body(request))
        return _json(await service.score(rows))

    async def live(_: Request) -> Response:
        return _json({"live": True})

    async def ready(_: Request) -> Response:
        return _json({"ready": service.ready}, 200 if service.ready else 503)

    def answering(
        handler: Callable[[Request], Awaitable[Response]],
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return a handler that answers only when ready, and errors with a text."""

        async def handle(request: Request) -> Response:
            if not service.ready:
                raise HTTPException(503, "not ready", {"retry-after": "1"})
            try:
                return await handler(request)
            except (DataError, DTypeError) as error:
                raise HTTPException(400, str(error)) from None
            except Unavailable:
                raise HTTPException(503, "the server ends; its log says why") from None
            except Busy:
                raise HTTPException(
                    429, "too many rows are waiting", {"retry-after": "1"}
                ) from None

        return handle

    return Starlette(
        routes=[
            Route("/score", answering(score), methods=["POST"]),
            Route("/v2/health/live", live),
            Route("/v2/health/ready", ready),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    try:
        async with asyncio.timeout(_SLOWEST):
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > _LARGEST:
                    raise HTTPException(413, f"expected at most {_LARGEST} bytes")
    except TimeoutError:
        raise HTTPException(408, f"expected the body within {_SLOWEST:.0f} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body has no end") from None
    return b"".join(chunks)


def _rows_of(body: bytes) -> list[dict[str, Any]]:
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"expected a JSON list of objects, one for each row, received no JSON: {error}"
        ) from None
    if type(rows) is not list:
        raise DataError(
            f"expected a JSON list of objects, one for each row, received {body[:40]!r}"
        )
    for row, values in enumerate(rows):
        if type(values) is not dict:
            raise DataError(
                f"the request: row {row} (from 0): expected an object, received {values!r:.40}"
            )
    return rows


def _json(value: Any, status: int = 200) -> Response:
    return Response(
        json.dumps(value, default=str, separators=(",", ":")), status, media_type="application/json"
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _json({"error": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _failed(_: Request, error: Exception) -> Response:
    """Answer what the client has not caused, of which only the log of the server says more."""
    _LOGGER.error("%s: %s", type(error).__name__, error)
    return _json({"error": HTTPStatus(500).phrase}, 500)
