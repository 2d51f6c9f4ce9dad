"""Requests and responses. All that is HTTP comes from starlette."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from streamrnn.errors import DataError, DTypeError
from streamrnn.plugins.serve.batching import Busy
from streamrnn.plugins.serve.producers import Conflict
from streamrnn.plugins.serve.scoring import Asked, Objects

_NUMBER = re.compile("[0-9]{1,18}")
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

    async def score(self, asked: Asked) -> Objects:
        """Score the rows of a request.

        Raises Busy, Unavailable, Conflict, DataError and DTypeError.
        """


def web_app(service: Service) -> Starlette:
    """Return the ASGI app of a service."""

    async def score(request: Request) -> Response:
        producer, sequence = _numbered(request.query_params)
        rows = _rows_of(await _body(request))
        return _json(await service.score(Asked(rows, producer, sequence)))

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
            except Conflict as error:
                raise HTTPException(409, str(error)) from None
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


def _numbered(parameters: Mapping[str, Any]) -> tuple[str | None, int]:
    """Return the producer of a request, if it has one, and its number."""
    producer, sequence = parameters.get("producer"), str(parameters.get("sequence", ""))
    if producer is None and not sequence:
        return None, 0
    if not (type(producer) is str and 0 < len(producer) <= 200 and _NUMBER.fullmatch(sequence)):
        raise DataError(
            "producer and sequence: expected a name of at most 200 characters, and a number from 0 "
            f"on, received {producer!r:.80} and {sequence!r:.80}"
        )
    return producer, int(sequence)


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
