"""The command line over a real pipeline: what is printed, what is written, and how a run ends."""

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import logs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from command_line import run_command
from fresh import python
from selection import first_quick, slow

import streamrnn

PIPELINE = """\
[source]
path = "in"
key = "id"
time = "t"
features = ["a", "b"]
[model]
path = "m.safetensors"
[sink]
path = "out"
"""
LOG = logs.random_log(rows=100, streams=3)


@pytest.fixture
def cli(workdir, monkeypatch, capfd):
    """The command line in a folder with a pipeline; gives exit code, stdout and stderr."""
    # For child processes, where the package is imported from its folder and not installed.
    monkeypatch.setenv("PYTHONPATH", str(Path(streamrnn.__file__).parents[1]))
    Path("p.toml").write_text(PIPELINE)
    logs.small_model().save("m.safetensors")
    logs.write(LOG, Path("in/one.parquet"))

    def cli(line):
        return run_command(capfd, *line.split())

    return cli


def test_the_sample_is_valid_where_its_files_exist(cli):
    assert cli("init sample.toml")[0] == 0
    code, _, err = cli("validate sample.toml")
    assert (code, err.startswith("error: model.safetensors: ")) == (66, True)
    Path("m.safetensors").rename("model.safetensors")
    names = ["device", "time", "temperature", "pressure", "new"]
    logs.write(LOG.rename_columns(names), Path("data/log.parquet"))
    code, out, err = cli("validate sample.toml")
    assert (code, out.partition("\n")[0], err) == (0, "sample.toml is valid", "")


def test_a_run_its_repeat_and_the_next_file(cli):
    code, out, err = cli("validate p.toml")
    assert (code, out.partition("\n")[0], err) == (0, "p.toml is valid", "")
    code, out, err = cli("run p.toml")
    assert (code, err) == (0, "")
    assert out.startswith("100 rows in ")
    assert "output   out (100 rows written in 1 part, commit 1)\n" in out
    assert "\ntimes    2024-01-01 00:03:00Z to 2024-01-01 03:28:00Z\n" in out
    assert "\nstate    3 streams; show it with:" in out
    code, out, _ = cli("run p.toml")
    assert (code, out.splitlines()[0]) == (0, "Nothing new since the last run.")
    logs.write(LOG, Path("in/two.parquet"))
    code, out, err = cli("run p.toml")
    assert (code, out) == (65, "")
    assert err.startswith("error: in/two.parquet: ")
    code, out, _ = cli("run p.toml --set source.late=apply --json")
    assert (code, json.loads(out)["rows_out"]) == (0, 100)
    assert pq.read_table("out").num_rows == 200


def test_a_run_that_failed_goes_on_and_says_from_where(cli):
    rows = LOG.slice(0, 60)
    broken = LOG.slice(60).set_column(2, "a", pa.array([float("nan")] * 40))
    logs.write(rows, Path("in/one.parquet"))
    logs.write(broken, Path("in/two.parquet"))
    cuts = "--set source.batch_rows=10 --set checkpoint.every=4"
    assert cli(f"run p.toml {cuts}")[0] == 65
    assert pq.read_table("out").num_rows == 40
    logs.write(LOG.slice(60), Path("in/two.parquet"))
    code, out, err = cli(f"run p.toml {cuts}")
    assert code == 0
    repaired, resumed = err.splitlines()
    assert repaired == "out: removed 1 file that no commit names"
    assert resumed == "Resumed at row 40 of in/one.parquet, after commit 1 (40 rows written)."
    assert out.startswith("60 rows in ")
    rows_then = pq.read_table("out")
    assert cli("run p.toml --full-refresh")[0] == 0
    assert rows_then.equals(pq.read_table("out"))


def test_limit_prints_what_a_run_gives(cli):
    code, out, _ = cli("run p.toml --limit 7 --json")
    assert code == 0
    assert not Path("out").exists()
    shown = [row["score"] for row in json.loads(out)]
    cli("run p.toml")
    assert shown == pq.read_table("out").column("score").to_pylist()[:7]
    _, out, _ = cli("run p.toml --limit 2")
    header, first, second = out.splitlines()
    assert header.split() == ["id", "t", "score"]
    assert first.split()[0] == LOG.column("id")[0].as_py()
    assert second.split()[0] == LOG.column("id")[1].as_py()


