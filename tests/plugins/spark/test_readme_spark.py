"""The block of the guide that needs Spark."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("pyspark", reason="needs the engines extra")
from readme import blocks, make_demo, run_python


def test_the_block_in_spark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, with the session that it makes."""
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    options = ["spark.driver.bindAddress=127.0.0.1", "spark.ui.enabled=false", "spark.master=local"]
    options.append("spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1")
    conf = " ".join(f"--conf {option}" for option in options)
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"{conf} pyspark-shell")
    (block,) = [b for b in blocks("streamrnn/guide/many-machines.md") if b.needs == ["pyspark"]]
    printed = run_python(block.text, make_demo(tmp_path))
    assert printed == "3 ['origin', 'time_hour', 'temp', 'temp_3h']\n"
