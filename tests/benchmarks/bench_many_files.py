"""Many small files and many commits: a first run, the run of a day without news, and a start.

    python tests/benchmarks/bench_many_files.py [--files 100000] [--commits 10000] [--quick]
        [--markdown FILE …]

The files have 20 rows of 3 columns each; the model is LSTM(4). Each line is a whole process, with
its processor time and its peak of memory. pyarrow opens and reads the same files, and does nothing
with them. The output of the last lines has a commit for each record batch of one file, with a part
of rows and one of rejects; its files are not synced, which would be the time of the disk.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timing

from streamrnn import Pipeline, Sequential, layers
from streamrnn.base.storage.local import Disk, LocalFiles
from streamrnn.stream.checkpoints import OutputFolder, read_manifest

ROOT = Path(__file__).parents[2]
ROWS = 20
READ = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
for path in sorted(Path(sys.argv[1]).iterdir()):
    pq.ParquetFile(path).read()
"""
RUN = "from streamrnn.cli import main; main()"


class Cost(NamedTuple):
    """Of one process: seconds, processor seconds, and its largest memory in MB."""

    seconds: float
    cpu: float
    memory: float


class HastyDisk(Disk):
    """Syncs nothing."""

    def sync(self, descriptor: int) -> None:
        pass


def make_files(folder: Path, first: int, last: int, late: bool = False) -> None:
    """Files `first` to before `last`: rows of 10 streams in order; with `late`, one row is not."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(7)
    for number in range(first, last):
        times = np.arange(number * ROWS, (number + 1) * ROWS)
        times[-1] -= 15 * late
        columns = {"id": [f"s{row % 10}" for row in range(ROWS)], "t": times}
        table = pa.table({**columns, "x": rng.normal(size=ROWS)})
        pq.write_table(table, folder / f"{number:06d}.parquet")


def config(base: Path, source: str, out: str) -> dict[str, dict[str, object]]:
    return {
        "source": {"path": str(base / source), "key": "id", "time": "t", "features": ["x"]},
        "model": {"path": str(base / "model.safetensors")},
        "sink": {"path": str(base / out)},
    }


def cost(code: str, *arguments: str) -> Cost:
    """Run Python code in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, arguments
    seconds = time.perf_counter() - began
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def run(base: Path, tables: dict[str, dict[str, object]]) -> Cost:
    """`streamrnn run`, as a user would."""
    text = "".join(
        f"[{table}]\n" + "".join(f"{key} = {value!r}\n" for key, value in keys.items())
        for table, keys in tables.items()
    )
    (base / "pipeline.toml").write_text(text)
    return cost(RUN, "run", str(base / "pipeline.toml"), "--quiet")


def bench_files(base: Path, files: int) -> list[list[str]]:
    """A table's lines of runs over many files."""
    make_files(base / "few", 0, 100)
    run(base, config(base, "few", "warm"))  # compiles
    make_files(base / "in", 0, files)
    tables = config(base, "in", "out")
    found = {f"pyarrow reads {files:,} files": cost(READ, str(base / "in"))}
    found["first run"] = run(base, tables)
    found["run, nothing new"] = run(base, tables)
    make_files(base / "in", files, files + 1)
    found["run, one new file"] = run(base, tables)
    assert len(read_manifest(str(base / "out")).sources) == files + 1
    (reading, first, *_) = found.values()
    print(f"first run: {first.cpu / reading.cpu:.2f} of pyarrow's processor time")
    return [line(name, item, item.seconds / files * 1000) for name, item in found.items()]


def bench_commits(base: Path, commits: int) -> list[list[str]]:
    """A table's lines of an output with many commits and parts."""
    make_files(base / "late", 0, commits, late=True)
    tables = config(base, "late", "parts")
    tables["source"] |= {"batch_rows": ROWS, "late": "reject", "max_rejects": commits + 1}
    tables["checkpoint"] = {"every": 1}
    LocalFiles.disk = HastyDisk()
    began = time.perf_counter()
    Pipeline.from_dict(tables).run()
    seconds = time.perf_counter() - began
    manifest = read_manifest(str(base / "parts"))
    parts = len(manifest.parts) + len(manifest.named("rejects").parts)
    assert (manifest.commit, parts) == (commits, 2 * commits)
    print(f"{commits:,} commits: {seconds:.1f} s, {seconds / commits * 1000:.1f} ms each")
    began = time.perf_counter()
    with OutputFolder.open(str(base / "parts")):
        print(f"opened in {time.perf_counter() - began:.2f} s")
    name = f"run, nothing new, {commits:,} commits, {parts:,} parts"
    return [line(name, run(base, tables), None)]


def line(name: str, found: Cost, per_file: float | None) -> list[str]:
    shown = "" if per_file is None else f"{per_file:.2f}"
    return [name, f"{found.seconds:.1f}", f"{found.cpu:.1f}", shown, f"{found.memory:.0f}"]


def main() -> None:
    parser = timing.parser_of(__doc__, files=100_000, commits=10_000)
    parser.add_argument("--quick", action="store_true", help="2,000 files and 300 commits")
    options = parser.parse_args()
    files, commits = (2_000, 300) if options.quick else (options.files, options.commits)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        model = [layers.Input((None, 1)), layers.LSTM(4, return_sequences=True, name="lstm")]
        Sequential(model).save(base / "model.safetensors")
        rows = [*bench_files(base, files), *bench_commits(base, commits)]
    head = ["", "seconds", "cpu seconds", "ms a file", "peak MB"]
    text = f"{timing.machine('pyarrow')}\n\n{timing.table(head, rows)}"
    timing.publish({"many files": text}, options.markdown)


if __name__ == "__main__":
    main()