def test_an_id_that_is_a_number_is_shown_as_key_takes_it(cli):
    ids = pa.array([1000 + int(name[1:]) for name in LOG.column("id").to_pylist()])
    logs.write(LOG.set_column(LOG.schema.get_field_index("id"), "id", ids), Path("in/a.parquet"))
    for old in Path("in").glob("*"):
        if old.name != "a.parquet":
            old.unlink()
    target = ["--set", "target.column=a", "--set", "target.rows=1"]
    assert "1,000" not in cli("run p.toml --limit 7")[1]
    cli(" ".join(["run p.toml", *target]))
    assert " 1,00" not in cli("state show out")[1]
    _, out, _ = cli("state show out --key 1001")
    assert out.splitlines()[1].startswith("1001 ")
    assert "\n1001 " in cli(" ".join(["evaluate p.toml --by stream", *target]))[1]


def test_state_goes_out_and_in_again(cli):
    cli("run p.toml")
    code, out, _ = cli("state show out --limit 2")
    assert code == 0
    assert out.splitlines()[0].split() == ["id", "steps", "last_time", "rnn/h"]
    assert out.endswith("\n3 streams, 1 not shown\n")
    assert "… (5)" in out
    _, out, _ = cli("state show out --json")
    assert sum(row["steps"] for row in json.loads(out)) == 100
    for name in ("s.parquet", "s.arrow"):
        assert cli(f"state export out -o {name}") == (0, f"wrote {name}: 3 streams\n", "")
        assert cli(f"state diff out {name}") == (0, "no difference in 3 streams\n", "")
    assert cli("state drop out --key s1")[:2] == (0, "out: 1 stream dropped\n")
    code, out, _ = cli("state diff out s.parquet")
    assert (code, "only in s.parquet" in out) == (1, True)
    assert out.endswith("1 difference; 2 streams equal\n")
    code, out, _ = cli("state import s.parquet out")
    assert (code, out) == (0, "out now has the state of s.parquet: 3 streams\n")
    assert cli("state diff out s.arrow")[0] == 0
    assert cli("state reset out --key s1")[1] == "out: 1 stream reset\n"
    code, out, _ = cli("state diff out s.arrow --json")
    assert (code, json.loads(out)["changed"]) == (1, {"s1": ["steps", "rnn/h"]})
    code, out, _ = cli("state diff out s.arrow")
    assert "\nsteps differs in 1 stream, by at most " in out
    assert "\nrnn/h differs in 1 stream, by at most 0." in out
    assert cli("state compact out --idle 900d")[1] == (
        "out: 0 streams dropped, idle for more than 900d at the newest row\n"
    )
    assert cli("state compact out --idle soon")[0] == 2
    assert cli("state gc out")[:2] == (0, "out: 0 files removed\n")


def test_a_stream_is_shown_by_its_key_and_streams_by_their_steps(cli):
    cli("run p.toml")
    rows = json.loads(cli("state show out --json --sort steps")[1])
    assert len(rows) == 3
    steps = [row["steps"] for row in rows]
    assert steps == sorted(steps, reverse=True)
    newest = json.loads(cli("state show out --json --sort last_time --limit 1")[1])
    assert newest[0]["id"] == LOG["id"][-1].as_py()
    _, out, _ = cli("state show out --key s1 --key s0")
    assert [line.split()[0] for line in out.splitlines()[1:3]] == [
        key for key in dict.fromkeys(LOG["id"].to_pylist()) if key in ("s0", "s1")
    ]
    assert out.endswith("\n2 streams\n")
    code, out, err = cli("state show out --key s11")
    assert (code, out) == (78, "")
    assert "--key s11: no such stream in out; did you mean" in err
    for column in ("step", "rnn/h"):
        code, out, err = cli(f"state show out --sort {column}")
        assert (code, out) == (78, "")
        assert f"--sort {column}: expected one of id, steps, last_time" in err


