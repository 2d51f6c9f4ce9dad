"""Kernels compiled before the first run: `streamrnn compile`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import logs
import pyarrow.dataset as ds
import pytest
from selection import slow

from streamrnn import Pipeline, layers
from streamrnn.errors import ConfigError
from streamrnn.models import Sequential, example_inputs
from streamrnn.nn import kernels
from streamrnn.nn.simd import jit
from streamrnn.stream.scoring import loop

MAIN = "from streamrnn.cli import main; main()"
PIPELINE = """
[source]
path = "log.parquet"
key = "id"
time = "t"
features = ["a", "b"]
[model]
path = "m.safetensors"
[sink]
path = "out"
"""


@pytest.fixture(autouse=True)
def place(model_dir: Path) -> None:
    """A folder with a pipeline, its model and its log."""
    logs.write(logs.random_log(), Path("log.parquet"))
    Path("p.toml").write_text(PIPELINE)


def _start(*arguments: str) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "XDG_CACHE_HOME": "cache"}
    return subprocess.Popen([sys.executable, "-c", MAIN, *arguments], env=environment, **pipes)


def _end(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


def _kept() -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path("cache").rglob("*.*")}


@slow
def test_a_run_after_it_compiles_nothing_though_several_filled_one_cache() -> None:
    """Three at once that find it empty; one that finds a damaged kernel; then a run, with the rows
    of one that had kernels of its own. Slow: processes that compile the same kernels at the same
    time."""
    for process in [_start("compile", "p.toml", "--json") for _ in range(3)]:
        found = json.loads(_end(process))
        assert Path(found["folder"]).resolve().is_relative_to(Path("cache").resolve())
    assert sum(name.endswith(".bin") for name in _kept()) == found["kernels"]
    assert not [name for name in _kept() if name.endswith(".tmp")]
    next(Path("cache").rglob("gru*.bin")).write_bytes(b"\0" * 100)
    assert json.loads(_end(_start("compile", "p.toml", "--json")))["new"] == 1
    assert "0 of them compiled now" in _end(_start("compile", "p.toml"))
    before = _kept()
    _end(_start("run", "p.toml"))
    assert _kept() == before
    rows = ds.dataset("out").to_table()
    Pipeline.from_toml("p.toml").run(full_refresh=True)
    assert ds.dataset("out").to_table().equals(rows)


def test_where_nothing_can_be_kept_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "kept", lambda: {"lstm": None, "keys": Path("p.toml")})
    with pytest.raises(ConfigError, match=r"^1 of 2 compiled kernels could not be saved: set XDG"):
        Pipeline.from_toml("p.toml").compile_kernels()


@pytest.mark.parametrize("kind", ["carry", "independent", "whole"])
def test_each_kind_of_window_runs_its_model_for_it(kind: str) -> None:
    """In Python as on the command line. (What a process has loaded is not compiled again.)"""
    cuts = ["window.steps=3"] if kind == "independent" else []
    pipeline = Pipeline.from_toml("p.toml", [f"window.kind={kind}", *cuts])
    assert isinstance(pipeline.compile_kernels(), kernels.Compiled)
    assert pipeline.compile_kernels().new == 0


def test_a_model_gets_values_that_its_lookups_know() -> None:
    """Else one without numbers for unknown values would refuse them."""
    lookup = layers.StringLookup(vocabulary=["x", "y"], num_oov_indices=0, mask_token=None)
    model = Sequential([layers.Input((None,), dtype="string"), lookup, layers.Embedding(2, 3)])
    (array,) = example_inputs(model, 2, 3)
    assert array.tolist() == [["x"] * 3] * 2
    outer = Sequential([layers.Input((None,), dtype="string"), model, layers.SimpleRNN(2)])
    assert outer(*example_inputs(outer, 2, 3)).shape == (2, 2)


def test_a_run_counts_the_seconds_in_which_it_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that pass while it scores; a kernel from before is not its own."""
    clock = iter([5.0, 7.5, *[9.0] * 99])
    monkeypatch.setattr(loop, "seconds_compiling", lambda: next(clock))
    logs.small_model("LSTM", units=3).save(tmp_path / "m.safetensors")
    logs.write(logs.random_log(60, streams=3), tmp_path / "in/0.parquet")
    config = logs.config(str(tmp_path / "in"), str(tmp_path / "m.safetensors"), str(tmp_path / "o"))
    config["source"]["batch_rows"] = 20
    assert Pipeline.from_dict(config).run().seconds_compiling == 4.0
