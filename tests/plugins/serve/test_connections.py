"""What arrives on a socket: other versions and methods, no end, slowly, by a thousand at once."""

import asyncio
import contextlib
import json
import re
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serving
import uvicorn
from selection import first_quick, slow

from streamrnn.plugins.serve import server as server_module

PATIENCE = 4
IMPATIENT = f"""
from streamrnn.plugins.serve import web
web.SLOWEST = {PATIENCE}
web._MOST_HELD = 3_000_000
from streamrnn.cli import main
main()
"""
ROW = b'[{"id": "x", "t": "2030-01-01", "a": 1, "b": 2}]'
CLOSE = b"connection: close\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Server]:
    folder = serving.make(tmp_path_factory.mktemp("connections"), rows=20)
    running = serving.Server(folder, code=(IMPATIENT,))
    try:
        yield running.wait()
    finally:
        running.kill()


def request(
    body: bytes,
    head: bytes = CLOSE,
    method: bytes = b"POST",
    path: bytes = b"/score",
    version: bytes = b"1.1",
) -> bytes:
    first = b"%b %b HTTP/%b\r\nhost: localhost\r\n" % (method, path, version)
    return b"%b%bcontent-length: %d\r\n\r\n%b" % (first, head, len(body), body)


def chunked(*encodings: bytes) -> bytes:
    head = b"POST /score HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: "
    return b"%b%b\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n" % (head, b", ".join(encodings))