def test_binary_keys_are_shown_as_they_are_passed(cli):
    keys = [b"\xc3\xa9" if key == "s1" else key.encode() for key in LOG["id"].to_pylist()]
    logs.write(LOG.set_column(0, "id", pa.array(keys)), Path("in/one.parquet"))
    cli("run p.toml")
    assert [row["id"] for row in json.loads(cli("state show out --key é --json")[1])] == ["é"]
    assert cli("state show out --key é")[1].splitlines()[1].startswith("é ")
    assert 'did you mean "é"' in cli("state show out --key É")[2]
    cli("state export out -o s.arrow")
    cli("state reset out --key é")
    assert list(json.loads(cli("state diff out s.arrow --json")[1])["changed"]) == ["é"]


def test_of_many_differences_some_are_listed(cli):
    logs.write(logs.random_log(rows=90, streams=90, seed=5), Path("in/one.parquet"))
    cli("run p.toml")
    cli("run p.toml --set sink.path=other --set source.nulls=1 --set source.features=['b','a']")
    number = len(json.loads(cli("state diff out other --json")[1])["changed"])
    assert number > 20
    code, out, _ = cli("state diff out other")
    assert (code, out.count(" differs  ")) == (1, 20)
    assert f"\n{number} differences, {number - 20} not shown; " in out
    assert cli("state diff out other --limit 3")[1].count(" differs  ") == 3
    (line,) = [line for line in out.splitlines() if line.startswith("rnn/h differs in ")]
    states = [
        {row["id"]: row["rnn/h"] for row in json.loads(cli(f"state show {o} --json --limit 99")[1])}
        for o in ("out", "other")
    ]
    largest = max(
        abs(x - y) for key in states[0] for x, y in zip(states[0][key], states[1][key], strict=True)
    )
    assert line == f"rnn/h differs in {number} streams, by at most {largest:.4g}"


