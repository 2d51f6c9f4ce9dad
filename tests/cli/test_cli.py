"""The command line: what each outcome prints where, and its exit code."""

import errno
import io
import json
import os
import signal
import sys
from pathlib import Path

import logs
import pytest
from command_line import run_command
from fresh import python

import streamrnn
from streamrnn import Pipeline, errors
from streamrnn.cli.report import facts, table
from streamrnn.cli.run import in_words
from streamrnn.errors import PipeClosed
from streamrnn.pipeline import Summary

LOG = logs.random_log(rows=100, streams=3)
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
[checkpoint]
every = 1
"""


def summary(**changes):
    """What the run of the weather pipeline might have said."""
    usual = {
        "rows": 26115,
        "rows_out": 26100,
        "streams": 3,
        "new_streams": 1,
        "seconds": 2.0,
        "files": 1,
        "commits": 1,
        "output": "out/weather",
        "state": "out/weather",
        "rejects": "out/weather.rejects",
    }
    return Summary(**{**usual, **changes})


@pytest.fixture
def folder(workdir):
    """The working directory, with a pipeline p.toml, its model and its source."""
    Path("p.toml").write_text(PIPELINE)
    logs.small_model().save("m.safetensors")
    logs.write(LOG, Path("in/one.parquet"))
    return workdir


@pytest.fixture
def during(monkeypatch):
    """Let something happen in Pipeline.run, before it does what it does; gives all its options."""
    asked = []

    def during(action=lambda options: None):
        whole = Pipeline.run

        def run(self, **options):
            asked.append(options)
            action(options)
            return whole(self, **options)

        monkeypatch.setattr(Pipeline, "run", run)
        return asked

    return during


@pytest.fixture
def cli(capfd, monkeypatch):
    """Run the command line; gives exit code, stdout and stderr."""
    monkeypatch.setenv("NO_COLOR", "1")

    def cli(*arguments):
        return run_command(capfd, *arguments)

    return cli


def test_help_and_version_import_neither_numba_nor_pyarrow():
    for argument in ("--help", "--version"):
        code = (
            "import sys\nfrom streamrnn.cli import main\n"
            f"try: main(['{argument}'])\nexcept SystemExit as end: assert end.code == 0\n"
            "heavy = {'numba', 'pyarrow', 'numpy', 'pydantic', 'rich'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        python("-c", code)


def test_version(cli):
    assert cli("--version") == (0, f"streamrnn {streamrnn.__version__}\n", "")


def test_every_verb_has_help(cli):
    verbs = ("run", "validate", "explain", "summary", "convert", "state", "verify", "rewind",
             "compact", "init", "schema")  # fmt: skip
    _, listing, _ = cli("--help")
    for verb in verbs:
        assert f"\n  {verb} " in listing
        code, out, _ = cli(verb, "--help")
        assert code == 0
        assert out.startswith(f"Usage: streamrnn {verb} ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("runn", "p.toml"),
        ("run", "p.toml", "--limit", "0"),
        ("run", "p.toml", "--limit", "x"),
        ("run", "p.toml", "--limit", "3", "--follow"),
        ("run", "p.toml", "--sett", "a=1"),
        ("state", "sho", "x"),
    ],
)
def test_wrong_usage_exits_2(cli, folder, arguments):
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: " in err
    assert not (folder / "out").exists()


def test_run_says_in_plain_words_what_was_done():
    assert in_words(summary()) == (
        "26,115 rows in 2.0 s (13,058 rows/s) from 1 file\n"
        "output   out/weather (26,100 rows written)\n"
        "state    3 streams, 1 of them new; show it with: streamrnn state show out/weather"
    )


def test_the_rate_of_a_first_run_says_how_long_kernels_were_compiled():
    words = in_words(summary(seconds_compiling=1.82))
    assert words.startswith(
        "26,115 rows in 2.0 s (13,058 rows/s; 1.8 s went into compiling kernels) from 1 file\n"
    )


def test_run_counts_what_was_not_simply_scored():
    words = in_words(summary(
        skipped=1, rejected=2, dropped_late=3, filled=4, clipped=5, out_of_range=6, fresh_starts=7,
        vanished_files=8, fresh_init_streams=9, cast=10, nan=11,
        repeated=12,
    )).splitlines()  # fmt: skip
    notes = [line for line in words if line.startswith("note")]
    assert len(notes) == 12
    assert "note     11 NaNs treated as null, as set by `nan`" in notes
    assert "note     1 row skipped: a feature was null (output is null there)" in notes
    assert "note     8 used files not in the source" in notes
    assert "rejects  out/weather.rejects" in words


def test_run_names_what_the_start_repaired():
    """First of the notes: the run before was cut off."""
    words = in_words(summary(recovered=["removed 1 file"], filled=4)).splitlines()
    assert words[-2] == "note     repaired what an earlier run left behind: removed 1 file"


def test_a_state_that_is_not_saved():
    words = in_words(summary(state=None, new_streams=3)).splitlines()
    assert "state    3 streams; not saved (set [state] save to keep it)" in words


def test_options_and_overrides_reach_the_run(cli, folder, during):
    asked = during()
    overrides = ("--set", "source.batch_rows=50", "--set", "checkpoint.every=7")
    code, out, err = cli("run", "p.toml", *overrides, "--force")
    assert (code, err) == (0, "")
    assert out.startswith("100 rows in ")
    (options,) = asked
    assert (options["force"], options["follow"], options["full_refresh"]) == (True, False, False)
    _, out, _ = cli("rewind", "out", "--json")
    assert [each["rows"] for each in json.loads(out)] == [100]  # seven record batches are more


def test_run_with_nothing_new(cli, folder):
    cli("run", "p.toml")
    code, out, _ = cli("run", "p.toml")
    assert code == 0
    assert out.startswith(
        "Nothing new since the last run.\noutput   out (commit 10)\nstate    3 streams"
    )


def test_json_is_one_line_on_stdout(cli, folder):
    code, out, err = cli("run", "p.toml", "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    said = json.loads(out)
    assert set(said) == set(summary().as_dict())
    assert (said["rows"], said["rows_out"], said["streams"], said["files"]) == (100, 100, 3, 1)


def test_words_go_to_stderr_where_stdout_is_the_sink(cli, folder, monkeypatch):
    with Path("rows.arrow").open("wb") as rows:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(rows, write_through=True))
        _, _, err = cli("run", "p.toml", "--set", "sink.path='-'")
        assert err.startswith("100 rows in ")
        _, _, err = cli("run", "p.toml", "--set", "sink.path='-'", "--json")
        assert json.loads(err)["rows"] == 100


def test_quiet_says_nothing(cli, folder):
    assert cli("run", "p.toml", "-q") == (0, "", "")
    assert cli("validate", "p.toml", "-q") == (0, "", "")


def test_limit_prints_a_small_table_and_runs_nothing(cli, folder, during):
    asked = during()
    code, out, err = cli("run", "p.toml", "--limit", "2", "--set", "output.warmup=1")
    assert (code, err) == (0, "")
    header, *rows = out.splitlines()
    assert header.split() == ["id", "t", "score"]
    assert [row.split()[0] for row in rows] == LOG["id"].to_pylist()[:2]
    assert rows[0].endswith("  -")
    _, out, _ = cli("run", "p.toml", "--limit", "2", "--json", "--set", "output.warmup=1")
    assert json.loads(out)[0]["score"] is None
    assert asked == []
    assert not (folder / "out").exists()


def test_an_interrupt_stops_after_a_checkpoint(cli, folder, during):
    before = signal.getsignal(signal.SIGTERM)

    def interrupt_after_a_batch(options):
        show, stop = options["progress"], options["stop"]

        def progress(now):
            if not stop.is_set():
                os.kill(os.getpid(), signal.SIGTERM)
                assert stop.wait(60)
            show(now)

        options["progress"] = progress

    during(interrupt_after_a_batch)
    code, out, err = cli("run", "p.toml")
    assert code == 130
    assert "stopping as soon as possible; a second signal aborts at once" in err
    assert out.endswith("Interrupted after a commit; rerun the same command to resume.\n")
    assert signal.getsignal(signal.SIGTERM) == before
    assert 0 < int(out.split()[0]) < 100


def test_a_second_signal_aborts_at_once():
    code = (
        "import os, signal, time\nfrom streamrnn.cli.process import stop_on_signal\n"
        "with stop_on_signal() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert stop.wait(60)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
        "    print('still here')"
    )
    done = python("-c", code, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "")


@pytest.mark.parametrize(
    ("problem", "code", "message"),
    [
        (errors.ConfigError("no such key"), 78, "error: no such key"),
        (errors.ModelMismatchError("2 is not 3"), 78, "error: 2 is not 3"),
        (errors.DataError("row 3"), 65, "error: row 3"),
        (errors.MissingFileError("log.parquet is not there"), 66, "log.parquet is not there"),
        (errors.CheckpointError("in use"), 1, "error: in use"),
        (errors.SinkError("disk"), 1, "error: disk"),
        (
            PermissionError(errno.EACCES, "Permission denied", "out/x"),
            1,
            "error: out/x: Permission denied",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 1, "out/x: no space left"),
        (MemoryError(), 1, "error: out of memory; reduce window.lanes"),
        (PipeClosed("the reader went away"), 0, ""),
        (
            SystemError("error return without exception set"),
            1,
            "error: a library failed: error return without exception set. Check that there is",
        ),
        (ZeroDivisionError("oops"), 1, "error: unexpected ZeroDivisionError: oops\nThis is a bug"),
    ],
)
def test_errors_become_one_message_and_a_code(cli, folder, during, problem, code, message):
    def fail(_):
        raise problem

    during(fail)
    found, out, err = cli("run", "p.toml")
    assert (found, out) == (code, "")
    assert message in err if code else err == ""
    assert "Traceback" not in err
    _, _, err = cli("run", "p.toml", "-v")
    assert ("Traceback" in err) == isinstance(problem, ZeroDivisionError | SystemError)


def test_validate_and_explain(cli, folder):
    code, out, err = cli("validate", "p.toml")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["p.toml", "feature", "a", "b"]
    _, out, _ = cli("validate", "p.toml", "--json")
    said = json.loads(out)
    assert (said["valid"], said["notes"]) == (True, [])
    assert [(f["name"], f["nulls"], f["rows"]) for f in said["features"]] == [
        ("a", 0, 100),
        ("b", 0, 100),
    ]
    piped = ("--set", "source.path='-'")
    note = "the source has no files to check: columns are checked when rows are read"
    assert cli("validate", "p.toml", *piped)[1] == f"p.toml is valid\nnote: {note}\n"
    _, out, _ = cli("validate", "p.toml", *piped, "--json")
    assert json.loads(out)["notes"] == [note]
    _, out, _ = cli("explain", "p.toml", "--json")
    plan = json.loads(out)
    assert (plan["rows"], plan["files"], plan["kind"]) == (100, 1, "carry")
    (model_input,) = plan["inputs"]
    assert model_input["columns"] == ["a", "b"]
    _, out, _ = cli("explain", "p.toml")
    assert f"\ninput {model_input['name']} (float32 (None, 2)): a, b\n" in out
    assert "\nresume                  nothing committed yet: this is the first run\n" in out


def test_init_writes_to_stdout(cli, workdir):
    """As other commands do for "-"; nothing else is printed there."""
    code, out, err = cli("init", "-")
    assert (code, err) == (0, "")
    assert cli("init", "pipeline.toml")[0] == 0
    assert out == Path("pipeline.toml").read_text(encoding="utf-8")
    assert sorted(path.name for path in workdir.iterdir()) == ["pipeline.toml"]


def test_init_writes_a_sample_and_never_over_a_file(cli, workdir):
    code, out, _ = cli("init")
    assert (code, out.startswith("wrote pipeline.toml")) == (0, True)
    written = (workdir / "pipeline.toml").read_text()
    assert "[source]" in written
    code, out, err = cli("init", "pipeline.toml")
    assert (code, out) == (78, "")
    assert err.startswith("error: pipeline.toml already exists")
    assert (workdir / "pipeline.toml").read_text() == written
    code, _, err = cli("init", "no/such/folder.toml")
    assert (code, err) == (1, "error: no/such/folder.toml: No such file or directory\n")


def test_a_sample_that_could_not_be_written_does_not_stand_in_the_way(cli, workdir, monkeypatch):
    """`init` says to free some space, and to rerun the same command."""

    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    def on_a_full_disk(path, *arguments, **options):
        path.touch()
        return Full()

    with monkeypatch.context() as full:
        full.setattr(Path, "open", on_a_full_disk)
        code, _, err = cli("init")
    assert (code, "then rerun the same command" in err) == (1, True)
    assert cli("init")[0] == 0


def test_schema_is_json(cli):
    code, out, _ = cli("schema")
    assert code == 0
    assert "source" in json.loads(out)["properties"]


def test_a_terminal_obeys_no_key_of_a_stream():
    shown = table(["id"], [["\x1b[2J\r"], [b"a\nb"], ["\x9bé"]])
    assert shown.split("\n") == ["id", r"\x1b[2J\x0d", "a b", r"\x9bé"]


def test_tables_align_numbers_right_and_cut_long_text():
    text = table(["name", "n"], [["a" * 50, 1], ["b", None], ["c", 1200]], widest=6)
    assert text == "name        n\naaaaa…      1\nb           -\nc       1,200"
    assert table(["a", "b"], []) == "a  b"


def test_facts_show_scalars_lists_and_nested_results():
    assert facts({"rows_in": 1200, "ok": True, "none": None, "empty": []}) == (
        "rows in  1,200\nok       yes\nnone     -\nempty    -"
    )
    assert facts({"files": [{"path": "a", "rows": 3}]}) == "files\n  path a, rows 3"
