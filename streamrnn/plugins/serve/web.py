"""Requests and responses. All that is HTTP comes from starlette."""

import asyncio
import ipaddress
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Protocol

import pyarrow as pa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from streamrnn import __version__
from streamrnn.errors import DataError, DTypeError, StreamRNNError
from streamrnn.plugins.serve.batching import Busy
from streamrnn.plugins.serve.producers import Conflict
from streamrnn.plugins.serve.scoring import Asked, Scoring
from streamrnn.plugins.serve.tensors import read_request, tensors_of, write_answer

_NUMBER = re.compile("[0-9]{1,18}")
_LARGEST = 64 << 20
"""Bytes of a body."""
_SLOWEST = 60.0
"""Seconds in which a body has to arrive."""
_ARROW = "application/vnd.apache.arrow.stream"
_LOGGER = logging.getLogger("streamrnn.plugins")
Handler = Callable[[Request], Awaitable[Response]]


class Unavailable(Exception):  # noqa: N818 - as Busy
    """The server ends because of an error; whether the rows are in the state is not known."""


class Service(Protocol):
    """What answers requests: `scoring` is there when it is `ready`."""

    ready: bool
    name: str
    scoring: Scoring

    @property
    def waiting(self) -> int:
        """Rows that are waiting."""

    async def score(self, asked: Asked) -> Any:
        """Score the rows of a request.

        Raises Busy, Unavailable, Conflict, DataError and DTypeError.
        """


