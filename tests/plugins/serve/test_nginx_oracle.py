"""The guide's configuration of nginx, as it stands there, in front of a server."""

import base64
import getpass
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator

import logs
import pytest
import serving
from readme import blocks

pytest.importorskip("tritonclient.http", reason="needs the oracles extra")
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
if NGINX is None:
    pytest.skip("needs Debian's package nginx", allow_module_level=True)
PASSWORD = {"authorization": "Basic " + base64.b64encode(b"me:secret").decode()}
Send = Callable[..., tuple[int, bytes]]


@pytest.fixture(scope="module")
def send(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Send]:
    """Sends a request to nginx, over TLS, with a certificate that it made."""
    folder = tmp_path_factory.mktemp("nginx")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -keyout scores.key -out scores.crt"
    make += " -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(make.split(), cwd=folder, check=True, capture_output=True)
    (folder / "passwords").write_text("me:{PLAIN}secret\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (block,) = (b.text for b in blocks("streamrnn/guide/serve.md") if "nginx" in b.title)
    with serving.served(serving.make(tmp_path_factory.mktemp("behind"), rows=20)) as server:
        block = block.replace("443", f"127.0.0.1:{port}").replace("8080", str(server.port))
        places = "".join(
            f"{name}_temp_path {folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"user {getpass.getuser()}; pid {folder}/pid;\n"
            f"error_log {folder}/errors; daemon off; events {{ }}\n"
            f"http {{ access_log off;\n{places}{block}}}"
        )
        nginx = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")])
        context = ssl.create_default_context(cafile=str(folder / "scores.crt"))

        def send(path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
            proxy = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
            proxy.request("GET" if body is None else "POST", path, body, headers)
            answer = proxy.getresponse()
            content = answer.read()
            proxy.close()
            return answer.status, content

        try:
            _wait_for(port, nginx)
            yield send
        finally:
            nginx.terminate()
            nginx.wait(60)


def _wait_for(port: int, nginx: subprocess.Popen[bytes]) -> None:
    while True:
        assert nginx.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def test_who_has_a_password_is_answered(send: Send) -> None:
    table = logs.random_log(3).drop(["new"])
    rows = [{**row, "t": row["t"].isoformat()} for row in table.to_pylist()]
    body = json.dumps(rows).encode()
    assert send("/score", body, {})[0] == 401
    status, answer = send("/score", body, PASSWORD)
    assert status == 200
    assert [row["id"] for row in json.loads(answer)] == table["id"].to_pylist()
    assert send("/v2/health/ready", None, PASSWORD) == (200, b'{"ready":true}\n')


def test_a_body_may_be_as_large_as_without_it(send: Send) -> None:
    large = b"[" + b" " * (20 << 20) + b"]"
    assert send("/score", large, PASSWORD) == (200, b"[]\n")


def test_nobody_administrates_through_it(send: Send) -> None:
    """Nor from its own machine by a path that it passes on."""
    for path in ("/admin/commit", "/x/../admin/model", "//admin/commit", "/%61dmin/commit"):
        assert send(path, b"", PASSWORD)[0] == 403
