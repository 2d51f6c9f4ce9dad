"""Odd paths, few resources, edited manifests, early signals: one message each, and its exit code.

The command runs in a new process where that matters: limits, signals, names as bytes, and pipes,
which might block. Slow: all of it; test_cli and test_cli_real have the ordinary ways.
"""

import hashlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selection import first_quick, slow

import streamrnn
from streamrnn.cli import main

pytestmark = slow

PIPELINE = """\
[source]
path = "in"
key = "id"
time = "t"
features = ["a", "b"]
batch_rows = 10
[model]
path = "m.safetensors"
[sink]
path = "out"
"""
LOG = logs.random_log(rows=100, streams=3)
MAIN = [sys.executable, "-c", "from streamrnn.cli import main; main()"]
Done = tuple[int, str]
"""Exit code and stderr."""
Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def folder(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a pipeline, its model and its source."""
    monkeypatch.setenv("PYTHONPATH", str(Path(streamrnn.__file__).parents[1]))
    Path("p.toml").write_text(PIPELINE)
    logs.small_model().save("m.safetensors")
    logs.write(LOG, Path("in/one.parquet"))
    return workdir


def run_process(*arguments: str | bytes, before: Callable[[], None] | None = None) -> Done:
    """Run the command in a process; return its exit code and stderr."""
    done = subprocess.run(
        [*MAIN, *arguments], capture_output=True, check=False, timeout=120, preexec_fn=before
    )
    return done.returncode, done.stderr.decode(errors="replace")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process; return its exit code and stderr."""
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        code = caught.value.code
        assert isinstance(code, int)
        return code, capfd.readouterr().err

    return run


@pytest.fixture
def stopped(run: Run) -> None:
    """Stop a run at row 50 of 100, after five commits."""
    values = LOG["a"].to_pylist()
    values[55] = float("nan")
    logs.write(LOG.set_column(2, "a", pa.array(values)), Path("in/one.parquet"))
    done = run("run", "p.toml", "--set", "checkpoint.every=1")
    assert_one_message(done, 65, "row 55")


def assert_one_message(done: Done, code: int, *texts: str) -> None:
    """Check the exit code, and that stderr is one error with all texts."""
    assert (done[0], done[1].count("error: ")) == (code, 1), done
    assert any(line.startswith("error: ") for line in done[1].splitlines())
    assert "Traceback" not in done[1]
    assert "bug in streamrnn" not in done[1]
    for text in texts:
        assert text in done[1]


@pytest.mark.parametrize(
    "key", ["source.path", "sink.path", "sink.rejects", "model.path", "state.init", "state.save"]
)
def test_a_null_byte_in_a_path(key: str, run: Run) -> None:
    done = run("run", "p.toml", "--set", f'{key}="a\\u0000b.arrow"')
    assert_one_message(done, 78, key, "null byte")


@pytest.mark.parametrize("verb", ["verify", "rewind", "compact", "state show"])
def test_an_output_whose_name_is_not_utf8(verb: str, run: Run) -> None:
    os.mkdir(b"o\xff")
    assert_one_message(run(*verb.split(), os.fsdecode(b"o\xff")), 78, "not valid UTF-8", r"o\xff")


def test_file_names_that_are_not_utf8() -> None:
    """A pipeline file may have such a name: it is printed escaped. A source may not."""
    assert_one_message(
        run_process("run", b"\xff.toml"), 66, "no such pipeline file", r"\udcff.toml"
    )
    os.rename("p.toml", b"\xff.toml")
    assert run_process("validate", b"\xff.toml") == (0, "")
    os.rename("in/one.parquet", b"in/\xff.parquet")
    assert_one_message(run_process("run", b"\xff.toml"), 65, r"in/\xff.parquet", "not valid UTF-8")
    os.rename(b"in/\xff.parquet", "in/one.parquet")
    done = run_process("run", b"\xff.toml", "--set", b"sink.path=o\xff")
    assert_one_message(done, 78, "not valid UTF-8")


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_a_device_or_pipe_as_source(kind: str) -> None:
    path = "/dev/null"
    if kind == "pipe":
        path = "pipe.parquet"
        os.mkfifo(path)
    done = run_process("run", "p.toml", "--set", f"source.path={path}")
    assert_one_message(done, 65, path, "expected a file or folder", 'path = "-"')


def test_pipes_where_files_are_read() -> None:
    """Opening one would wait for a writer, for good."""
    for name in ("s.arrow", "s.parquet", "m2.safetensors"):
        os.mkfifo(name)
    assert_one_message(run_process("state", "show", "s.arrow"), 65, "s.arrow", "not a regular file")
    assert_one_message(
        run_process("state", "diff", "s.parquet", "s.parquet"), 65, "not a regular file"
    )
    init = run_process("run", "p.toml", "--set", "state.init=s.arrow")
    assert_one_message(init, 65, "s.arrow", "not a regular file")
    model = run_process("run", "p.toml", "--set", "model.path=m2.safetensors")
    assert_one_message(model, 66, "m2.safetensors")


def test_a_pipe_as_a_file_to_write() -> None:
    """It stays one: its reader waits for it."""
    assert run_process("run", "p.toml") == (0, "")
    for line in ("state export out -o pipe.arrow", "convert m.safetensors pipe.safetensors"):
        path = line.split()[-1]
        os.mkfifo(path)
        assert_one_message(run_process(*line.split()), 1, path, "a device or pipe, not a file")
        assert stat.S_ISFIFO(os.stat(path).st_mode)


@pytest.mark.parametrize("verb", first_quick(["run", "validate", "explain", "compile"]))
def test_a_pipe_or_device_as_pipeline_file(verb: str) -> None:
    """Slow: other commands."""
    os.mkfifo("pipe.toml")
    for path in ("pipe.toml", "/dev/zero", "/dev/null"):
        done = run_process(verb, path)
        assert_one_message(done, 78, path, "cannot be read: expected a regular file")


@pytest.mark.parametrize("suffix", [".pt", ".keras", ".h5", ".onnx", ".safetensors"])
def test_a_pipe_as_model_file(suffix: str) -> None:
    os.mkfifo(f"pipe{suffix}")
    for line in (f"summary pipe{suffix}", f"convert pipe{suffix} new.safetensors"):
        done = run_process(*line.split())
        assert_one_message(done, 66, f"pipe{suffix}: no such model file, but a folder, device or")


def test_a_pipeline_file_from_a_pipe_of_the_shell() -> None:
    """As `<(…)` and /dev/stdin are; a shell has opened both."""
    shell = ["bash", "-c", '"$@" validate <(cat p.toml) && cat p.toml | "$@" validate /dev/stdin']
    done = subprocess.run(
        [*shell, "bash", *MAIN], capture_output=True, check=False, timeout=60, text=True
    )
    assert (done.returncode, done.stderr, done.stdout.count(" is valid")) == (0, "", 2)


def test_a_pipeline_file_from_a_pipe_that_sends_nothing_or_too_much() -> None:
    """Neither waits for good, nor fills the memory."""
    program = "import streamrnn.stream.config.load as r; r.WAIT_SECONDS = 1; "
    main = [sys.executable, "-c", program + "from streamrnn.cli import main; main()"]
    for writer, text in (("sleep 4", "sent nothing for 1 s"), ("yes", "more than 16 MiB")):
        shell = ["bash", "-c", f'"$@" <({writer})', "bash", *main, "validate"]
        done = subprocess.run(shell, capture_output=True, check=False, timeout=60, text=True)
        assert_one_message((done.returncode, done.stderr), 78, "/dev/fd/", text)


def test_a_pipe_among_the_files_of_a_source_is_left_out() -> None:
    os.mkfifo("in/two.parquet")
    assert run_process("run", "p.toml") == (0, "")


@pytest.mark.parametrize("path", ["/dev/null", "m.safetensors", "m.safetensors/below", "pipe"])
def test_an_output_that_is_no_folder(path: str, run: Run) -> None:
    os.mkfifo("pipe")
    found = os.path.abspath(path.removesuffix("/below"))
    texts = (
        "expected a directory",
        f"but {found} is a file, device or pipe",
        "Set the path of a dir",
    )
    for verb in ("run", "validate", "explain"):
        done = run(verb, "p.toml", "--set", f"sink.path={path}")
        assert_one_message(done, 78, f"[sink] path: {path}", *texts)
    rejects = run("run", "p.toml", "--set", f"sink.rejects={path}")
    assert_one_message(rejects, 78, f"[sink] rejects: {path}", *texts)
    assert_one_message(run("verify", path), 1, path, "is not the output of a streamrnn run")


@pytest.mark.parametrize("number", [5, 6, 7, 8, 9, 10])
def test_few_file_descriptors(number: int, run: Run) -> None:
    """Either the run succeeds, or one message names the file and the cause; then it resumes."""
    limits = (resource.RLIMIT_NOFILE, (number, number))
    done = run_process("run", "p.toml", before=lambda: resource.setrlimit(*limits))
    if done[0]:
        assert_one_message(done, 1, "Too many open files")
    assert run("run", "p.toml") == (0, "")
    assert run("verify", "out") == (0, "")


@pytest.mark.parametrize("mib", [60, 120, 400, 700, 900, 950])
def test_little_memory(mib: int, run: Run) -> None:
    """OpenBLAS and the C++ library end the process themselves in between, in words of their own."""

    def limit() -> None:
        with suppress(ValueError):  # macOS does not limit the address space
            resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20))

    code, err = run_process("run", "p.toml", before=limit)
    assert "Traceback" not in err
    assert "bug in streamrnn" not in err
    assert "damaged" not in err
    assert bool(code) == bool(err)
    if code:
        assert "memory" in err.lower() or "bad_alloc" in err
    assert run("run", "p.toml") == (0, "")


