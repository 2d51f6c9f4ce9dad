"""The parser of Prometheus's own client reads what `--metrics` wrote; systemd reads its units."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import logs
import pytest
from readme import blocks

from streamrnn import Pipeline
from streamrnn.jobs.running import MetricsFile, Series

parser: Any = pytest.importorskip("prometheus_client.parser", reason="needs the oracles extra")


def families(path: Path) -> dict[str, Any]:
    return {each.name: each for each in parser.text_string_to_metric_families(path.read_text())}


def test_the_client_reads_each_metric_with_its_type_and_label(tmp_path: Path) -> None:
    weights, path = str(tmp_path / "m.safetensors"), tmp_path / "m.prom"
    logs.small_model().save(weights)
    logs.write(logs.random_log(100, streams=3), tmp_path / "in" / "a.parquet")
    config = logs.config(str(tmp_path / "in"), weights, str(tmp_path / "out"))
    Pipeline.from_dict(config).run(metrics=path)
    found = families(path)
    assert len(found) == 24
    for name, family in found.items():
        assert family.documentation
        counter = any(sample.name == f"{name}_total" for sample in family.samples)
        assert family.type == ("counter" if counter else "gauge")
        assert {sample.labels["pipeline"] for sample in family.samples} == {str(tmp_path / "out")}
    assert found["streamrnn_rows_read"].samples[0].value == 100
    assert len(found["streamrnn_phase_seconds"].samples) == 6


def test_the_client_reads_the_label_that_was_escaped(tmp_path: Path) -> None:
    path, name = tmp_path / "m.prom", 'a\\b "c"\nd.toml'
    MetricsFile(str(path), name).write({Series("commit"): 3})
    (sample,) = families(path)["streamrnn_commit"].samples
    assert (sample.labels, sample.value) == ({"pipeline": name}, 3)


def test_systemd_accepts_the_units_of_the_guide(tmp_path: Path) -> None:
    """With a command that exists: systemd, where it is installed, checks that, too."""
    service, timer = (
        block.text
        for block in blocks("streamrnn/guide/daily-job.md")
        if block.text.startswith("[Unit]")
    )
    command = "/srv/scores/venv/bin/streamrnn"
    assert command in service
    (tmp_path / "streamrnn.service").write_text(service.replace(command, sys.executable))
    (tmp_path / "streamrnn.timer").write_text(timer)
    for unit, sections in ((service, ["Unit", "Service"]), (timer, ["Unit", "Timer", "Install"])):
        read = configparser.ConfigParser(strict=False, interpolation=None)
        read.read_string(unit)
        assert read.sections() == sections
    if shutil.which("systemd-analyze") is None:
        return
    units = [str(tmp_path / "streamrnn.service"), str(tmp_path / "streamrnn.timer")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
