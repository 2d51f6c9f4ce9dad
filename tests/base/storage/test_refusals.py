"""Servers that refuse, or do not answer: one message that names what was wanted, and an exit code.

Nothing is retried for minutes, and a run that is stopped ends.

Slow: all of it, which waits for sockets; quick tests have the errors of folders and of buckets in
memory.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import logs
import pytest
from base.storage.s3_server import ENVIRONMENT, environment, options, refusing, silent
from fresh import python
from selection import slow

from streamrnn.base.storage import remote
from streamrnn.cli.app import main

pytestmark = slow

PIPELINE = """
[source]
path = "{source}"
key = "id"
time = "t"
features = ["a", "b"]
[model]
path = "{model}"
[sink]
path = "{sink}"
"""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(remote, "ATTEMPTS", 2)


def pipeline(folder: Path, source: str, sink: str) -> str:
    model = folder / "m.safetensors"
    logs.small_model().save(model)
    source = source or logs.write(logs.random_log(60), folder / "in.parquet")
    path = folder / "p.toml"
    path.write_text(PIPELINE.format(source=source, model=model, sink=sink or folder / "out"))
    return str(path)


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("error: ") == 1
    assert "Traceback" not in error
    return int(str(ended.value.code)), error


REFUSALS = {
    "busy": (503, "SlowDown", "SLOW_DOWN", "Wait until the server answers"),
    "unknown key": (403, "InvalidAccessKeyId", "INVALID_ACCESS_KEY_ID", "Check the credentials"),
    "wrong secret": (403, "SignatureDoesNotMatch", "SIGNATURE_DOES_NOT", "Check the credentials"),
    "no permission": (403, "AccessDenied", "ACCESS_DENIED", "Check the credentials"),
    "no bucket": (404, "NoSuchBucket", "NO_SUCH_BUCKET", "Create the bucket"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_sink_that_refuses(
    refusal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1. A busy server is asked again; a refusal is final."""
    status, code, shown, advice = REFUSALS[refusal]
    with refusing(status, code) as (port, requests):
        path = pipeline(tmp_path, "", f"s3://KEY:HIDDEN@{code.lower()}/out?{options(port)}")
        number, error = outcome(capsys, "run", path, "-q")
    assert number == 1
    assert f"s3://{code.lower()}/out" in error
    assert shown in error
    assert advice in error
    assert "HIDDEN" not in error
    asked = [request for request in requests if request == requests[0]]
    assert len(asked) == 2 or status == 403
    assert len(asked) == 1 or status != 403


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_source_that_refuses(
    refusal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, code, _, advice = REFUSALS[refusal]
    with refusing(status, code) as (port, _):
        uri = f"s3://KEY:HIDDEN@{code.lower()}/in.parquet?{options(port)}"
        number, error = outcome(capsys, "run", pipeline(tmp_path, uri, ""), "-q")
    assert number == (66 if status == 404 else 65)
    assert f"s3://{code.lower()}/in.parquet" in error
    assert (advice if status != 404 else "no such file or directory") in error
    assert "HIDDEN" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", ["source", "sink"])
def test_a_server_that_never_answers(
    side: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with silent() as (port, _):
        uri = f"s3://silent-{side}/x?{options(port)}"
        path = pipeline(tmp_path, *((uri, "") if side == "source" else ("", uri)))
        start = time.monotonic()
        number, error = outcome(capsys, "run", path, "-q")
    assert number == (65 if side == "source" else 1)
    assert f"silent-{side}/x" in error
    assert "Timeout was reached" in error
    assert time.monotonic() - start < 12  # 2 attempts of 1 s, and pauses


RUN = """
import sys
from streamrnn.cli import process
from streamrnn.cli.app import main
process.WAITS = 2
main(["run", sys.argv[1], "-q"])
"""


def test_a_stopped_run_that_waits_for_a_server_ends(tmp_path: Path) -> None:
    """SIGTERM ends the run with 130, although the call cannot be interrupted."""
    with silent() as (port, asked):
        path = pipeline(tmp_path, "", f"s3://silent/x?{options(port)}")
        command = [sys.executable, "-c", RUN, path]
        with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as run:
            assert asked.wait(60)
            run.send_signal(signal.SIGTERM)
            start = time.monotonic()
            _, error = run.communicate(timeout=30)
    assert run.returncode == 130
    assert "a disk or a server: no answer for 2 s; rerun the same command" in error
    assert time.monotonic() - start < 6


# A job in the background of a script ignores SIGINT, and so do its children.
MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from streamrnn.cli import main; main()"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "line", ["state show {}", "verify {}", "rewind {}", "compact {}", "validate p.toml"]
)
def test_a_command_that_waits_for_a_server_ends_at_once(
    line: str, number: signal.Signals, tmp_path: Path
) -> None:
    """The call cannot be interrupted, and takes a minute."""
    with silent() as (port, asked):
        uri = f"s3://silent/x?{options(port)}"
        pipeline(tmp_path, "", uri)
        command = [sys.executable, "-c", MAIN, *line.format(uri).split()]
        with subprocess.Popen(
            command, env=environment(), cwd=tmp_path, stderr=subprocess.PIPE, text=True
        ) as run:
            assert asked.wait(60)
            run.send_signal(number)
            start = time.monotonic()
            _, error = run.communicate(timeout=30)
    assert (run.returncode, error) == (128 + number, "")
    assert time.monotonic() - start < 5


def test_what_a_run_waits_for_after_a_signal_is_less_than_30_seconds() -> None:
    from streamrnn.cli import process

    assert process.WAITS <= 25


def test_a_stopped_run_that_computes_is_not_ended() -> None:
    code = (
        "import os, signal, time\nfrom streamrnn.cli import process\n"
        "process.WAITS = 2\n"
        "with process.stop_on_signal() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    end = time.monotonic() + 4\n"
        "    while time.monotonic() < end: stop.is_set()\n"
        "time.sleep(3)\n"
        "print('done')\n"
    )
    assert python("-c", code).stdout == "done\n"
