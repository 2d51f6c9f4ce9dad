"""`--metrics FILE`: what Prometheus reads of a run, while it goes on and however it ends."""

import re
import threading
import time
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pytest
from command_line import run_command
from jobs.engines.in_process import TasksHere

from streamrnn import Pipeline
from streamrnn.cli import main
from streamrnn.errors import ConfigError, DTypeError, SinkError
from streamrnn.jobs.engines import opening
from streamrnn.jobs.running import MetricsFile, Series
from streamrnn.stream.sources import unix_seconds

LOG = logs.random_log(rows=100, streams=3)
SAMPLE = re.compile(r'(\w+)\{pipeline="((?:[^"\\]|\\.)*)"(?:,phase="(\w+)")?\} (\S+)')
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


def read(path: str = "m.prom") -> dict[str, float]:
    """Name (and phase) -> value; a strict parser: each metric has its HELP and TYPE once."""
    found: dict[str, float] = {}
    helped, typed, name = set(), set(), ""
    for line in Path(path).read_text().removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in helped
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, typed_name, kind = line.split(" ")
            assert typed_name == name
            assert kind == ("counter" if name.endswith("_total") else "gauge")
            typed.add(name)
        else:
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match[1] == name
            assert name in typed
            key = name.removeprefix("streamrnn_") + (f" {match[3]}" if match[3] else "")
            assert key not in found
            found[key] = float(match[4])
    assert helped == typed
    return found


@pytest.fixture
def folder(workdir: Path) -> Path:
    """The working directory, with p.toml, its model, and a first file of 60 rows."""
    Path("p.toml").write_text(PIPELINE)
    logs.small_model().save("m.safetensors")
    logs.write(LOG.slice(0, 60), Path("in/a.parquet"))
    return workdir


def run(**options: Any) -> Any:
    return Pipeline.from_toml("p.toml").run(metrics="m.prom", **options)


def test_a_run_leaves_what_its_summary_and_its_commit_say(folder: Path) -> None:
    before = time.time()
    summary = run()
    found = read()
    assert {name: found[name] for name in ("rows_read_total", "rows_written_total", "commit")} == {
        "rows_read_total": 60,
        "rows_written_total": 60,
        "commit": summary.commit,
    }
    assert found["streams"] == 3
    assert found["state_bytes"] == sum(
        path.stat().st_size for path in Path("out").rglob("*state*") if path.is_file()
    )
    newest = LOG.slice(0, 60)["t"].to_pylist()[-1].timestamp()
    assert found["newest_row_timestamp_seconds"] == newest
    assert before - newest <= found["lag_seconds"] <= time.time() - newest
    assert (found["last_run_success"], found["last_run_exit_code"], found["running"]) == (1, 0, 0)
    assert before <= found["last_run_timestamp_seconds"] <= found["last_success_timestamp_seconds"]
    assert 0 < found["last_run_duration_seconds"] <= time.time() - before
    phases = {name.split(" ")[1] for name in found if name.startswith("phase_seconds_total ")}
    assert phases == set(summary.seconds_by_phase)
    assert list(folder.glob("m.prom*")) == [folder / "m.prom"]


def test_counters_go_on_from_run_to_run(folder: Path) -> None:
    """So that Prometheus's `increase` is right for equal days too."""
    run()
    first = read()
    logs.write(LOG.slice(60), Path("in/b.parquet"))
    run()
    second = read()
    assert (second["rows_read_total"], second["rows_written_total"]) == (100, 100)
    assert second["phase_seconds_total score"] > first["phase_seconds_total score"]
    assert run().nothing_new
    third = read()
    for name in ("rows_read_total", "rows_written_total", "commit", "streams", "state_bytes"):
        assert third[name] == second[name]
    assert third["newest_row_timestamp_seconds"] == second["newest_row_timestamp_seconds"]
    assert third["lag_seconds"] > second["lag_seconds"]
    run(full_refresh=True)
    assert (read()["rows_read_total"], read()["rows_written_total"]) == (200, 100)


def test_rejected_late_and_filled_rows_are_counted(folder: Path) -> None:
    late = logs.random_log(rows=80, streams=3, seed=3, nulls=0.3, jitter=30)
    null = pa.array([None, *late["t"].to_pylist()[1:]], late.schema.field("t").type)
    logs.write(late.set_column(1, late.schema.field("t"), null), Path("in/a.parquet"))
    rules = ["source.bad=reject", "source.late=drop", "source.nulls=0.0"]
    summary = Pipeline.from_toml("p.toml", rules).run(metrics="m.prom")
    found = read()
    assert found["rows_rejected_total"] == summary.rejected > 0
    assert found["rows_late_total"] == summary.dropped_late > 0
    assert found["values_filled_total"] == summary.filled > 0


