"""Four days of the weather log, one folder each, and jobs that are killed at one of their steps."""

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
DAYS = ("2013-01-02", "2013-01-03", "2013-01-04", "2013-01-05")
COLUMNS = 'columns = ["origin", "time_hour", "temp"]'
# A process that dies by SIGKILL before or after the n-th call of a function.
KILLER = """
import os, pkgutil, runpy, signal, sys
target, when, n = sys.argv[1:4]
owner, _, step = target.rpartition(".")
owner = pkgutil.resolve_name(owner)
original, calls = getattr(owner, step), 0
def wrapped(*args, **kwargs):
    global calls
    calls += 1
    if calls == int(n) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*args, **kwargs)
    if calls == int(n) and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, step, wrapped)
sys.argv = sys.argv[4:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def load(name: str) -> ModuleType:
    """Import a script of pipelines/etl."""
    spec = spec_from_file_location(name, ROOT / "pipelines" / "etl" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_log(folder: Path) -> Path:
    """Write each day as two files; give the folder back."""
    log = pq.read_table(ROOT / "data" / "weather.parquet")
    day = pc.strftime(log["time_hour"], format="%Y-%m-%d")
    for name in DAYS:
        rows = log.filter(pc.equal(day, name))
        assert len(rows) == 72
        partition = folder / f"date={name}"
        partition.mkdir(parents=True)
        for first in (0, 36):
            pq.write_table(rows.slice(first, 36), partition / f"{first}.parquet")
    return folder


def write_pipeline(path: Path, source: Path, sink: Path, tables: str = "") -> Path:
    """Write the weather pipeline with another source and sink; `tables` are added to it."""
    text = (ROOT / "pipelines" / "weather.toml").read_text()
    assert COLUMNS in text
    for old, new in (
        ("data/weather.parquet", str(source)),
        ("pipelines/weather/", f"{ROOT}/pipelines/weather/"),
        ("out/weather", str(sink)),
    ):
        assert f'"{old}' in text
        text = text.replace(f'"{old}', f'"{new}')
    path.write_text(f"{text}\n{tables}\n")
    return path


def killed(step: tuple[str, str, int], job: ModuleType, *arguments: object) -> int:
    """Run a job as a script, killed before or after the n-th call of a function; its status."""
    command = ["-c", KILLER, *map(str, step), str(job.__file__), *map(str, arguments)]
    return subprocess.run([sys.executable, *command], check=False, env=environment()).returncode


def at_once(job: Path, *arguments: tuple[object, ...]) -> list[tuple[int, str]]:
    """Run a script once for each arguments, all at the same time; statuses and errors."""
    jobs = [
        subprocess.Popen(
            [sys.executable, str(job), *map(str, each)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in arguments
    ]
    errors = [job.communicate()[1] for job in jobs]
    return [(job.returncode, error) for job, error in zip(jobs, errors, strict=True)]


def environment() -> dict[str, str]:
    """The environment of a process that imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def bits(table: pa.Table) -> pa.Table:
    """The same rows, with forecasts as integers: `==` of floats would pass -0.0 for 0.0."""
    column = table["temp_3h"].combine_chunks()
    index = table.column_names.index("temp_3h")
    return table.set_column(index, "temp_3h", column.view(pa.int32())).combine_chunks()
