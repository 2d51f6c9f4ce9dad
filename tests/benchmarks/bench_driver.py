"""The driver of a run on a cluster, alone: what cutting, collecting and committing take.

    python tests/benchmarks/bench_driver.py [--shards N] [--epochs N] [--markdown FILE …]

Tasks are not run: their results are recorded facts of tiny files, whose writing is not counted. An
epoch has 20,000,000 rows in files of 1,000,000. *share* compares the driver's seconds an epoch with
what 16 workers take for its rows, at CPU_A_ROW. Ray's own part of the driver (submission of tasks,
their results) is not in it.
"""

import resource
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench_pipeline
import pyarrow as pa
import pyarrow.parquet as pq
import timing

from streamrnn import Pipeline
from streamrnn.jobs.engines import opening
from streamrnn.jobs.engines.shard import Outcome, ShardTask
from streamrnn.jobs.engines.splitting import RowRange, Split
from streamrnn.stream.checkpoints import Facts, Shard, StateFile
from streamrnn.stream.scoring import Summary
from streamrnn.stream.sinks import StagedPart
from streamrnn.stream.sources import Content, Reading

EPOCH_ROWS, FILE_ROWS, WORKERS = 20_000_000, 1_000_000, 16
CPU_A_ROW = 2.6e-6
"""Seconds; bench_engines.py measures it."""


class Recorded:
    """Tasks whose results are known: `seconds` is the time taken to write their files."""

    workers = WORKERS

    def __init__(self, out: Path) -> None:
        self.out = out
        self.seconds = 0.0

    def begin(self, bound: object, source: object) -> None: ...

    def check_nodes(self, *_: object) -> None: ...

    def put(self, state: pa.Table) -> pa.Table:
        return state

    def split(self, row_range: RowRange, shards: int) -> tuple[Split, list[None]]:
        rows = row_range.rows // shards
        readings = {f.name: Reading(Content(FILE_ROWS, 1, 0, 1)) for f in row_range.files}
        heavy = {shard: (rows // 100, f"id=stream-{shard}") for shard in range(4)}
        found = Split([rows] * shards, readings, bytes=row_range.rows * 66, heavy=heavy)
        return found, [None] * shards

    def score(
        self, task: ShardTask, before: Outcome, state: object, chunks: Sequence[None]
    ) -> tuple[Outcome, None]:
        began = time.perf_counter()
        name = f"{task.commit:05d}-{task.shard:03d}-{secrets.token_hex(8)}"
        inside = self.out / "_streamrnn"
        (inside / "staging" / f"_{name}.parquet.tmp").write_bytes(b"PAR1")
        (inside / f"_state-{name}.arrow").write_bytes(b"ARROW1")
        part = StagedPart(f"_{name}.parquet.tmp", 78_000, 4, "0" * 64)
        state_file = StateFile(f"_state-{name}.arrow", 390_000, 6, "0" * 64)
        facts = Facts(task.commit, task.shard, {"rows": (part,)}, Shard(390_000, (state_file,)))
        outcome = Outcome(task.shard, facts, summary=Summary(rows=78_000, rows_out=78_000))
        outcome.streams, outcome.seconds = 390_000, 0.2
        self.seconds += time.perf_counter() - began
        return outcome, None

    def ready(self, handles: Sequence[Outcome]) -> list[Outcome]:
        return list(handles[:WORKERS])  # as many as finish together

    def get(self, handle: Any) -> Any:
        return handle

    def cancel(self) -> None: ...

    def close(self) -> None: ...


def make_source(folder: Path, files: int) -> None:
    """Files whose footers say that they have so many rows; their one column takes no space."""
    folder.mkdir()
    schema = pa.schema([("id", pa.string()), *[(n, pa.float32()) for n in bench_pipeline.NAMES]])
    columns = [pa.nulls(FILE_ROWS, field.type) for field in schema]
    table = pa.Table.from_arrays(columns, schema=schema)
    first = folder / "00000.parquet"
    pq.write_table(table, first, row_group_size=FILE_ROWS // 4)
    for index in range(1, files):
        (folder / f"{index:05d}.parquet").write_bytes(first.read_bytes())


def bench(shards: int, epochs: int, base: Path) -> list[str]:
    make_source(base / "log", epochs * EPOCH_ROWS // FILE_ROWS)
    bench_pipeline.make_model(base / "m.safetensors")
    out = base / "out"
    tasks = Recorded(out)
    opening.__dict__["load_plugin"] = lambda *_: lambda *_: tasks
    config = {
        "source": {"path": str(base / "log"), "key": "id", "features": bench_pipeline.NAMES},
        "model": {"path": str(base / "m.safetensors")},
        "sink": {"path": str(out)},
        "engine": {"type": "ray", "shards": shards, "epoch_rows": EPOCH_ROWS},
    }
    pipeline = Pipeline.from_dict(config)
    pipeline.loaded  # noqa: B018 - loaded before the clock starts
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    summary = pipeline.run()
    total = time.perf_counter() - began - tasks.seconds
    each = (summary.seconds - tasks.seconds) / summary.commits
    wall = EPOCH_ROWS * CPU_A_ROW / WORKERS
    manifest = sum(
        file.stat().st_size
        for file in (out / "_streamrnn").iterdir()
        if file.name.startswith(("_manifest", "_parts", "_sources"))
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return [
        f"{shards}",
        f"{summary.commits}",
        f"{total:.1f}",
        f"{each * 1000:.0f}",
        f"{wall:.1f}",
        f"{each / wall:.1%}",
        f"{manifest / 1e6:.1f}",
        f"{(peak - before) / 1000:.0f}",
    ]


HEAD = ("shards", "epochs", "driver s, in all", "ms an epoch", "s an epoch of 16 workers", "share",
        "manifest and segments MB", "memory MB, added")  # fmt: skip


def main() -> None:
    arguments = timing.parser_of(__doc__, shards=256, epochs=50).parse_args()
    with tempfile.TemporaryDirectory() as base:
        line = bench(arguments.shards, arguments.epochs, Path(base))
    text = f"{timing.machine('pyarrow')}.\n\n{timing.table(HEAD, [line])}"
    timing.publish({"driver": text}, arguments.markdown)


if __name__ == "__main__":
    main()
