"""What the start of a run imports, and that the garbage collector does not pass over it.

`tests/benchmarks/bench_start.py` measures the seconds.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import logs
import pytest
from jobs.fitting import fits
from selection import slow

from streamrnn import Pipeline

ROOT = Path(__file__).parents[2]
REPORTS = """
import atexit, gc, json, sys
def passes():
    return sum(generation["collections"] for generation in gc.get_stats())
from streamrnn.cli import main
before = passes()
def report():
    found = {"modules": list(sys.modules), "passes": passes() - before, "left": gc.get_count()[0]}
    print(json.dumps(found))
try:
    main()
finally:
    report()
"""
NOT_NEEDED = (
    "numba.np.arrayobj", "numba.cpython.unicode",  # to compile code with arrays and texts
    "pandas", "pyarrow.dataset", "pyarrow.flight",
    "h5py", "onnx", "ray", "pyspark", "deltalake", "pyiceberg", "vl_convert", "rich",
    "starlette", "uvicorn", "uvloop",
    "streamrnn.nn.training", "streamrnn.jobs.fitting", "streamrnn.plugins",
    "streamrnn.nn.formats.keras",
)  # fmt: skip
MOST_OWN = 400
"""Modules of streamrnn, each of which takes 0.2 ms or more."""


def _start(sink: Path) -> dict[str, Any]:
    """Run the weather pipeline in a process of its own; return what it reports at its end."""
    arguments = ["run", "pipelines/weather.toml", "--quiet", "--set", f"sink.path={sink}"]
    done = subprocess.run(
        [sys.executable, "-c", REPORTS, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run reports whose kernels are on disk."""
    folder = tmp_path_factory.mktemp("start")
    _start(folder / "cold")
    return _start(folder / "warm")


def test_a_warm_run_imports_only_what_it_needs(warm: dict[str, Any]) -> None:
    modules = warm["modules"]
    assert [name for name in NOT_NEEDED if name in modules] == []
    assert {"numba", "pyarrow.parquet", "streamrnn.nn.simd.recurrent"} <= set(modules)
    assert len([name for name in modules if name.startswith("streamrnn")]) <= MOST_OWN


def test_the_garbage_collector_passes_over_no_module_that_a_run_imports(
    warm: dict[str, Any],
) -> None:
    assert warm["passes"] == 0
    assert warm["left"] > 100_000  # objects that a pass would look at


def _cycles(work: Callable[[], object]) -> int:
    """Return the number of objects that only the garbage collector frees after `work`."""
    gc.collect()
    gc.disable()
    try:
        work()
        return gc.collect()
    finally:
        gc.enable()


@slow
def test_record_batches_leave_no_cycles(tmp_path: Path) -> None:
    """So memory does not grow while the command collects rarely. Twice, the less counts: threads
    of earlier tests may end meanwhile.

    Slow: the garbage of runs.
    """
    logs.write(logs.random_log(), tmp_path / "in" / "a.parquet", row_group=10)
    model = str(tmp_path / "m.safetensors")
    logs.small_model().save(model)

    def run(batch_rows: int, number: int = 0) -> None:
        source = {"batch_rows": batch_rows, "nulls": "previous"}
        out = str(tmp_path / f"out{batch_rows}-{number}")
        Pipeline.from_dict(logs.config(str(tmp_path / "in"), model, out, source=source)).run()

    def least(batch_rows: int) -> int:
        return min(_cycles(partial(run, batch_rows, number)) for number in range(2))

    run(300)
    assert least(20) <= least(100) + 20


@slow
def test_epochs_leave_no_cycles(tmp_path: Path) -> None:
    """Slow: the garbage of a fit."""

    def fit(epochs: int) -> None:
        train = {**fits.config(tmp_path)["train"], "epochs": epochs}
        fits.fit(tmp_path, {"train": train}, full_refresh=True)

    fit(1)
    assert _cycles(lambda: fit(8)) <= _cycles(lambda: fit(2)) + 20


def test_the_collector_of_a_host_process_stays_as_it_is() -> None:
    """A program that calls `main` with arguments keeps its threshold."""
    code = """
import gc
from streamrnn.cli import main
before = gc.get_threshold()
try:
    main(["--version"])
except SystemExit:
    pass
assert gc.get_threshold() == before and gc.get_freeze_count() == 0
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
