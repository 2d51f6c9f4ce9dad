"""The guide's configurations of nginx and Caddy, as they stand there, in front of a server."""

import base64
import getpass
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import logs
import pytest
import serving
from readme import blocks

pytest.importorskip("tritonclient.http", reason="needs the oracles extra")
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
CADDY = shutil.which("caddy", path=sysconfig.get_path("scripts"))
PASSWORD = {"authorization": "Basic " + base64.b64encode(b"clients:secret").decode()}
Send = Callable[..., tuple[int, bytes]]


def nginx(folder: Path, block: str, port: int) -> tuple[list[str], Path]:
    """Configure it in the folder; return its command, and the certificate to trust."""
    if NGINX is None:
        pytest.skip("needs Debian's package nginx")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -keyout scores.key -out scores.crt"
    make += " -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(make.split(), cwd=folder, check=True, capture_output=True)
    (folder / "passwords").write_text("clients:{PLAIN}secret\n")
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"user {getpass.getuser()}; pid {folder}/pid;\n"
        f"error_log {folder}/errors; daemon off; events {{ }}\n"
        f"http {{ access_log off;\n{places}{block.replace('443', f'127.0.0.1:{port}')}}}"
    )
    return [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], folder / "scores.crt"


def caddy(folder: Path, block: str, port: int) -> tuple[list[str], Path]:
    """Configure it in the folder, with an authority of its own instead of one on the internet."""
    if CADDY is None:
        pytest.skip("needs .ci/programs.txt")
    password = subprocess.check_output([CADDY, "hash-password", "--plaintext", "secret"], text=True)
    block = block.replace("<hash of `caddy hash-password`>", password.strip())
    block = block.replace("scores.example.org", f"localhost:{port}")
    (folder / "Caddyfile").write_text(
        "{\nadmin off\nlocal_certs\nskip_install_trust\nauto_https disable_redirects\n"
        f"default_bind 127.0.0.1\nstorage file_system {folder}\n}}\n{block}"
    )
    command = [CADDY, "run", "--config", str(folder / "Caddyfile")]
    return command, folder / "pki/authorities/local/root.crt"


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def send(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Send]:
    """Sends a request to the proxy, over TLS, with a certificate that was made here."""
    name = request.param.__name__
    folder = tmp_path_factory.mktemp(name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = blocks("streamrnn/guide/serve.md")
    (block,) = (b.text for b in page if b.title.lower().startswith(name))
    with serving.served(serving.make(tmp_path_factory.mktemp("behind"), rows=20)) as server:
        command, trusted = request.param(folder, block.replace("8080", str(server.port)), port)
        with (folder / "log").open("w") as log:
            proxy = subprocess.Popen(command, stderr=log)

        def send(path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
            context = ssl.create_default_context(cafile=str(trusted))
            to = http.client.HTTPSConnection("localhost", port, timeout=60, context=context)
            to.request("GET" if body is None else "POST", path, body, headers)
            answer = to.getresponse()
            content = answer.read()
            to.close()
            return answer.status, content

        try:
            while True:
                assert proxy.poll() is None, (folder / "log").read_text()
                try:
                    send("/", None, {})
                except OSError:  # it does not listen yet, or has no certificate yet
                    time.sleep(0.05)
                else:
                    break
            yield send
        finally:
            proxy.terminate()
            proxy.wait(60)


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
