"""The command line: what each outcome prints where, and its exit code. Pipelines are fakes here."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pyarrow as pa
import pytest

import streamrnn.pipeline
from streamrnn import errors
from streamrnn.cli import main
from streamrnn.cli.report import count, facts, table
from streamrnn.scoring.summary import Summary
from streamrnn.sinks.stream import PipeClosed


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


@dataclass
class FakePipeline:
    """Stands in for the class, and remembers how it was called."""

    summary: Summary = field(default_factory=summary)
    sink: str = "out/weather"
    during: object = None
    calls: list = field(default_factory=list)

    def from_toml(self, path, overrides=()):
        self.calls.append((path, list(overrides)))
        self.config = SimpleNamespace(sink=SimpleNamespace(path=self.sink))
        return self

    def run(self, **options):
        self.calls.append(options)
        if self.during is not None:
            self.during(options)
        return self.summary

    def preview(self, limit):
        return pa.table({"device": ["a", "b"], "forecast": [0.123456789, None]})

    def validate(self):
        return ["2 files, 26,115 rows"]

    def explain(self):
        return {"files": ["a.parquet", "b.parquet"], "rows": 26115, "memory": {"state": "1 MB"}}


@pytest.fixture
def fake(monkeypatch):
    fake = FakePipeline()
    monkeypatch.setattr(streamrnn.pipeline, "Pipeline", fake)
    return fake


@pytest.fixture
def cli(capfd, monkeypatch):
    """Run the command line; gives exit code, stdout and stderr."""
    monkeypatch.setenv("NO_COLOR", "1")

    def cli(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        streams = capfd.readouterr()
        return caught.value.code, streams.out, streams.err

    return cli


def test_help_and_version_import_neither_numba_nor_pyarrow():
    for argument in ("--help", "--version"):
        code = (
            "import sys\nfrom streamrnn.cli import main\n"
            f"try: main(['{argument}'])\nexcept SystemExit as end: assert end.code == 0\n"
            "heavy = {'numba', 'pyarrow', 'numpy', 'pydantic', 'rich'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_version(cli):
    assert cli("--version") == (0, "streamrnn 0.1.0\n", "")


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
def test_wrong_usage_exits_2(cli, fake, arguments):
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: " in err
    assert fake.calls == []


def test_run_says_in_plain_words_what_was_done(cli, fake):
    code, out, err = cli("run", "p.toml", "--set", "window.lanes=3", "--set", "a=b", "--force")
    assert (code, err) == (0, "")
    assert out == (
        "26,115 rows in 2.0 s (13,058 rows/s) from 1 file\n"
        "output   out/weather (26,100 rows written)\n"
        "state    3 streams, 1 of them new; look at it with: streamrnn state show out/weather\n"
    )
    assert fake.calls[0] == ("p.toml", ["window.lanes=3", "a=b"])
    options = fake.calls[1]
    assert options["force"]
    assert not options["follow"]
    assert not options["full_refresh"]


def test_run_counts_what_was_not_simply_scored(cli, fake):
    fake.summary = summary(
        skipped=1, rejected=2, dropped_late=3, filled=4, clipped=5, out_of_range=6, fresh_starts=7,
        vanished_files=8, fresh_init_streams=9,
    )  # fmt: skip
    _, out, _ = cli("run", "p.toml")
    notes = [line for line in out.splitlines() if line.startswith("note")]
    assert len(notes) == 9
    assert "note     1 row skipped: a feature was null (output is null there)" in notes
    assert "note     8 used files no longer there" in notes
    assert "rejects  out/weather.rejects" in out.splitlines()


def test_run_with_nothing_new(cli, fake):
    fake.summary = summary(nothing_new=True, rows=0, rows_out=0)
    code, out, _ = cli("run", "p.toml")
    assert code == 0
    assert out.startswith(
        "Nothing new since the last run.\noutput   out/weather\nstate    3 streams"
    )


def test_a_state_that_is_kept_nowhere(cli, fake):
    fake.summary = summary(state=None, new_streams=3)
    _, out, _ = cli("run", "p.toml")
    assert "state    3 streams; kept nowhere: [state] save would\n" in out


def test_json_is_one_line_on_stdout(cli, fake):
    code, out, err = cli("run", "p.toml", "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert json.loads(out) == fake.summary.as_dict()


def test_words_go_to_stderr_where_stdout_is_the_sink(cli, fake):
    fake.sink = "-"
    _, out, err = cli("run", "p.toml")
    assert (out, err.startswith("26,115 rows")) == ("", True)
    _, out, err = cli("run", "p.toml", "--json")
    assert (out, json.loads(err)["rows"]) == ("", 26115)


def test_quiet_says_nothing(cli, fake):
    assert cli("run", "p.toml", "-q") == (0, "", "")
    assert cli("validate", "p.toml", "-q") == (0, "", "")


def test_limit_prints_a_small_table_and_runs_nothing(cli, fake):
    code, out, err = cli("run", "p.toml", "--limit", "2")
    assert (code, out, err) == (0, "device  forecast\na       0.123457\nb              -\n", "")
    _, out, _ = cli("run", "p.toml", "--limit", "2", "--json")
    assert json.loads(out)[1] == {"device": "b", "forecast": None}
    assert not any(isinstance(call, dict) for call in fake.calls)


def test_an_interrupt_stops_after_a_checkpoint(cli, fake):
    before = signal.getsignal(signal.SIGTERM)

    def during(options):
        os.kill(os.getpid(), signal.SIGTERM)
        assert options["stop"].wait(5)
        fake.summary.interrupted = True

    fake.during = during
    code, out, err = cli("run", "p.toml")
    assert code == 130
    assert "stopping after this record batch; a second signal aborts at once" in err
    assert out.endswith("Interrupted after a checkpoint; the same command goes on from there.\n")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_signal_aborts_at_once():
    code = (
        "import os, signal, time\nfrom streamrnn.cli.signals import stop_on_signal\n"
        "with stop_on_signal() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert stop.wait(5)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(5)\n"
        "    print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "")


@pytest.mark.parametrize(
    ("problem", "code", "message"),
    [
        (errors.ConfigError("no such key"), 78, "error: no such key"),
        (errors.ModelMismatchError("2 is not 3"), 78, "error: 2 is not 3"),
        (errors.DataError("row 3"), 65, "error: row 3"),
        (errors.MissingFileError("log.parquet is not there"), 65, "log.parquet is not there"),
        (errors.CheckpointError("in use"), 1, "error: in use"),
        (errors.SinkError("disk"), 1, "error: disk"),
        (
            PermissionError(errno.EACCES, "Permission denied", "out/x"),
            1,
            "error: out/x: Permission denied",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 1, "out/x: no space left"),
        (MemoryError(), 1, "error: out of memory; fewer window.lanes"),
        (PipeClosed("the reader went away"), 0, ""),
        (ZeroDivisionError("oops"), 1, "error: unexpected ZeroDivisionError: oops\nThis is a bug"),
    ],
)
def test_errors_become_one_message_and_a_code(cli, fake, problem, code, message):
    def during(_):
        raise problem

    fake.during = during
    found, out, err = cli("run", "p.toml")
    assert (found, out) == (code, "")
    assert message in err if code else err == ""
    assert "Traceback" not in err
    _, _, err = cli("run", "p.toml", "-v")
    assert ("Traceback" in err) == isinstance(problem, ZeroDivisionError)


def test_validate_and_explain(cli, fake):
    assert cli("validate", "p.toml") == (0, "p.toml is valid\nnote: 2 files, 26,115 rows\n", "")
    _, out, _ = cli("validate", "p.toml", "--json")
    assert json.loads(out) == {"valid": True, "notes": ["2 files, 26,115 rows"]}
    _, out, _ = cli("explain", "p.toml")
    assert out == "files\n  a.parquet\n  b.parquet\nrows  26,115\nmemory\n  state  1 MB\n"
    _, out, _ = cli("explain", "p.toml", "--json")
    assert json.loads(out)["rows"] == 26115


def test_init_writes_a_sample_and_never_over_a_file(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = cli("init")
    assert (code, out.startswith("wrote pipeline.toml")) == (0, True)
    written = (tmp_path / "pipeline.toml").read_text()
    assert "[source]" in written
    code, out, err = cli("init", "pipeline.toml")
    assert (code, out) == (78, "")
    assert err.startswith("error: pipeline.toml is there already")
    assert (tmp_path / "pipeline.toml").read_text() == written
    code, _, err = cli("init", "no/such/folder.toml")
    assert (code, err) == (1, "error: no/such/folder.toml: No such file or directory\n")


def test_schema_is_json(cli):
    code, out, _ = cli("schema")
    assert code == 0
    assert "source" in json.loads(out)["properties"]


def test_tables_align_numbers_right_and_cut_long_text():
    text = table(["name", "n"], [["a" * 50, 1], ["b", None], ["c", 1200]], widest=6)
    assert text == "name        n\naaaaa…      1\nb           -\nc       1,200"
    assert table(["a", "b"], []) == "a  b"


def test_facts_show_scalars_lists_and_nested_results():
    assert facts({"rows_in": 1200, "ok": True, "none": None, "empty": []}) == (
        "rows in  1,200\nok       yes\nnone     -\nempty    -"
    )
    assert facts({"files": [{"path": "a", "rows": 3}]}) == "files\n  path a, rows 3"


def test_counts_have_their_noun():
    assert count(1, "row") == "1 row"
    assert count(0, "row") == "0 rows"
    assert count(1234, "entry") == "1,234 entries"
