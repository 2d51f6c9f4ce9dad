"""Alerts: rows of an output that a filter lets pass, in a second folder, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import logs
import pyarrow.parquet as pq
import pytest
from command_line import run_command
from jobs.engines.in_process import TasksHere
from stream.checkpoints.disks import HastyDisk

from streamrnn import Pipeline
from streamrnn.base.storage.local import LocalFiles
from streamrnn.cli.run import in_words
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.jobs.engines import opening
from streamrnn.jobs.running.metrics import METRICS
from streamrnn.outputs import compact, history, rewind, verify
from streamrnn.stream.checkpoints import load_state, read_manifest
from streamrnn.stream.config import SIDE_OUTPUTS

LOG = logs.random_log(300, streams=6, nulls=0.05, jitter=3)
WHERE = "score > 0.2 and id != 's1' or b is null"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())
    logs.small_model().save(tmp_path / "m.safetensors")
    for index in range(3):
        logs.write(LOG.slice(index * 100, 100), tmp_path / f"log/{index}.parquet")
    return tmp_path


def pipeline(place: Path, out: str = "out", where: str = WHERE, **tables: Any) -> Pipeline:
    tables["source"] = {"nulls": "previous", "late": "reject", "batch_rows": 20}
    tables["output"] = {"columns": ["id", "t", "b"], "warmup": 2, **tables.get("output", {})}
    tables.setdefault("checkpoint", {"every": 2})
    tables["alerts"] = {"where": where, **tables.get("alerts", {})}
    weights = str(place / "m.safetensors")
    return Pipeline.from_dict(logs.config(str(place / "log"), weights, str(place / out), **tables))


def rows(out: Path) -> list[dict[str, Any]]:
    names = sorted(out.glob("*.parquet"))
    return [row for name in names for row in pq.ParquetFile(name).read().to_pylist()]


def passing(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def passes(row: dict[str, Any]) -> bool:
        high = row["score"] is not None and row["score"] > 0.2
        return (high and row["id"] != "s1") or row["b"] is None

    return [row for row in found if passes(row)]


EMITS: list[dict[str, Any]] = [{}, {"emit": "last", "last_of": 3}, {"emit": "final"}]


@pytest.mark.parametrize("emit", EMITS, ids=["every", "last", "final"])
def test_rows_that_pass_are_written_twice_and_nothing_else_changes(
    place: Path, emit: dict[str, Any]
) -> None:
    pipeline(place, "plain", "", output=emit).run()
    summary = pipeline(place, output=emit).run()
    found = rows(place / "out.alerts")
    assert found == passing(rows(place / "plain"))
    assert len(found) == summary.alerts == read_manifest(str(place / "out")).named("alerts").rows
    assert 0 < len(found) < summary.rows_out
    assert summary.alerts_path == str(place / "out.alerts")
    assert not (place / "plain.alerts").exists()
    for name in ("out", "out.rejects"):
        one, other = sorted((place / name).glob("*.parquet")), place / name.replace("out", "plain")
        assert [path.read_bytes() for path in one] == [
            path.read_bytes() for path in sorted(other.glob("*.parquet"))
        ]
    state, plain = load_state(str(place / "out")), load_state(str(place / "plain"))
    assert state is not None
    assert state.equals(plain)
    assert verify(str(place / "out")).bytes > verify(str(place / "plain")).bytes


def test_alerts_of_many_runs_are_merged_and_undone(place: Path) -> None:
    later = [path.rename(place / path.name) for path in sorted((place / "log").iterdir())[1:]]
    counts = []
    for path in [None, *later]:
        if path is not None:
            path.rename(place / "log" / path.name)
        pipeline(place).run()
        counts.append((verify(str(place / "out")).rows, len(rows(place / "out.alerts"))))
    before = rows(place / "out.alerts")
    compact(str(place / "out"))
    assert len(list((place / "out.alerts").glob("*.parquet"))) == 1
    assert rows(place / "out.alerts") == before == passing(rows(place / "out"))
    first = history(str(place / "out"))[0].commit
    rewind(str(place / "out"), first)
    assert (len(rows(place / "out")), len(rows(place / "out.alerts"))) == counts[0]
    pipeline(place).run()
    assert rows(place / "out.alerts") == before
    verify(str(place / "out"))


def test_shards_write_alerts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(1))
    pipeline(place, "plain").run()
    engine = {"type": "ray", "shards": 3, "epoch_rows": 120}
    pipeline(place, engine=engine).run()
    verify(str(place / "out"))
    found, expected = (sorted(map(repr, rows(place / f"{n}.alerts"))) for n in ("out", "plain"))
    assert found == expected


def test_alerts_of_partitions_are_in_one_folder_with_all_columns(place: Path) -> None:
    pipeline(place, "plain").run()
    pipeline(place, sink={"partition_by": ["id"]}).run()
    assert rows(place / "out.alerts") == rows(place / "plain.alerts")
    verify(str(place / "out"))


def test_the_filter_may_change_between_runs_and_the_folder_may_not(place: Path) -> None:
    last = (place / "log/2.parquet").rename(place / "last.parquet")
    pipeline(place).run()
    first = rows(place / "out.alerts")
    last.rename(place / "log/2.parquet")
    with pytest.raises(CheckpointError, match=r"\[alerts\] path is now .*elsewhere"):
        pipeline(place, alerts={"path": str(place / "elsewhere")}).run()
    pipeline(place, where="score > 100").run()
    assert rows(place / "out.alerts") == first
    pipeline(place, where="").run(full_refresh=True)
    assert rows(place / "out.alerts") == []
    verify(str(place / "out"))


def test_alerts_that_are_damaged_are_told(place: Path) -> None:
    pipeline(place).run()
    path = sorted((place / "out.alerts").glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"out\.alerts/part-00000\.parquet is damaged"):
        verify(str(place / "out"))


def test_a_folder_of_others_is_refused(place: Path) -> None:
    (place / "out.alerts").mkdir()
    (place / "out.alerts/mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"out\.alerts is not empty"):
        pipeline(place).run()
    pipeline(place, where="").run()


def test_process_returns_all_rows_and_writes_none(place: Path) -> None:
    found = pipeline(place).process(LOG.slice(0, 20).to_batches()[0])
    assert found.num_rows == pipeline(place, where="").process(LOG.slice(0, 20)).num_rows
    assert not (place / "out.alerts").exists()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("scor > 1", r"character 1: `scor` is not a column of the output; did you mean"),
        ("score > 'x'", "character 9: expected a number, as `score` is float"),
    ],
)
def test_what_the_columns_show_is_refused_before_the_first_row(
    place: Path, where: str, message: str
) -> None:
    made = pipeline(place, where=where)
    for act in (made.explain, made.validate, made.run):
        with pytest.raises(ConfigError, match=message):
            act()
    assert not (place / "out").exists()


def test_what_the_file_alone_shows_is_refused_by_name(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)alerts\.where.*expected a column or a literal"):
        pipeline(place, where="score >")
    with pytest.raises(ConfigError, match=r"alerts\.where.*the output goes to stdout"):
        pipeline(place, sink={"path": "-"})
    with pytest.raises(ConfigError, match="overlap"):
        pipeline(place, alerts={"path": str(place / "out/alerts")}).run()


def test_explain_shows_the_filter(place: Path) -> None:
    assert pipeline(place).explain()["alerts"] == WHERE
    assert pipeline(place, where="").explain()["alerts"] is None


def test_a_fourth_output_is_reported_like_the_alerts(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its entry in the table; it has the keys of the alerts here."""
    same = SIDE_OUTPUTS["alerts"]._replace(metric="rows_sampled_total")
    monkeypatch.setitem(SIDE_OUTPUTS, "samples", same)
    monkeypatch.setitem(METRICS, "rows_sampled_total", "")
    assert pipeline(place).explain()["samples"] == WHERE
    summary = pipeline(place).run(metrics=place / "m.prom")
    assert rows(place / "out.samples") == rows(place / "out.alerts")
    assert 0 < summary.alerts == summary.as_dict()["samples"]
    assert f"\nsamples  {place / 'out.samples'} ({summary.alerts} rows)\n" in in_words(summary)
    assert f"samples {summary.alerts}" in repr(summary)
    metrics = (place / "m.prom").read_text()
    assert re.findall(r"rows_sampled_total\{.*\} (\d+)", metrics) == [str(summary.alerts)]