def web_app(service: Service) -> Starlette:
    """Return the ASGI app of a service."""
    registry = CollectorRegistry()
    seconds = Histogram(
        "streamrnn_request_seconds", "Seconds of each request.", ["status"], registry=registry
    )
    scored = Counter("streamrnn_request_rows", "Rows of answered requests.", registry=registry)
    Gauge("streamrnn_waiting_rows", "Rows that are waiting.", registry=registry).set_function(
        lambda: service.waiting
    )

    async def score(request: Request) -> Response:
        numbered = _numbered(request.query_params)
        if _is_arrow(request):
            return _arrow(await _score(_table(await _body(request)), numbered))
        return _json(await _score(_objects(await _body(request)), numbered))

    async def infer(request: Request) -> Response:
        if _is_arrow(request):
            return await score(request)
        length = request.headers.get("inference-header-content-length")
        rows, asked = read_request(await _body(request), length, service.scoring.columns)
        answer = await _score(rows, _numbered(asked.get("parameters") or {}))
        content, headers = write_answer(answer, asked, service.name)
        return Response(content, headers=headers)

    async def _score(rows: Any, numbered: tuple[str | None, int]) -> Any:
        if isinstance(rows, pa.Table):
            rows = service.scoring.columns.fitted(rows)
        answer = await service.score(Asked(rows, *numbered))
        scored.inc(len(rows))
        return answer

    async def model(_: Request) -> Response:
        inputs, outputs = service.scoring.columns.schema, service.scoring.answer_schema
        described = {"inputs": tensors_of(inputs), "outputs": tensors_of(outputs)}
        return _json({"name": service.name, "versions": [], "platform": "streamrnn", **described})

    async def state(request: Request) -> Response:
        found = await _on_thread(service.scoring.state_of, request.path_params["key"].split("/"))
        if not found:
            raise HTTPException(404, "no stream with this key has a state")
        return _json(found[0])

    async def commit(_: Request) -> Response:
        await _on_thread(service.scoring.commit)
        return _json({"committed": True})

    async def load_model(request: Request) -> Response:
        (asked,) = _objects(b"[%b]" % await _body(request))
        path, on_change = asked.get("path"), asked.get("on_change")
        if type(path) is not str or type(on_change) is not str:
            raise DataError('expected {"path": …, "on_change": …}, as of [model]')
        await _on_thread(service.scoring.load_model, path, on_change)
        return _json({"loaded": True})

    async def server(_: Request) -> Response:
        extensions = ["binary_tensor_data"]
        return _json({"name": "streamrnn", "version": __version__, "extensions": extensions})

    async def live(_: Request) -> Response:
        return _json({"live": True})

    async def ready(_: Request) -> Response:
        return _json({"ready": service.ready}, 200 if service.ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    async def openapi(request: Request) -> Response:
        """Describe all paths, and the rows that /score takes."""
        done = {"responses": {"200": {"description": "done"}, "4XX": {"description": "refused"}}}
        paths: dict[str, Any] = {
            route.path.replace(":path", ""): {
                method.lower(): dict(done) for method in route.methods - {"HEAD"}
            }
            for route in request.app.routes
        }
        row = {
            "type": "object",
            "properties": {n: {} for n in service.scoring.columns.schema.names},
        }
        rows = {"application/json": {"schema": {"type": "array", "items": row}}}
        paths["/score"]["post"]["requestBody"] = {"content": rows}
        info = {"title": service.name, "version": __version__}
        return _json({"openapi": "3.1.0", "info": info, "paths": paths})

    def answering(handler: Handler, *, admin: bool = False) -> Handler:
        """Return a handler that answers only when ready, and errors with a text."""

        async def handle(request: Request) -> Response:
            begun = time.perf_counter()
            if admin and not _is_local(request):
                response = _error(403, "for this machine only")
            elif not service.ready:
                response = _error(503, "not ready", {"retry-after": "1"})
            elif request.path_params.get("model", service.name) != service.name:
                response = _error(404, f"the model is {service.name}")
            else:
                try:
                    response = await handler(request)
                except (StreamRNNError, Conflict, Busy, Unavailable) as error:
                    response = _response_to(error, admin=admin)
            seconds.labels(response.status_code).observe(time.perf_counter() - begun)
            return response

        return handle

    of_model = "/v2/models/{model}"
    return Starlette(
        routes=[
            Route("/score", answering(score), methods=["POST"]),
            Route(f"{of_model}/infer", answering(infer), methods=["POST"]),
            Route(of_model, answering(model)),
            Route(f"{of_model}/ready", ready),
            Route("/v2", server),
            Route("/v2/health/live", live),
            Route("/v2/health/ready", ready),
            Route("/metrics", metrics),
            Route("/openapi.json", answering(openapi)),
            Route("/state/{key:path}", answering(state)),
            Route("/admin/commit", answering(commit, admin=True), methods=["POST"]),
            Route("/admin/model", answering(load_model, admin=True), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )


def _response_to(error: Exception, *, admin: bool) -> Response:
    """Return the response to an error that the client has caused, or raise another one."""
    match error:
        case DataError() | DTypeError():
            return _error(400, str(error))
        case Conflict():
            return _error(409, str(error))
        case Busy():
            return _error(429, "too many rows are waiting", {"retry-after": "1"})
        case Unavailable():
            return _error(503, "the server ends; its log says why")
        case _ if admin:
            _LOGGER.error("%s", error)
            return _error(409, f"{type(error).__name__}: the log of the server says more")
    raise error


async def _on_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, call, *arguments)


def _is_local(request: Request) -> bool:
    """Return whether a request is from this machine, and no proxy or page of the web sends it."""
    forwarded = {"forwarded", "x-forwarded-for", "x-real-ip", "origin"} & set(request.headers)
    host = request.client.host if request.client else ""
    loopback: bool = ipaddress.ip_address(host).is_loopback
    return loopback and not forwarded


def _is_arrow(request: Request) -> bool:
    kind: str = request.headers.get("content-type", "")
    return kind.partition(";")[0] == _ARROW


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


def _objects(body: bytes) -> list[dict[str, Any]]:
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


def _table(body: bytes) -> pa.Table:
    try:
        table = pa.ipc.open_stream(body).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"expected an Arrow stream: {error}") from None
    return table


def _json(value: Any, status: int = 200) -> Response:
    return Response(
        json.dumps(value, default=str, separators=(",", ":")) + "\n",  # for who reads it in a shell
        status,
        media_type="application/json",
    )


def _arrow(answer: pa.RecordBatch) -> Response:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answer.schema) as writer:
        writer.write_batch(answer)
    return Response(sink.getvalue().to_pybytes(), media_type=_ARROW)


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    response = _json({"error": text}, status)
    response.headers.update(headers or {})
    return response


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    """Answer what the client has not caused, of which only the log of the server says more."""
    _LOGGER.error("%s: %s", type(error).__name__, error)
    return _error(500, HTTPStatus(500).phrase)