def test_an_output_is_verified_rewound_and_compacted(cli):
    cli("run p.toml --set source.batch_rows=10 --set checkpoint.every=2 --set checkpoint.keep=9")
    code, out, _ = cli("verify out")
    assert code == 0
    assert "out is intact: commit " in out
    assert "with 100 rows, state of 3 streams" in out
    code, out, _ = cli("compact out")
    assert code == 0
    assert out.endswith(" into 1\n")
    assert cli("compact out")[1] == "out: no small parts to merge\n"
    logs.write(logs.random_log(40, 3, seed=3), Path("in/two.parquet"))
    cli("run p.toml --set source.late=apply")
    _, out, _ = cli("rewind out --json")
    commits = json.loads(out)
    assert [commit["newest_file"].rpartition("/")[2] for commit in commits[-2:]] == [
        "one.parquet",
        "two.parquet",
    ]
    _, out, _ = cli("rewind out")
    assert out.splitlines()[0].split()[:3] == ["commit", "time", "rows"]
    assert "return to another with: streamrnn rewind out --to N" in out
    code, out, _ = cli("rewind out --before two.parquet")
    assert code == 0
    assert f"{commits[0]['rows']} rows" in out
    assert pq.read_table("out").num_rows == commits[0]["rows"]
    assert cli("rewind out --to 999")[0] == 78
    assert cli("rewind out --before one.parquet")[0] == 78
    part = next(Path("out").glob("*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 1
    part.write_bytes(data)
    code, _, err = cli("verify out")
    assert code == 1
    assert part.name in err


@pytest.mark.parametrize("how", ["infinity", "late row", "damaged page"])
def test_a_reload_that_fails_reports_that_the_output_was_rewound(cli, how):
    """Footers do not show these; the rows of a corrected file cannot be read twice."""
    Path("in/one.parquet").unlink()
    days = [LOG.slice(0, 40), LOG.slice(40, 60)]
    for number, day in enumerate(days):
        logs.write(day, Path(f"in/one-{number}.parquet"))
        cli("run p.toml")
    file = Path("in/one-1.parquet")
    if how == "infinity":
        values = pa.array([*days[1]["a"].to_pylist()[:-1], float("inf")])
        logs.write(days[1].set_column(2, "a", values), file)
    elif how == "late row":
        other = days[1].set_column(2, "a", pc.add(days[1]["a"], 1.0))
        logs.write(pa.concat_tables([other.slice(30), other.slice(0, 30)]), file)
    else:
        data = bytearray(file.read_bytes())
        data[4:200] = bytes(196)
        file.write_bytes(data)
    code, out, err = cli("run p.toml --reload")
    assert (code, out) == (65, "")
    first, *_, last, _page = err.splitlines()
    assert first.startswith("error: ")
    assert "in/one-1.parquet" in err
    assert pq.read_table("out").num_rows == 40
    assert last == (
        "The output out was rewound to commit 1 (40 rows; it had 100). Correct the file and rerun "
        "the same command: it scores the rows after that commit again."
    )
    logs.write(days[1], file)
    assert cli("run p.toml --reload")[0] == 0
    assert pq.read_table("out").num_rows == 100


def test_what_explain_would_refuse_has_its_lines(cli):
    cli("run p.toml")
    line = "explain p.toml --set output.warmup=3 --set source.nulls=skip"
    refusal = json.loads(cli(f"{line} --json")[1])["would_refuse"]
    found = cli(line)[1].splitlines()
    first = found.index("would refuse") + 1
    assert len(refusal.splitlines()) >= 4
    assert "    output.warmup: was 0, is now 3" in found
    assert found[first : first + len(refusal.splitlines())] == [
        f"  {part}" for part in refusal.splitlines()
    ]


def test_models_are_shown_and_converted(cli):
    code, out, _ = cli("summary m.safetensors")
    assert code == 0
    assert "rnn (GRU)" in out
    code, out, _ = cli("convert m.safetensors n.safetensors")
    assert code == 0
    assert cli("summary n.safetensors")[1].count("rnn (GRU)") == 1
    code, out, err = cli("summary nope.safetensors")
    assert (code, out) == (66, "")
    assert err.startswith("error: nope.safetensors: ")


def test_what_is_no_output_folder(cli):
    for line in ("verify in", "rewind in", "compact in", "state show in", "state drop in --key a"):
        code, out, err = cli(line)
        assert (code, out) == (1, ""), line
        assert "no _streamrnn/_manifest.json" in err


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("run nope.toml", "nope.toml"),
        ("validate p.toml --set model.path=nope.keras", "nope.keras"),
        ("explain p.toml --set source.path=nope", "nope"),
        ("run p.toml --set source.path=nope/*.parquet", "nope/*.parquet"),
        ("run p.toml --set state.init=nope.arrow", "nope.arrow"),
        ("summary nope.onnx", "nope.onnx"),
        ("convert nope.h5 n.safetensors", "nope.h5"),
        ("verify nope", "nope"),
        ("rewind nope", "nope"),
        ("compact nope", "nope"),
        ("state show nope", "nope"),
        ("state show nope.parquet", "nope.parquet"),
        ("state drop nope --key a", "nope"),
        ("state export nope -o s.arrow", "nope"),
        ("state gc nope", "nope"),
    ],
)
def test_whatever_input_does_not_exist_exits_with_66(cli, line, named):
    code, out, err = cli(line)
    assert (code, out, err.count("error: ")) == (66, "", 1), err
    assert named in err


def test_stdin_and_stdout_speak_arrow(cli):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, LOG.schema) as writer:
        writer.write_table(LOG)
    run = [sys.executable, "-m", "streamrnn", "run", "p.toml", "--json"]
    overrides = [
        "--set",
        "source.path='-'",
        "--set",
        "sink.path='-'",
        "--set",
        "state.save=s.arrow",
    ]
    done = subprocess.run(
        [*run, *overrides], input=sink.getvalue().to_pybytes(), capture_output=True, check=True
    )
    piped = pa.ipc.open_stream(done.stdout).read_all()
    assert json.loads(done.stderr)["rows_out"] == 100
    cli("run p.toml")
    assert piped.column("score").equals(pq.read_table("out").column("score"))
    assert cli("state diff out s.arrow")[0] == 0