def two_runs(place: Path, **alerts: Any) -> None:
    """Two commits; the first is of one file."""
    later = [path.rename(place / path.name) for path in sorted((place / "log").iterdir())[1:]]
    pipeline(place, alerts=alerts).run()
    for path in later:
        path.rename(place / "log" / path.name)
    pipeline(place, alerts=alerts).run()


def test_relative_folders_are_found_from_anywhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    two_runs(place, path="mine/../passed")
    before = len(rows(place / "passed"))
    (place / "away").mkdir()
    monkeypatch.chdir(place / "away")
    verify("../out")
    rewind("../out", history("../out")[0].commit)
    assert 0 < len(rows(place / "passed")) < before
    verify("../out")
    pipeline(place, alerts={"path": "../passed"}).run()
    assert len(rows(place / "passed")) == before


@pytest.mark.parametrize(
    ("out", "path", "shown"),
    [("out", None, "out.alerts"), ("./out/", None, "./out.alerts"), ("out", "../a", "../a")],
)
def test_the_summary_shows_the_folder_as_it_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, out: str, path: str | None, shown: str
) -> None:
    """Like those of output and rejects, which are relative paths here, too."""
    (place / "here").mkdir()
    monkeypatch.chdir(place / "here")
    named = {"path": path} if path else {}
    summary = pipeline(place, sink={"path": out}, alerts=named).run()
    assert summary.output == out
    assert summary.alerts_path == shown
    assert f"\nalerts   {shown} ({summary.alerts} rows)\n" in in_words(summary)


