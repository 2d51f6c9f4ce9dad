"""Files or stdin, a folder or stdout: every way in and out gives the same rows and counts."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import ConfigError
from streamrnn.pipeline import Summary

LOG = logs.random_log(300, streams=9)
WAYS = [(source, sink) for source in ("in", "-") for sink in ("out", "-")]


@pytest.fixture(autouse=True)
def base(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log in two files, and on stdin; a model; all in the working directory."""
    Path("in").mkdir()
    for i, first in enumerate((0, 120)):
        logs.write(LOG.slice(first, (120, 180)[i]), Path("in", f"{i}.parquet"))
    data = io.BytesIO()
    with pa.ipc.new_stream(data, LOG.schema) as writer:
        writer.write_table(LOG, max_chunksize=50)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data.getvalue())))


def _run(
    way: tuple[str, str], monkeypatch: pytest.MonkeyPatch, **tables: Any
) -> tuple[Summary, pa.Table]:
    out, (source, sink) = io.BytesIO(), way
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", SimpleNamespace(buffer=out))
        config = logs.config(source, "m.safetensors", sink, **tables)
        summary = Pipeline.from_dict(config).run()
    if sink == "-":
        return summary, pa.ipc.open_stream(out.getvalue()).read_all()
    parts = [pq.read_table(path) for path in sorted(Path(sink).glob("*.parquet"))]
    return summary, pa.concat_tables(parts)


@pytest.mark.parametrize(("source", "sink"), WAYS)
def test_every_way_gives_the_same_rows_and_counts(
    source: str, sink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is saved on every way; only a folder keeps it, and only files are counted."""
    _, right = _run(("in", "right"), monkeypatch)
    summary, rows = _run((source, sink), monkeypatch, state={"save": "s.arrow"})
    assert rows.equals(right)
    assert (summary.rows, summary.rows_out) == (300, 300)
    assert (summary.streams, summary.new_streams) == (9, 9)
    assert (summary.output, summary.state) == (sink, "s.arrow")
    assert summary.files == (2 if source == "in" else 0)
    assert not summary.nothing_new


@pytest.mark.parametrize(("source", "sink"), WAYS)
def test_only_files_into_a_folder_commit_on_the_way(
    source: str, sink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere there is no place to resume from."""
    options = {"source": {"batch_rows": 60}, "checkpoint": {"every": 1}}
    summary, _ = _run((source, sink), monkeypatch, **options)
    assert (summary.commits > 1) == ((source, sink) == ("in", "out"))
    assert summary.state == ("out" if sink == "out" else None)


def test_files_are_read_once_and_stdin_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    _run(("in", "out"), monkeypatch)
    summary, _ = _run(("in", "out"), monkeypatch)
    assert (summary.nothing_new, summary.rows, summary.streams) == (True, 0, 9)
    _, rows = _run(("in", "-"), monkeypatch)
    assert len(rows) == 300


@pytest.mark.parametrize("config", ["weather.toml", {"source": {}}])
def test_a_path_in_place_of_a_config_is_told_the_way_in(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"received (str|dict)\. Load.* Pipeline\.from_toml"):
        Pipeline(config)


@pytest.mark.parametrize("tables", ["weather.toml", None])
def test_a_path_in_place_of_tables_is_told_the_way_in(tables: Any) -> None:
    with pytest.raises(ConfigError, match=r"received (str|NoneType)\. Load.* Pipeline\.from_toml"):
        Pipeline.from_dict(tables)


@pytest.mark.parametrize(
    "options", [{"engine": "spark"}, {"poll": "1"}, {"poll": -1.0}, {"poll": float("inf")}], ids=str
)
def test_an_option_of_a_run_without_a_meaning_is_refused(options: Any) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=rf"^{name}: expected .*, received "):
        Pipeline.from_dict(logs.config("in", "m.safetensors", "out")).run(**options)


def test_a_negative_limit_of_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^preview: expected 0 or more rows, received -1"):
        Pipeline.from_dict(logs.config("in", "m.safetensors", "out")).preview(-1)
