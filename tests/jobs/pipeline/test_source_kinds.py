"""CSV, NDJSON and Delta in all that a pipeline does: the results are those of Parquet."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pytest
from contracts.rows_files import SOURCE_FORMATS
from deltalog import DeltaLog
from jobs.engines.in_process import TasksHere
from jobs.engines.same import assert_same
from selection import slow, with_plugins

from streamrnn import Pipeline
from streamrnn.cli import main
from streamrnn.errors import CheckpointError, ConfigError, DataError
from streamrnn.jobs.engines import opening
from streamrnn.outputs import read_states
from streamrnn.pipeline import draft_pipeline
from streamrnn.stream.sources import FileSource, list_files

pytestmark = pytest.mark.usefixtures("model_dir")

LOG = logs.random_log(300, nulls=0.1).drop_columns("new")
CUTS = ((0, 120), (120, 80), (200, 100))
TYPES = {"b": "int32"}


def write_text(name: str) -> str:
    for i, (first, rows) in enumerate(CUTS):
        SOURCE_FORMATS[name].write(LOG.slice(first, rows), Path(f"{i}.{name}"))
    return f"?.{name}"


def write_parquet() -> str:
    Path("parquet").mkdir()
    for i, (first, rows) in enumerate(CUTS):
        logs.write(LOG.slice(first, rows), Path(f"parquet/{i}.parquet"), row_group=50)
    return "parquet"


def write_delta() -> str:
    log = DeltaLog(Path("table").absolute(), LOG.schema)
    for first, rows in CUTS:
        log.append(LOG.slice(first, rows))
    return "table"


KINDS: dict[str, tuple[Callable[[], str], dict[str, Any]]] = {
    "csv": (lambda: write_text("csv"), {"types": TYPES}),
    "ndjson": (lambda: write_text("ndjson"), {"types": TYPES}),
    "delta": (write_delta, {}),
}
EACH_KIND = pytest.mark.parametrize(
    "name", ["csv", "ndjson", pytest.param("delta", marks=with_plugins)]
)


def pipeline(path: str, out: str, source: dict[str, Any], **tables: Any) -> Pipeline:
    found = {"nulls": "previous", "batch_rows": 64, **source}
    return Pipeline.from_dict(logs.config(path, "m.safetensors", out, source=found, **tables))


@EACH_KIND
def test_a_drafted_pipeline_runs(name: str) -> None:
    write, _ = KINDS[name]
    path = write()
    draft = draft_pipeline("0.csv" if name == "csv" else path, "m.safetensors", "out")
    assert draft.todos == []
    Path("p.toml").write_text(draft.text)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["validate", "p.toml"])
    assert Pipeline.from_toml("p.toml").run().rows == (120 if name == "csv" else 300)


@EACH_KIND
def test_figures_and_plans_are_those_of_parquet(name: str) -> None:
    write, source = KINDS[name]
    target = {"column": "a", "rows": 1}
    parquet = pipeline(write_parquet(), "right", {}, target=target)
    other = pipeline(write(), "out", source, target=target)
    assert other.explain()["rows"] == parquet.explain()["rows"] == 300
    assert other.validate() is not None
    parquet.run()
    other.run()
    assert_same("out", "right")
    assert other.evaluate().table.equals(parquet.evaluate().table)
    assert other.explain()["new_files"] == 0


@EACH_KIND
def test_shards_read_what_one_process_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, source = KINDS[name]
    path = write()
    pipeline(path, "right", source).run()
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(3))
    engine = {"type": "ray", "shards": 3, "epoch_rows": 100}
    pipeline(path, "out", source, engine=engine).run()
    assert_same("out", "right")


@EACH_KIND
def test_weights_of_a_fit_are_those_of_parquet(name: str) -> None:
    write, source = KINDS[name]
    layers = [{"type": "GRU", "units": 3}, {"type": "Dense", "units": 1}]
    tables = {
        "model": {"layers": layers},
        "target": {"column": "a", "rows": 1},
        "train": {"epochs": 1},
        "window": {"lanes": 4, "steps": 8},
    }
    for path, out, more in ((write_parquet(), "right", {}), (write(), "made", source)):
        config = logs.config(path, f"{out}.safetensors", out, source={"nulls": 0.0, **more})
        Pipeline.from_dict(
            {**config, **tables, "model": {**config["model"], "layers": layers}}
        ).fit()
    assert Path("made.safetensors").read_bytes() == Path("right.safetensors").read_bytes()


def test_a_csv_file_that_is_being_written_is_waited_for() -> None:
    """As long as its last line is not complete."""
    whole = "id,t,a,b\n" + "".join(f"s,2024-01-01 00:0{i}:00,1.5,2\n" for i in range(4))
    Path("in").mkdir()
    steps = [whole[:60], whole[:-5], whole]

    class Looks(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if not steps:
                self.set()
                return True
            assert not [*Path().glob("out/*.parquet")]
            Path("in/0.csv").write_text(steps.pop(0))
            os.utime("in/0.csv", (time.time() - 5000,) * 2)
            return False

    pipeline("in", "out", {"format": "csv"}).run(follow=True, poll=1000.0, stop=Looks())
    assert [row["steps"] for row in read_states("out").to_pylist()] == [4]


def test_a_run_resumes_within_a_csv_file_and_keeps_its_types() -> None:
    """A later file whose values look like integers has the types of the first."""
    Path("0.csv").write_text("id,t,a,b\nx,2024-01-01,1.5,2\n7,2024-01-02,2.5,2\n")
    Path("1.csv").write_text("id,t,a,b\n7,2024-01-03,3,2\n")
    assert pipeline("0.csv", "out", {}).run().rows == 2
    assert pipeline("?.csv", "out", {}).run().rows == 1
    assert pipeline("?.csv", "out", {}).run().rows == 0
    assert sorted(row["id"] for row in read_states("out").to_pylist()) == ["7", "x"]
    Path("2.csv").write_text("id,t,a,b\n7,noon,3,2\n")
    with pytest.raises(DataError, match=r"2\.csv: row 0 \(from 0\), line 2: column 't': expected "):
        pipeline("?.csv", "out", {}).run()
    Path("0.csv").write_text("id,t,a,b\nx,2024-01-01,1.5,3\n7,2024-01-02,2.5,2\n")
    Path("2.csv").unlink()
    with pytest.raises(CheckpointError, match=r"0\.csv: .* other values in its 2 rows"):
        pipeline("?.csv", "out", {}).run()


def test_a_log_that_only_grows_is_read_on() -> None:
    """Not after its end was read: rows may have been corrected. The message says what to do."""
    Path("0.csv").write_text("id,t,a,b\nx,2024-01-01,1.5,2\n")
    pipeline("0.csv", "out", {}).run()
    with Path("0.csv").open("a") as file:
        file.write("x,2024-01-02,1.5,2\n")
    with pytest.raises(CheckpointError, match="1 rows when it was read, 2 rows now"):
        pipeline("0.csv", "out", {}).run()


def test_types_are_fixed_and_checked() -> None:
    Path("0.csv").write_text("id,t,a,b\n7,2024-01-01,1.5,2\n")
    pipeline("0.csv", "out", {"types": {"id": "string"}}).run()
    assert read_states("out")["id"].to_pylist() == ["7"]
    with pytest.raises((ConfigError, CheckpointError), match=r"types"):
        pipeline("0.csv", "out", {"types": {"id": "int32"}}).run()
    with pytest.raises(ConfigError, match=r'id: expected "string", .* received the string "text"'):
        pipeline("0.csv", "out", {"types": {"id": "text"}})
    with pytest.raises(ConfigError, match="delimiter: expected one ASCII character"):
        pipeline("0.csv", "out", {"delimiter": ";;"})


@slow
def test_large_files_are_read_in_bounded_memory() -> None:
    """Block by block: Arrow reads at most 32 blocks of 1 MiB ahead, of a file of 120 MB.

    Slow: the memory of a large file.
    """
    line = "s1,7,1.5,2" + "," + "x" * 90 + "\n"
    Path("0.csv").write_text("id,t,a,b,text\n" + line * 1_200_000)
    source = FileSource(list_files("0.csv"), ["id", "text"], 4096)
    assert source.total_rows() == 1_200_000
    pool, most = pa.default_memory_pool(), 0
    for batch in source.batches():
        assert batch.batch.num_rows <= 4096
        most = max(most, pool.bytes_allocated())
    assert most < 48_000_000


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("delimiter", ";", r"delimiter is for CSV, but .* is Parquet"),
        ("null_values", ["-"], r"null_values is for CSV, but .* is Parquet"),
        ("version", 3, r"version is for Delta and Iceberg tables; parquet is neither"),
    ],
)
def test_keys_of_other_sources_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline(write_parquet(), "out", {key: value}).run()


@pytest.mark.parametrize("name", ["csv", "ndjson"])
def test_the_order_of_times_is_unknown_in_text(name: str) -> None:
    with pytest.raises(DataError, match=r'order = "time" requires the minimum of column .t.'):
        pipeline(write_text(name), "out", {"order": "time", "types": TYPES}).run()