def edit(change: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest, with a valid checksum."""
    path = Path("out/_streamrnn/_manifest.json")
    manifest = json.loads(path.read_bytes())
    del manifest["sha256"]
    change(manifest)
    rest = json.dumps(manifest)[1:].encode()
    digest = hashlib.sha256(rest).hexdigest()
    path.write_bytes(b'{\n "sha256": "%s",\n' % digest.encode() + rest)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.pop("model"), "key 'model' is missing"),
        (lambda m: m.pop("commit"), "key 'commit' is missing"),
        (lambda m: m["sources"][0].pop("size"), "key 'size' is missing"),
        (lambda m: m["sources"][0].update(colour="red"), "key 'colour' is unexpected"),
        (lambda m: m.update(colour="red"), "key 'colour' is unexpected"),
        (
            lambda m: m.update(commit="two"),
            "commit of Manifest: expected int, received 'two' (str)",
        ),
        (lambda m: m.update(commit=0), "commit: expected 1 or more, received 0"),
        (lambda m: m.update(config=[1]), "config: expected an object, received [1] (list)"),
        (lambda m: m.update(outputs=3), "outputs: expected an object, received 3 (int)"),
        (lambda m: m["outputs"].update(notes={}), "outputs: expected rows, rejects and alerts, "),
        (
            lambda m: m["outputs"]["rows"]["parts"][0].update(rows=None),
            "rows of Part: expected int, received null",
        ),
        (
            lambda m: m["sources"][0]["content"].update(rows="9"),
            "rows of Content: expected int, received '9' (str)",
        ),
        (lambda m: m["position"].update(file_row=-1), "expected rows from 0 on"),
        (
            lambda m: m["position"].update(file=3),
            "file of Position: expected str, received 3 (int)",
        ),
        (
            lambda m: m["shards"][0].update(rows=1.5),
            "rows of Shard: expected int, received 1.5 (float)",
        ),
    ],
)
def test_an_edited_manifest(
    run: Run, change: Callable[[dict[str, Any]], object], text: str
) -> None:
    """Its checksum is valid, and its keys or values are not those of a commit."""
    edit(change)
    done = run("run", "p.toml")
    assert_one_message(done, 1, "out/_streamrnn/_manifest.json was edited", text)


@pytest.mark.usefixtures("stopped")
def test_an_edited_manifest_is_refused_by_every_command_and_replaced_by_full_refresh(
    run: Run,
) -> None:
    edit(lambda m: m.pop("commit"))
    for line in ("verify out", "rewind out", "state show out", "compact out", "explain p.toml"):
        assert_one_message(run(*line.split()), 1, "manifest.json was edited", "'commit'")
    logs.write(LOG, Path("in/one.parquet"))
    assert run("run", "p.toml", "--full-refresh") == (0, "")


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"file_row": 101, "row": 101}, 65, "cannot resume at row 101: the file has 100 rows"),
        ({"file": "elsewhere.parquet"}, 1, "is gone"),
    ],
)
def test_a_position_out_of_range(change: dict[str, Any], code: int, text: str, run: Run) -> None:
    edit(lambda m: m["position"].update(change))
    assert_one_message(run("run", "p.toml"), code, text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.15, 0.3, 0.5])
def test_a_signal_while_modules_are_imported(
    number: signal.Signals, seconds: float, run: Run
) -> None:
    """130 or 143, without a traceback; or the run was faster, or had begun."""
    process = started(number)
    wait_for_python(process.pid)
    time.sleep(seconds)
    process.send_signal(number)
    _, report = process.communicate(timeout=60)
    assert b"Traceback" not in report
    if process.returncode == -number:  # all was done, and the interpreter had removed our handler
        assert pq.read_table("out").num_rows == len(LOG)
    else:
        assert process.returncode in (0, 130, 128 + number)
    code, err = run("run", "p.toml")
    assert code == 0
    # "at the end of the files": it had scored the last row and was stopped before its last commit.
    assert err == "" or err.startswith(("Resumed at row", "Resumed at the end of the files"))
    assert pq.read_table("out").num_rows == len(LOG)


def started(number: signal.Signals) -> "subprocess.Popen[bytes]":
    """Start a run in a process that does not ignore the signal."""
    # A job in the background of a script ignores SIGINT, and so do its children.
    return subprocess.Popen(
        [*MAIN, "run", "p.toml"],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )


def wait_for_python(pid: int) -> None:
    """Wait until the interpreter has imported our handler: it then ignores nothing else."""
    until = time.monotonic() + 30
    status = Path(f"/proc/{pid}/status")
    while time.monotonic() < until and status.exists():
        (caught,) = (line for line in status.read_text().splitlines() if line[:7] == "SigCgt:")
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_right_at_the_start(number: signal.Signals) -> None:
    """As soon as the handlers are installed, long before numpy and pyarrow are imported."""
    process = started(number)
    wait_for_python(process.pid)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, b"")


def test_a_decimal_that_float32_cannot_hold_is_refused(run: Run) -> None:
    """As an integer of that size is: it is not rounded silently."""
    values = [Decimal(1)] * 99 + [Decimal(16_777_217)]
    column = pa.array(values, pa.decimal128(20, 0))
    logs.write(LOG.set_column(2, "a", column), Path("in/one.parquet"))
    done = run("run", "p.toml")
    assert_one_message(done, 65, "row 99", "column 'a'", "not exactly representable as float32")


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_a_run_whose_standard_streams_are_closed(closed: list[int]) -> None:
    """As a daemon may start it (`2>&-`): it scores; rows for a closed stdout are an error."""

    def close() -> None:
        for number in closed:
            os.close(number)

    assert run_process("run", "p.toml", before=close)[0] == 0
    assert streamrnn.outputs.verify("out").rows == 100
    code, text = run_process("run", "p.toml", "--set", "sink.path=-", before=close)
    assert code == (1 in closed)
    assert code == 0 or 2 in closed or "is closed. Connect it to a file" in text
    assert run_process("run", b"\xff.toml", before=close)[0] == 66  # a name that is not UTF-8


def test_other_commands_with_closed_standard_streams() -> None:
    for command, expected in (
        (["validate", "p.toml"], 0),
        (["guide", "keys"], 0),
        (["run", "p.toml", "--set", "source.path=-"], 65),
    ):
        done = run_process(*command, before=lambda: os.closerange(0, 2))
        assert (done[0], "bug" in done[1]) == (expected, False), done


def test_processes_have_no_closed_standard_streams_either() -> None:
    """A file that they open would take the number."""
    child = "import sys; sys.exit(None in (sys.stdin, sys.stdout, sys.stderr))"
    code = (
        "import subprocess, sys; from streamrnn.cli.process import fill_closed_streams; "
        f"fill_closed_streams(); sys.exit(subprocess.call([sys.executable, '-c', {child!r}]))"
    )
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, check=False, preexec_fn=lambda: os.closerange(0, 3)).returncode == 0