def answers(server: serving.Server, sent: bytes) -> bytes:
    """All that comes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (request(b"[]", b"", version=b"1.0"), [200]),
        (request(b"[]", b"") * 3 + request(b"{", b"") + request(b"[]"), [200, 200, 200, 400, 200]),
        (chunked(b"chunked"), [200]),
        (request(b"[" + b" " * 999_999 + b"]"), [200]),
        (request(b"[]", CLOSE + b"expect: 100-continue\r\n"), [100, 200]),
        (request(b"[]", CLOSE + b"content-encoding: identity\r\n"), [200]),
        (request(b"[]", CLOSE + b"content-encoding: gzip\r\n"), [415]),
        (request(b"[]", CLOSE + b"content-length: 3\r\n"), [400]),
        (request(b"[]", CLOSE + b"transfer-encoding: chunked\r\n"), [400]),
        (request(b"", method=b"HEAD", path=b"/v2/health/live"), [200]),
        (request(b"", method=b"HEAD"), [405]),
        (request(b"[]", method=b"PUT"), [405]),
        (request(b"", path=b"/v2/health/live"), [405]),
        (request(b"", method=b"GET", path=b"/admin/commit"), [405]),
        (request(b"", method=b"GET", path=b"*"), [404]),
        (request(b"[]", path=b"/score/"), [404]),  # not sent on to the host that it names
        (request(b"", method=b"GET", path=b"/state/%ff%00"), [404]),
        (request(b"", method=b"GET", path=b"/\xff"), [400]),
        (request(b"[]", b"x: " + b"y" * 70_000), [400]),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, [400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 is TLS", [400]),
    ],
)  # fmt: skip
def test_each_request_has_one_answer(
    server: serving.Server, sent: bytes, statuses: list[int]
) -> None:
    answer = answers(server, sent)
    assert [int(s) for s in re.findall(rb"HTTP/1.1 (\d+) ", answer)] == statuses, answer
    assert b"Traceback" not in answer
    assert b"location" not in answer


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (b'"a": NaN', "received no JSON"),
        (b'"a": -Infinity', "received no JSON"),
        (b'"a": ' + b"9" * 5000, "received no JSON"),
        (b'"id": "\xff"', "received no JSON"),
        (b'"b": 2.5', "column 'b': expected int32, received 2.5"),
        (b'"b": true', "column 'b': expected int32, received True"),
        (b'"b": 99999999999', "column 'b': expected int32, received 99999999999"),
        (b'"a": "1"', "column 'a': expected double, received '1'"),
        (b'"t": 99999999999999999999', "column 't': expected timestamp[us, tz=UTC]"),
        (b'"t": "9999-01-01T00:00:00+99:99"', "column 't': expected timestamp[us, tz=UTC]"),
    ],
)
def test_no_value_is_changed_in_silence(server: serving.Server, values: bytes, text: str) -> None:
    status, answer = server.send("/score", ROW.replace(b"}", b", " + values + b"}"))
    assert (status, text in json.loads(answer)["error"]) == (400, True), answer


def test_whole_floats_are_integers_and_the_last_of_a_name_twice_counts(
    server: serving.Server,
) -> None:
    """As JavaScript writes them, and as JavaScript reads them."""
    first, other = (
        json.loads(server.send("/score", ROW.replace(b'"x"', name) + b"\n")[1])[0]["score"]
        for name in (b'"one"', b'"none", "id": "two"')
    )
    again = ROW.replace(b'"x"', b'"three"').replace(b'"b": 2', b'"b": 1, "b": 2.0')
    (third,) = json.loads(server.send("/score", again)[1])
    assert first == other == third["score"]
    assert third["id"] == "three"


def test_bodies_of_too_many_bytes_at_once_are_refused(server: serving.Server) -> None:
    """Until others have their answers; large bodies one after another are not too many."""
    large = b"[" + b" " * 1_200_000 + b"]"
    for _ in range(4):
        assert server.send("/score", large) == (200, b"[]\n")
    # Again if one of the others is refused: before the bytes of an answered request are free, or
    # because its end is late on a busy machine.
    for _ in range(9):
        with contextlib.ExitStack() as stack:
            begun, told = [], []
            for _ in range(2):
                connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
                begun.append(stack.enter_context(connection))
                connection.sendall(request(large)[:-1])
            for _ in range(20):  # the server may not have read the others yet
                status, answer = server.send("/score", large)
                if status != 200:
                    break
                time.sleep(0.05)
            for connection in begun:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(b"]")
                    told.append(connection.recv(65_536)[:12])
        if status == 429 and told == [b"HTTP/1.1 200"] * 2:
            break
    assert (status, b"too many bytes of requests" in answer) == (429, True)
    assert told == [b"HTTP/1.1 200"] * 2
    assert server.send("/score", large) == (200, b"[]\n")


async def app(scope: Any, _: Any, send: Any) -> None:
    """Answer /quick at once, /late after some time, and anything else at length."""
    await asyncio.sleep(2 if scope["path"] == "/late" else 0)
    body = bytes(2 if scope["path"] in ("/quick", "/late") else 30_000_000)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def left_open(sent: bytes, answered: int) -> int:
    """The number of connections after an answer to these requests; it may take half a minute."""
    config = uvicorn.Config(
        app, http=server_module.Connection, ws="none", lifespan="off", log_config=None,
        limit_concurrency=100, timeout_keep_alive=1,
    )  # fmt: skip
    server, listening = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve([listening]))
    reader, writer = await asyncio.open_connection(*listening.getsockname(), limit=1000)
    writer.write(sent)
    if answered:
        assert (await reader.read(-1)).count(b" 200 OK") == answered
    for _ in range(300):
        if not server.server_state.connections:
            break
        await asyncio.sleep(0.1)
    left = len(server.server_state.connections)
    writer.transport.abort()
    server.should_exit = True
    await serving
    return left


@pytest.mark.parametrize(
    ("paths", "answered"),
    first_quick(
        [((b"long",), 0), ((b"late", b"quick", b"late"), 3), ((b"quick", b"late"), 2),
         ((b"long", b"quick"), 0), ((b"quick", b"long", b"late"), 0)],
    ),
)  # fmt: skip
def test_answers_that_are_late_arrive_and_those_not_read_are_dropped(
    monkeypatch: pytest.MonkeyPatch, paths: tuple[bytes, ...], answered: int
) -> None:
    """Slow: late answers, which take seconds, and other orders of the requests."""
    monkeypatch.setattr(server_module, "SLOWEST", 1.0)
    sent = b"".join(b"GET /%b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path for path in paths)
    assert asyncio.run(left_open(sent, answered)) == 0


@slow
def test_a_thousand_slow_clients_are_closed_and_others_answered(server: serving.Server) -> None:
    """Their connections leave no memory behind. Slow: so many, for as long as they may take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    kinds = [b"", b"POST /score HT", request(ROW, b"")[:-9], request(b"[]", b"") + b"P"]
    sizes = []
    try:
        for _ in range(2):
            with contextlib.ExitStack() as stack:
                address = ("127.0.0.1", server.port)
                slow = []
                for number in range(1000):
                    connection = socket.create_connection(address, timeout=60)
                    slow.append(stack.enter_context(connection))
                    connection.sendall(kinds[number % len(kinds)])
                assert all(server.score([])[0] == 200 for _ in range(20))
                ends = [b"".join(iter(lambda c=c: c.recv(65_536), b"")) for c in slow]
            found = [{end.partition(b"\r\n")[0] for end in ends[kind::4]} for kind in range(4)]
            assert found == [
                {b""}, {b""}, {b"HTTP/1.1 408 Request Timeout"}, {b"HTTP/1.1 200 OK"}
            ]  # fmt: skip
            sizes.append(resident(server))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sizes[1] < sizes[0] + 8_000, sizes


def resident(server: serving.Server) -> int:
    """Kilobytes of the process."""
    (size,) = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())
    return int(size)