@pytest.mark.parametrize("path", first_quick(["-", "piped"]))
def test_a_cut_stream_commits_nothing_and_leaves_ours_without_its_end(cli, path):
    """A producer that was killed between two batches; the next program must notice it as well.

    Slow: an output folder.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, LOG.schema) as writer:
        writer.write_table(LOG)
    cut = sink.getvalue().to_pybytes()[:-8]
    command = "from streamrnn.cli import main; main()"
    run = [sys.executable, "-c", command, "run", "p.toml", "--set", "source.path='-'"]
    done = subprocess.run(
        [*run, "--set", f"sink.path='{path}'", "--set", "state.save=s.arrow"],
        input=cut, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 65
    assert b"error: stdin: the Arrow stream ends early after row 100" in done.stderr
    assert not done.stdout.endswith(b"\0\0\0\0")
    assert len(done.stdout) > 1000 or path != "-"
    assert not Path("s.arrow").exists()
    assert not list(Path().glob("piped/**/*.parquet"))


def test_times_that_python_has_no_type_for_are_shown(cli):
    """Nanoseconds, which pandas writes; years beyond 9999."""
    ticks = pa.array(range(100), pa.int64())
    for kind, time in (("ns", "1970-01-01 00:00:00.000000099"), ("s", "<value out of range: ")):
        later = pc.add(ticks, 0 if kind == "ns" else 1 << 50)
        logs.write(LOG.set_column(1, "t", later.cast(pa.timestamp(kind))), Path("in/one.parquet"))
        assert cli("run p.toml --full-refresh")[0] == 0
        for line in ("state show out", "state show out --json", "run p.toml --limit 100 --json"):
            code, out, err = cli(line)
            assert (code, err) == (0, ""), line
            assert time in out, line


@slow
def test_a_run_does_not_import_pandas(cli, monkeypatch):
    """pyarrow would, wherever it is installed, and each start take 0.4 s more.

    Slow: starts of every command.
    """
    Path("elsewhere").mkdir()
    Path("elsewhere/pandas.py").write_text("raise SystemExit('pandas was imported')")
    monkeypatch.setenv("PYTHONPATH", f"elsewhere:{os.environ.get('PYTHONPATH', '')}")
    command = [sys.executable, "-c", "from streamrnn.cli import main; main()"]
    for verb in ("validate p.toml", "run p.toml", "run p.toml --limit 3", "state show out"):
        done = subprocess.run(
            [*command, *verb.split()], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{verb}: {done.stderr}"


def test_a_closed_pipe_ends_quietly(cli):
    command = "from streamrnn.cli import main; main()"
    run = f"{sys.executable} -c '{command}' run p.toml --set sink.path=-"
    line = f"{run} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


CLOSED = """
import os, sys
from streamrnn.cli import app
reader, writer = os.pipe()
os.dup2(writer, 1)
os.close(reader)
def command(**options):
    print("printed, and not written before the end")
    sys.exit(0)
app.app = command
app.main()
"""


def test_a_pipe_that_closes_before_the_last_words_ends_quietly():
    """As where the reader leaves while the command computes."""
    done = python("-c", CLOSED, check=False, PYTHONUNBUFFERED="")
    assert (done.returncode, done.stderr) == (0, "")


def test_follow_scores_what_comes_and_stops_cleanly(cli):
    command = [sys.executable, "-c", "from streamrnn.cli import main; main()"]
    with subprocess.Popen(
        [*command, "run", "p.toml", "--follow"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        first = run.stderr.readline()
        later = LOG.set_column(1, "t", pc.add(LOG.column("t"), pa.scalar(timedelta(days=1))))
        logs.write(later, Path("in/new.parquet.tmp"))
        Path("in/new.parquet.tmp").rename("in/two.parquet")
        second = run.stderr.readline()
        run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=300)
    assert (first.split(":")[0], second.split(":")[0]) == ("commit 1", "commit 2")
    assert "100 new rows, 200 rows in total, 3 streams" in second
    assert "stopping as soon as possible" in err
    assert (run.returncode, out.splitlines()[0].split(" in ")[0]) == (0, "200 rows")
    assert pq.read_table("out").num_rows == 200
