"""S3 servers for tests: one that answers, behind a proxy that can stop answering; one of errors."""

import http.server
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from pyarrow import fs

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def empty_bucket(name: str = "bucket") -> Iterator[tuple[fs.FileSystem, int]]:
    """Run a server with a bucket, with its keys in the environment; yield its files and port."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()  # objects of other tests in this process
    with pytest.MonkeyPatch.context() as patch:
        for key, value in ENVIRONMENT.items():
            patch.setenv(key, value)
        uri = f"s3://{name}/x?{options(port)}&allow_bucket_creation=true"
        files, _ = fs.FileSystem.from_uri(uri)
        files.create_dir(name)
        yield files, port
    running.stop()


class Proxy:
    """Passes requests on to a server; after `silence` it accepts them and never answers.

    `requests` are their first lines; `delay` is how many seconds later each is passed on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._silent = threading.Event()
        self.port = self._listener.getsockname()[1]
        self.delay = 0.0
        self.requests: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def silence(self) -> None:
        self._silent.set()

    def answer(self) -> None:
        self._silent.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server, suppress(OSError):
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            while data := client.recv(1 << 16):
                self.requests.append(data.split(b"\r\n", 1)[0].decode(errors="replace"))
                if self._silent.is_set():
                    while client.recv(1 << 16):  # until the client gives up
                        pass
                    break
                time.sleep(self.delay)
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
            back.join()

    def _copy(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)


@contextmanager
def refusing(status: int, code: str) -> Iterator[tuple[int, list[str]]]:
    """A server that answers every request with one error; yields its port and the requests."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def refuse(self) -> None:
            requests.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"<Error><Code>{code}</Code><Message>refused: {code}</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = refuse

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], requests
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent() -> Iterator[tuple[int, threading.Event]]:
    """A server that never answers; yields its port, and an event set by the first connection."""
    asked, kept = threading.Event(), list[socket.socket]()

    def accept() -> None:
        with suppress(OSError):
            while True:
                kept.append(listener.accept()[0])
                asked.set()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for opened in (listener, *kept):
            opened.close()


def options(port: int) -> str:
    return f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


def environment() -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT}