def test_the_file_is_replaced_after_each_commit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First as the run begins, before anything is committed, and at last as it ends."""
    seen: list[tuple[float | None, ...]] = []
    whole = MetricsFile.write

    def write(self: MetricsFile, values: Any) -> None:
        whole(self, values)
        found = read()
        names = ("commit", "rows_written_total", "newest_row_timestamp_seconds", "running")
        seen.append(tuple(map(found.get, names)))

    monkeypatch.setattr(MetricsFile, "write", write)
    run()
    newest = [LOG["t"][10 * n - 1].as_py().timestamp() for n in range(1, 7)]
    commits = [(n, 10 * n, newest[n - 1], 1) for n in range(1, 7)]
    assert seen == [(None, None, None, 1), *commits, (6, 60, newest[-1], 0)]


def test_a_failed_run_is_seen_and_keeps_the_time_of_the_last_success(folder: Path) -> None:
    run()
    good = read()
    bad = LOG.slice(60).set_column(2, "a", pa.array(["x"] * 40))
    logs.write(bad, Path("in/b.parquet"))
    with pytest.raises(DTypeError):
        run()
    failed = read()
    assert (failed["last_run_success"], failed["running"]) == (0, 0)
    assert failed["last_run_exit_code"] == DTypeError.exit_code
    assert failed["last_success_timestamp_seconds"] == good["last_success_timestamp_seconds"]
    assert failed["last_run_timestamp_seconds"] > good["last_run_timestamp_seconds"]
    assert failed["rows_written_total"] == 60
    Path("in/b.parquet").unlink()
    run()
    assert (read()["last_run_success"], read()["last_run_exit_code"]) == (1, 0)


@pytest.mark.parametrize(
    ("damage", "code"),
    [("m.safetensors", 66), ("p.toml", 66), ("[source", 78)],
    ids=["no model", "no pipeline file", "an invalid pipeline file"],
)
def test_a_run_that_cannot_begin_is_seen(folder: Path, damage: str, code: int) -> None:
    run()
    if Path(damage).exists():
        Path(damage).unlink()
    else:
        Path("p.toml").write_text(damage)
    with pytest.raises(SystemExit) as end:
        main(["run", "p.toml", "--metrics", "m.prom"])
    assert end.value.code == code
    found = read()
    assert (found["last_run_success"], found["last_run_exit_code"]) == (0, code)
    assert (found["running"], found["rows_read_total"]) == (0, 60)


def test_an_interrupted_run_is_no_success(folder: Path) -> None:
    stop = threading.Event()
    assert run(stop=stop, progress=lambda _: stop.set()).interrupted
    assert (read()["last_run_success"], read()["last_run_exit_code"]) == (0, 130)


def test_a_killed_run_is_seen_by_the_next_one(folder: Path) -> None:
    """It left `running` at 1: while the next one runs, the last one that ended was no success."""
    run()
    file = MetricsFile("m.prom", "p.toml")
    file.write({**file.earlier, Series("running"): 1})
    during: list[dict[str, float]] = []
    logs.write(LOG.slice(60), Path("in/b.parquet"))
    run(progress=lambda _: during.append(read()))
    assert (during[0]["last_run_success"], during[0]["running"]) == (0, 1)
    assert "last_run_exit_code" not in during[0]
    assert read()["last_run_success"] == 1


def test_each_look_of_a_run_that_follows_is_written(folder: Path) -> None:
    """Also one that finds nothing new: the lag grows. After a crash, a look is a success again."""
    looks: list[dict[str, float]] = []
    file = MetricsFile("m.prom", "p.toml")
    file.write({Series("last_run_success"): 0})

    class Looks(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            looks.append(read())
            if len(looks) == 3:
                self.set()
            return self.is_set()

    run(follow=True, poll=0.0, stop=Looks())
    assert [found["commit"] for found in looks] == [6.0] * 3
    assert [(found["last_run_success"], found["running"]) for found in looks] == [(1, 1)] * 3
    lags = [found["lag_seconds"] for found in looks]
    assert lags == sorted(set(lags))
    assert (read()["running"], read()["last_run_exit_code"]) == (0, 0)


def test_a_file_that_cannot_be_written_is_an_error_before_anything_is(folder: Path) -> None:
    Path("taken").write_text("")
    with pytest.raises(SinkError, match=r"--metrics: cannot read taken/m.prom: .*Not a directory"):
        Pipeline.from_toml("p.toml").run(metrics="taken/m.prom")
    with pytest.raises(SinkError, match=r"--metrics: cannot read in: .*folder"):
        Pipeline.from_toml("p.toml").run(metrics="in")
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["p.toml", "m.safetensors"])
def test_a_file_of_something_else_is_never_replaced(folder: Path, name: str) -> None:
    content = Path(name).read_bytes()
    with pytest.raises(ConfigError, match=f"--metrics: {name} exists, and is not"):
        Pipeline.from_toml("p.toml").run(metrics=name)
    assert Path(name).read_bytes() == content
    assert not Path("out").exists()


def test_the_file_of_another_pipeline_is_refused(folder: Path) -> None:
    run()
    Path("q.toml").write_text(PIPELINE)
    with pytest.raises(ConfigError, match=r'metrics of pipeline "p.toml", expected "q.toml"'):
        Pipeline.from_toml("q.toml").run(metrics="m.prom")


def test_a_disk_that_fills_later_does_not_end_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, calls = MetricsFile.write, []

    def write(self: MetricsFile, values: Any) -> None:
        calls.append(values)
        if len(calls) > 1:
            raise SinkError("--metrics: cannot write m.prom: disk full.")
        whole(self, values)

    monkeypatch.setattr(MetricsFile, "write", write)
    with caplog.at_level("WARNING", logger="streamrnn.pipeline"):
        assert run().rows_out == 60
    assert "disk full. The run continues." in caplog.text


def test_the_name_of_a_file_that_is_no_utf_8_is_a_label(tmp_path: Path) -> None:
    """Names of files are bytes, and Python hands the odd ones over as half characters."""
    path = str(tmp_path / "m.prom")
    MetricsFile(path, "\udcff.toml").write({Series("phase_seconds_total", "read"): 1.0})
    assert r'{pipeline="\\udcff.toml",phase="read"} 1' in Path(path).read_text()
    earlier = MetricsFile(path, "\udcff.toml").earlier
    assert earlier == {Series("phase_seconds_total", "read"): 1.0}


def test_a_label_is_escaped_and_read_again(tmp_path: Path) -> None:
    path, name = str(tmp_path / "m.prom"), 'a\\b "c"\nd.toml'
    MetricsFile(path, name).write({Series("phase_seconds_total", "read"): 1.5e-7})
    assert r'{pipeline="a\\b \"c\"\nd.toml",phase="read"} 1.5e-07' in Path(path).read_text()
    assert MetricsFile(path, name).earlier == {Series("phase_seconds_total", "read"): 1.5e-7}


def test_times_of_each_type_are_seconds() -> None:
    """Without a zone UTC is meant; numbers are no times."""
    second = 1_700_000_000
    for kind, ticks in [
        (pa.timestamp("s"), second),
        (pa.timestamp("ns", "Europe/Paris"), second * 10**9 + 1),
        (pa.date32(), second // 86400),
        (pa.date64(), second // 86400 * 86_400_000),
    ]:
        found = unix_seconds(pa.scalar(ticks, pa.int32() if kind == pa.date32() else pa.int64()))
        assert found is None
        integers = pa.array([ticks], pa.int32() if kind == pa.date32() else pa.int64())
        day = second // 86400 * 86400
        assert unix_seconds(integers.cast(kind)[0]) == (day if pa.types.is_date(kind) else second)
    assert unix_seconds(pa.scalar(None, pa.timestamp("s"))) is None


def test_a_preview_has_no_metrics(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run_command(capsys, "run", "p.toml", "--limit", 3, "--metrics", "m.prom")
    assert (code, "--metrics" in error) == (2, True)


def test_an_epoch_of_an_engine_is_a_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards count their own rows and times; the file has those of all."""
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(twice=0))
    seen: list[tuple[float | None, ...]] = []
    whole = MetricsFile.write

    def write(self: MetricsFile, values: Any) -> None:
        whole(self, values)
        found = read()
        names = ("commit", "rows_written_total", "newest_row_timestamp_seconds", "streams")
        seen.append(tuple(map(found.get, names)))

    monkeypatch.setattr(MetricsFile, "write", write)
    logs.write(LOG.slice(0, 60), Path("in/a.parquet"), row_group=20)
    Pipeline.from_toml(
        "p.toml", ["engine.type=ray", "engine.shards=2", "engine.epoch_rows=20"]
    ).run(metrics="m.prom")
    times, ids = LOG["t"].to_pylist(), LOG["id"].to_pylist()
    assert [found[0] for found in seen] == [None, 1, 2, 3, 3]
    for commit, written, newest, streams in seen[1:4]:
        assert written == 20 * commit
        assert newest == times[int(written) - 1].timestamp()
        assert streams == len(set(ids[: int(written)]))
