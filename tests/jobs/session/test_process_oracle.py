"""Pipeline.process on what pandas and DuckDB give, and a pipe from DuckDB."""

import subprocess
import sys
from pathlib import Path

import logs
import pytest

from streamrnn import Pipeline

duckdb = pytest.importorskip("duckdb", reason="needs the oracles extra")
pandas = pytest.importorskip("pandas", reason="needs the oracles extra")
MAIN = "from streamrnn.cli import main; main()"


def test_frames_and_relations_are_arrow_data(tmp_path: Path) -> None:
    logs.small_model().save(tmp_path / "m.safetensors")
    config = logs.config("unused", str(tmp_path / "m.safetensors"), None)
    config["source"].pop("path")
    table = logs.random_log(80)
    expected = Pipeline.from_dict(config).process(table).column("score")
    frame = table.select(["id", "t", "a", "b"]).to_pandas()
    assert Pipeline.from_dict(config).process(frame).column("score") == expected
    source = logs.write(table, tmp_path / "log.parquet")
    found = duckdb.sql(f"SELECT id, t, a, b FROM '{source}'")
    assert Pipeline.from_dict(config).process(found).column("score") == expected


def test_a_pipe_from_duckdb_to_duckdb(tmp_path: Path) -> None:
    """duckdb | streamrnn run | duckdb, as Arrow streams; the reader is slow to begin."""
    logs.small_model().save(tmp_path / "m.safetensors")
    source = logs.write(logs.random_log(5000, streams=40), tmp_path / "log.parquet")
    (tmp_path / "p.toml").write_text(
        '[source]\npath = "-"\nkey = "id"\ntime = "t"\nfeatures = ["a", "b"]\nbatch_rows = 500\n'
        '[model]\npath = "m.safetensors"\n[sink]\npath = "-"\n'
    )
    write = (
        "import duckdb, pyarrow as pa, sys\n"
        f"t = duckdb.sql(\"SELECT id, t, a, b FROM '{source}'\").to_arrow_table()\n"
        "w = pa.ipc.new_stream(sys.stdout.buffer, t.schema); w.write_table(t); w.close()"
    )
    read = (
        "import duckdb, pyarrow as pa, sys, time; time.sleep(1)\n"
        "t = pa.ipc.open_stream(sys.stdin.buffer).read_all()\n"
        "print(duckdb.sql('SELECT count(*), count(score) FROM t').fetchall())"
    )
    one = subprocess.Popen([sys.executable, "-c", write], stdout=subprocess.PIPE)
    two = subprocess.Popen(
        [sys.executable, "-c", MAIN, "run", "p.toml", "-q"],
        stdin=one.stdout,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
    )
    three = subprocess.run(
        [sys.executable, "-c", read], stdin=two.stdout, capture_output=True, text=True, check=False
    )
    assert three.returncode == 0, three.stderr
    for process in (one, two):
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(300) == 0
    assert three.stdout.strip() == "[(5000, 5000)]"