def test_a_missing_folder_is_told_before_a_rewind(place: Path) -> None:
    two_runs(place)
    (place / "out.alerts").rename(place / "moved")
    commit = history(str(place / "out"))[0].commit
    with pytest.raises(CheckpointError, match=r"(?s)moved, copied or linked.*\[alerts\] path"):
        rewind(str(place / "out"), commit)
    assert len(history(str(place / "out"))) == 2
    pipeline(place, alerts={"path": str(place / "moved")}).run()


def test_without_a_filter_the_folder_may_be_named_or_not(place: Path) -> None:
    two_runs(place, path=str(place / "mine"))
    found = rows(place / "mine")
    pipeline(place, where="").run()
    assert rows(place / "mine") == found
    pipeline(place, where="").run(full_refresh=True)
    assert rows(place / "mine") == []
    verify(str(place / "out"))


def test_files_that_no_commit_names_are_told(place: Path) -> None:
    pipeline(place).run()
    (place / "out.alerts/more.parquet").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"out\.alerts holds files with rows .*more\.parquet"):
        verify(str(place / "out"))


def test_a_refresh_with_another_folder_names_the_one_that_stays(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline(place).run()
    pipeline(place, alerts={"path": str(place / "mine")}).run(full_refresh=True)
    assert f"replaced stay in {place / 'out.alerts'}; remove that folder" in caplog.text
    assert rows(place / "mine") == rows(place / "out.alerts")


def test_compact_counts_merged_alerts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_runs(place)
    last = read_manifest(str(place / "out"))
    code, out, _ = run_command(capsys, "compact", place / "out")
    assert code == 0
    assert f", {len(last.named('alerts').parts)} of alerts into 1" in out
