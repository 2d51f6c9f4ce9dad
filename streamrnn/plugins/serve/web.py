"""The paths of the server: requests and responses. HTTP itself comes from starlette."""

import asyncio
import ipaddress
import logging
import re
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
import pyarrow as pa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamrnn import __version__
from streamrnn.base.display import as_text
from streamrnn.errors import DataError, DTypeError, StreamRNNError
from streamrnn.plugins.serve.scoring import Asked, Scoring, Service, try_again
from streamrnn.plugins.serve.tensors import read_request, tensors_of, write_answer

SLOWEST = 60.0
"""Largest number of seconds that the head or body of a request, or reading an answer, may take."""
_NUMBER = re.compile("[0-9]{1,18}")
_THIS_MACHINE = re.compile(rb"(?i)(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")
_LARGEST = 64 << 20
"""Largest number of bytes of a body."""
_MOST_HELD = 4 * _LARGEST
"""Largest number of bytes of all bodies whose requests have no answer yet."""
_ARROW = "application/vnd.apache.arrow.stream"
_LOGGER = logging.getLogger("streamrnn.plugins")


def web_app(service: Service, *, behind_proxy: bool = False) -> ASGIApp:
    """Return the ASGI app of a service; pages in browsers are refused unless `behind_proxy`.

    The server has no page of its own, but browsers let pages of other sites send requests to it:
    with the header `Origin`; or without, if the host name of the page now leads to this machine.
    """
    registry = CollectorRegistry()
    seconds = Histogram(
        "streamrnn_request_seconds", "Seconds of each request.", ["status"], registry=registry
    )
    scored = Counter("streamrnn_request_rows", "Rows of answered requests.", registry=registry)
    waiting = Gauge("streamrnn_waiting_rows", "Rows that are waiting.", registry=registry)
    waiting.set_function(lambda: service.waiting)
    forgotten = Gauge("streamrnn_forgotten_producers", "Producers forgotten.", registry=registry)
    forgotten.set_function(lambda: service.ready and service.scoring.producers.forgotten)

    def scoring_for(request: Request) -> Scoring:
        """Return the scoring; refuse a request before its body is read."""
        if not service.ready:
            raise try_again(503, "not ready")
        if request.path_params.get("model", service.name) != service.name:
            raise HTTPException(404, f"expected the model {service.name}")
        return service.scoring

    async def score(request: Request) -> Response:
        scoring, body = scoring_for(request), await _body(request)
        if not _is_arrow(request):
            return _json(await answer_to(_objects(body), request.query_params))
        rows = scoring.columns.batch(*_columns(body, service.refuse_larger))
        answer = await answer_to(rows, request.query_params)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, answer.schema) as writer:
            writer.write_batch(answer)
        return Response(sink.getvalue().to_pybytes(), media_type=_ARROW)

    async def infer(request: Request) -> Response:
        if _is_arrow(request):
            return await score(request)
        scoring, body = scoring_for(request), await _body(request)
        length = request.headers.get("inference-header-content-length")
        columns, outputs = scoring.columns, scoring.answer_schema
        asked = read_request(body, length, columns, outputs, service.refuse_larger)
        answer = await answer_to(asked.rows, asked.parameters)
        content, headers = write_answer(answer, asked, service.name)
        return Response(content, headers=headers)

    async def answer_to(rows: Any, parameters: Mapping[str, Any]) -> Any:
        answer = await service.score(Asked(rows, *_numbered(parameters)))
        scored.inc(len(rows))
        return answer

    async def model(request: Request) -> Response:
        scoring = scoring_for(request)
        inputs, outputs = scoring.columns.schema, scoring.answer_schema
        described = {"inputs": tensors_of(inputs), "outputs": tensors_of(outputs or ())}
        return _json({"name": service.name, "versions": [], "platform": "streamrnn", **described})

    async def state(request: Request) -> Response:
        key = request.scope["raw_path"].decode("latin-1").removeprefix("/state/")
        states = await asyncio.to_thread(scoring_for(request).state_of, key)
        if not states:
            raise HTTPException(404, "no stream with this key has a state")
        return _json(states[0])

    async def commit(request: Request) -> Response:
        await _administrate(request, scoring_for(request).commit)
        return _json({"committed": True})

    async def load_model(request: Request) -> Response:
        scoring = scoring_for(request)
        objects = _objects(b"[%b]" % await _body(request))
        asked = objects[0] if len(objects) == 1 else {}
        path, on_change = asked.get("path"), asked.get("on_change")
        if type(path) is not str or type(on_change) is not str:
            raise DataError('expected {"path": …, "on_change": …}, both text, as in [model]')
        await _administrate(request, scoring.load_model, path, on_change)
        return _json({"loaded": True})

    async def ready(_: Request) -> Response:
        return _json({"ready": service.ready}, 200 if service.ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    async def openapi(request: Request) -> Response:
        done = {"responses": {"200": {"description": "done"}, "4XX": {"description": "refused"}}}
        paths: dict[str, Any] = {
            route.path.replace(":path", ""): {
                method.lower(): dict(done) for method in route.methods - {"HEAD"}
            }
            for route in request.app.routes
        }
        names = scoring_for(request).columns.schema.names
        row = {"type": "object", "properties": {name: {} for name in names}}
        rows = {"type": "array", "items": row}
        paths["/score"]["post"]["requestBody"] = {"content": {"application/json": {"schema": rows}}}
        info = {"title": service.name, "version": __version__}
        return _json({"openapi": "3.1.0", "info": info, "paths": paths})

    refused = (
        "expected no Origin, and localhost or 127.0.0.1 as Host: pages in browsers may not send "
        "requests. If a proxy guards the server, start the server with --behind-proxy"
    )
    refusal = _json({"error": refused}, 403)
    about = {"name": "streamrnn", "version": __version__, "extensions": ["binary_tensor_data"]}
    of_model = "/v2/models/{model}"
    paths = Starlette(
        routes=[
            Route("/score", score, methods=["POST"]),
            Route(f"{of_model}/infer", infer, methods=["POST"]),
            Route(of_model, model),
            Route(f"{of_model}/ready", ready),
            Route("/v2", _json(about), methods=["GET"]),
            Route("/v2/health/live", _json({"live": True}), methods=["GET"]),
            Route("/v2/health/ready", ready),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi),
            Route("/state/{key:path}", state),
            Route("/admin/commit", commit, methods=["POST"]),
            Route("/admin/model", load_model, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys((DataError, DTypeError, HTTPException, Exception), _error),
    )
    paths.router.redirect_slashes = False  # a redirect would lead to the host that the client names
    held = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and measure it; limit the bytes of all bodies without an answer yet."""
        nonlocal held
        begun, size = time.perf_counter(), 0
        measured = not scope["path"].startswith(("/metrics", "/v2/health/"))

        async def receive_limited() -> Message:
            nonlocal held, size
            message = await receive()
            more = len(message.get("body", b""))
            held, size = held + more, size + more
            if size > _LARGEST:
                raise HTTPException(413, f"expected a body of at most {_LARGEST} bytes")
            if held > _MOST_HELD:
                raise try_again(429, "too many bytes of requests are waiting")
            return message

        async def send_measured(message: Message) -> None:
            if measured and message["type"] == "http.response.start":
                seconds.labels(message["status"]).observe(time.perf_counter() - begun)
            await send(message)

        head = dict(scope["headers"])
        host = head.get(b"host", b"localhost")
        of_page = b"origin" in head or not _THIS_MACHINE.fullmatch(host)
        answer = refusal if of_page and not behind_proxy else paths
        try:
            await answer(scope, receive_limited, send_measured)
        finally:
            held -= size

    return app


async def _administrate(request: Request, call: Callable[..., None], *arguments: str) -> None:
    """Call a function for a client on this machine; refuse proxies and pages in a browser."""
    forwarded = {"forwarded", "x-forwarded-for", "x-real-ip", "origin"} & set(request.headers)
    if forwarded or not ipaddress.ip_address(request.client.host).is_loopback:
        raise HTTPException(
            403, "expected a request from this machine, not through a proxy or from a browser"
        )
    try:
        await asyncio.to_thread(call, *arguments)
    except StreamRNNError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400 - as elsewhere, without a traceback
        text = f"{type(error).__name__}: see the log of the server"
        raise HTTPException(409, text) from None


def _is_arrow(request: Request) -> bool:
    kind: str = request.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == _ARROW


def _numbered(parameters: Mapping[str, Any]) -> tuple[str | None, int]:
    """Return a request's producer and number, or None and 0 without both. Raises DataError."""
    producer, sequence = parameters.get("producer"), str(parameters.get("sequence", ""))
    if producer is None and not sequence:
        return None, 0
    if not (type(producer) is str and 0 < len(producer) <= 200 and _NUMBER.fullmatch(sequence)):
        raise DataError(
            "producer and sequence: expected a name of 1 to 200 characters and a number of 1 to 18 "
            f"digits, received {producer!r:.80} and {sequence!r:.80}"
        )
    return producer, int(sequence)


async def _body(request: Request) -> bytes:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "expected a body without Content-Encoding")
    try:
        async with asyncio.timeout(SLOWEST):
            body: bytes = await request.body()
    except (TimeoutError, ClientDisconnect):  # metrics count it, even if the client left
        raise HTTPException(408, f"expected the body within {SLOWEST:.0f} s") from None
    except asyncio.CancelledError:  # the server stops, and has waited for the body
        raise try_again(503, "not ready") from None
    return body


def _objects(body: bytes) -> list[dict[str, Any]]:
    expected = "expected a JSON list of objects, one for each row, received"
    try:
        rows = orjson.loads(body)
    except ValueError as error:
        raise DataError(f"{expected} no JSON: {error}") from None
    if type(rows) is not list:
        raise DataError(f"{expected} {body[:40]!r}")
    for row, values in enumerate(rows):
        if type(values) is not dict:
            raise DataError(
                f"the request: row {row} (from 0): expected an object, received {values!r:.40}"
            )
    return rows


def _columns(body: bytes, check: Callable[[int], None]) -> tuple[Iterable[tuple[str, Any]], int]:
    """Return the names and columns of an Arrow stream, and its number of rows.

    `check` may refuse the rows. Raises DataError.
    """
    try:
        if any(map(_is_compressed, pa.ipc.MessageReader.open_stream(body))):
            raise DataError("expected an Arrow stream without compression")
        with pa.ipc.open_stream(body) as reader:
            table = reader.read_all()
        check(table.num_rows)
        table.validate(full=True)
        columns = [column.combine_chunks() for column in table.columns]
    except (pa.ArrowException, MemoryError, OSError, ValueError, struct.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"expected an Arrow stream: {error}") from None
    return zip(table.column_names, columns, strict=True), table.num_rows


def _is_compressed(message: pa.ipc.Message) -> bool:
    """Return whether the buffers of a record batch or a dictionary are compressed.

    pyarrow does not say so before it decompresses them. The numbers below are fields of FlatBuffers
    tables in Arrow's Message.fbs, of which the last is set if buffers are compressed.
    """
    fields = {"record batch": (2, 3), "dictionary": (2, 1, 3)}.get(message.type, ())
    data = message.metadata
    (table,) = struct.unpack_from("<I", data)
    for field in fields:
        names = table - struct.unpack_from("<i", data, table)[0]
        (size,) = struct.unpack_from("<H", data, names)
        place = 4 + 2 * field
        (offset,) = struct.unpack_from("<H", data, names + place) if place < size else (0,)
        if not offset:
            return False
        table += offset + struct.unpack_from("<I", data, table + offset)[0]
    return bool(fields)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    content = orjson.dumps(value, as_text, orjson.OPT_APPEND_NEWLINE)  # for readers in a shell
    return Response(content, status, headers, "application/json")


async def _error(_: Request, error: Exception) -> Response:
    """Answer with an error's text; if no client has caused the error, only the log has the text."""
    if isinstance(error, HTTPException):
        return _json({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, DataError | DTypeError):
        return _json({"error": str(error)}, 400)
    _LOGGER.error("%s: %s", type(error).__name__, error)
    return _json({"error": "see the log of the server"}, 500)
