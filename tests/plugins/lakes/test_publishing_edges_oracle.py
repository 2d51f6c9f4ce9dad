"""Tables of outputs without a row, of copies, and those that nothing keeps up to date any more."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from streamrnn import outputs
from streamrnn.cli import main
from streamrnn.errors import PublishError

for library in ("deltalake", "pyiceberg", "polars", "sqlalchemy"):
    pytest.importorskip(library, reason="needs the oracles extra")

import polars as pl  # noqa: E402
from plugins.lakes.lake import Lake  # noqa: E402
from readme import located  # noqa: E402

SETTINGS = "ignore::DeprecationWarning", "ignore::ResourceWarning"
pytestmark = [pytest.mark.filterwarnings(setting) for setting in SETTINGS]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    return Lake(tmp_path, monkeypatch)


def test_an_output_without_a_part_has_a_table_that_follows_its_columns(lake: Lake) -> None:
    folders = {"sink": {"partition_by": ["id"]}}
    pq.write_table(lake.log.slice(0, 0), lake.base / "in" / "0.parquet")
    made = lake.run(tables=dict(folders)).published
    assert [(item["added"], item["removed"]) for item in made] == [(0, 0), (0, 0)]
    assert [len(found) for found in lake.readings()] == [0] * 5
    assert outputs.verify(lake.out).behind == ()
    assert outputs.publish(lake.out) == []
    columns = {"output": {"columns": ["id", "b"]}}
    lake.run(tables={**folders, **columns}, full_refresh=True)
    assert [sorted(found.columns) for found in lake.readings()] == [["b", "id", "score"]] * 5
    assert outputs.verify(lake.out).behind == ()
    lake.run(1, tables={**folders, **columns})
    assert [len(found) for found in lake.readings()] == [100] * 5


def test_a_failure_names_its_cause_and_the_path(lake: Lake) -> None:
    lake.publish = {"delta": True}
    lake.run(0)
    log = Path(lake.out, "_delta_log")
    log.rename(lake.base / "log")
    log.write_text("")
    with pytest.raises(PublishError, match=r"_delta_log/\S+: Not a directory") as found:
        lake.run(1)
    assert "\x1b" not in str(found.value)


def test_polars_reads_a_published_output_as_the_guide_says(lake: Lake) -> None:
    lake.run(0)
    (pattern,) = re.findall(
        r'scan_parquet\("out/weather(.*?)"(.*?)\)',
        located("streamrnn/guide/results.md").read_text(),
    )
    options = dict(re.findall(r'(\w+)="(.*?)"', pattern[1]))
    assert len(pl.scan_parquet(f"{lake.out}{pattern[0]}", **options).collect()) == 100


def test_a_copy_does_not_take_the_iceberg_table_of_its_original(lake: Lake) -> None:
    folders = {"sink": {"partition_by": ["id"]}}
    lake.run(0, tables=dict(folders))
    original, copy = lake.out, str(lake.base / "copy")
    shutil.copytree(original, copy)
    lake.out = copy
    with pytest.raises(PublishError, match=f"has the parts of file://{original}, which is still"):
        lake.run(1, tables=dict(folders))
    assert f"file://{copy} is a copy" in outputs.verify(copy).behind[0]
    lake.out = original
    assert outputs.verify(original).behind == ()
    lake.run(tables=dict(folders))
    assert [len(found) for found in lake.readings()] == [200] * 5
    shutil.rmtree(original)
    lake.out = copy
    assert lake.run(tables=dict(folders)).published[0]["added"] == 10
    assert [len(found) for found in lake.readings()] == [200] * 5


def test_an_output_seen_under_two_paths_is_no_copy(lake: Lake, monkeypatch) -> None:
    lake.run(0)
    monkeypatch.setattr(os.path, "samefile", lambda *paths: True)
    copy = lake.base / "mounted"
    shutil.copytree(lake.out, copy)
    lake.out = str(copy)
    lake.run(1)
    assert len(lake.assert_equal()) == 200


@pytest.mark.parametrize("full_refresh", [False, True])
def test_tables_that_are_not_named_any_more_are_told(lake: Lake, caplog, full_refresh) -> None:
    lake.run(0)
    lake.publish = {"iceberg": {"catalog": "lake", "table": "weather.other"}}
    lake.run(1, full_refresh=full_refresh)
    delta, iceberg = (record.getMessage() for record in caplog.records)
    assert f"the Delta table {lake.out} is no longer kept up to date" in delta
    assert f"Remove {lake.out}/_delta_log" in delta
    assert "the Iceberg table lake.weather.scores is no longer kept up to date" in iceberg
    assert "Drop it without its files" in iceberg
    caplog.clear()
    lake.run(2)
    assert not caplog.records  # told once, when the keys change
    assert outputs.verify(lake.out).left == (delta,)
    assert outputs.verify(lake.out).behind == ()
    assert outputs.publish(lake.out) == []


def test_a_log_that_was_removed_or_is_named_again_is_not_told(lake: Lake, caplog, capsys) -> None:
    lake.publish = {"delta": True}
    lake.run(0)
    assert outputs.verify(lake.out).left == ()
    lake.publish = {}
    lake.run(1)
    assert len(caplog.records) == 1
    with pytest.raises(SystemExit, match="0"):
        main(["verify", lake.out])
    printed = capsys.readouterr().out
    assert f"\nnote     the Delta table {lake.out} is no longer kept up to date" in printed
    caplog.clear()
    lake.publish = {"delta": True}
    lake.run(2)
    assert outputs.verify(lake.out).left == ()
    shutil.rmtree(Path(lake.out, "_delta_log"))
    lake.publish = {}
    lake.run()
    assert not caplog.records
    assert outputs.verify(lake.out).left == ()
