"""CPU seconds of a Spark job, beside those of the same job without scoring and of a local run.

    python tests/benchmarks/bench_spark.py [--rows N] [--streams N] [--rounds N] [--markdown FILE …]

8 float features, LSTM(64) and Dense(1), string keys, streams interleaved by time; the state of all
streams comes from a job before. On local[2]: `identity` reads state and rows, exchanges them by
key, sorts them, and writes what an identity `mapInArrow` returns; `score` reads, exchanges and
sorts the same, and writes scored rows and the new state. `local` is a run of the same pipeline.
CPU seconds are those of the JVM and its Python workers (Linux), after one job of each to warm up.
Needs `pip install -e '.[spark]'` and Java 17.
"""

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench_pipeline
import timing

ORDER = ["_metadata.file_path", "_metadata.row_index"]
TICKS = os.sysconf("SC_CLK_TCK")


def session() -> Any:
    from pyspark.sql import SparkSession

    os.environ |= {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    options = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "4g",
        "spark.log.level": "ERROR",
    }
    builder = SparkSession.builder.master("local[2]")
    for name, value in options.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def tree_seconds() -> dict[str, float]:
    """CPU seconds of the JVM, and of its Python workers, those that have ended too."""
    found: dict[int, tuple[int, str, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        found[int(path.parent.name)] = (int(fields[1]), name, sum(map(int, fields[11:15])) / TICKS)
    seconds = {"java": 0.0, "python": 0.0}
    for pid, (_, name, spent) in found.items():
        if pid != os.getpid() and os.getpid() in _parents(pid, found):
            seconds["java" if name == "java" else "python"] += spent
    return seconds


def _parents(pid: int, found: dict[int, tuple[int, str, float]]) -> Iterator[int]:
    while pid in found:
        pid = found[pid][0]
        yield pid


def identity(spark: Any, source: Path, state: Path, out: Path, parts: int) -> Callable[[], None]:
    """The plan of `score`, with a function that returns what it receives."""
    from pyspark.sql import functions as f

    def run() -> None:
        rows = spark.read.parquet(str(source))
        before = spark.read.parquet(str(state))
        own = [name for name in before.columns if name != "id"]
        columns = [c for c in rows.columns if c != "id"]
        data = rows.select(
            f.lit(1).cast("tinyint").alias("kind"),
            "id",
            *columns,
            f.col(ORDER[0]).alias("file"),
            f.col(ORDER[1]).alias("row"),
            *(f.lit(None).cast(before.schema[n].dataType).alias(f"state_{n}") for n in own),
        )
        blank = [f.lit(None).cast(rows.schema[n].dataType).alias(n) for n in columns]
        order = [f.lit(None).cast("string").alias("file"), f.lit(None).cast("long").alias("row")]
        streams = before.select(
            f.lit(0).cast("tinyint").alias("kind"),
            "id",
            *blank,
            *order,
            *(f.col(f"`{n}`").alias(f"state_{n}") for n in own),
        )
        both = streams.union(data).repartition(parts, "id")
        both = both.sortWithinPartitions(f.asc_nulls_first("file"), "kind", "row")
        both = both.mapInArrow(lambda batches: batches, both.schema)
        # As much as `score` writes: a row has two columns and a number, a stream its state.
        kept = ["kind", "id", "t", "x0", *(f"`state_{n}`" for n in own)]
        both.select(*kept).write.mode("overwrite").parquet(str(out))

    return run


def scored(
    spark: Any, source: Path, state: Path | None, pipeline: Any, out: Path, parts: int
) -> Callable[[], None]:
    from streamrnn.spark import score

    def run() -> None:
        rows = spark.read.parquet(str(source))
        before = None if state is None else spark.read.parquet(str(state))
        result = score(rows, pipeline, before, ORDER, partitions=parts)
        result.state.write.mode("overwrite").parquet(str(out / "state"))
        result.rows.write.mode("overwrite").parquet(str(out / "rows"))
        result.unpersist()

    return run


def local(source: Path, state: Path, model: Path, out: Path) -> Callable[[], None]:
    from streamrnn import Pipeline

    def run() -> None:
        shutil.rmtree(out, ignore_errors=True)
        Pipeline.from_dict(config(source, model, out), state=state).run()

    return run


def config(source: Path, model: Path, out: Path) -> dict[str, Any]:
    names = bench_pipeline.NAMES
    return {
        "source": {"path": str(source), "key": "id", "time": "t", "features": names},
        "model": {"path": str(model)},
        "output": {"names": ["y"]},
        "sink": {"path": str(out)},
    }


def measured(side: Callable[[], None]) -> tuple[float, ...]:
    """Seconds, and CPU seconds of the JVM, of Python workers and of this process."""
    began, before, own = (
        time.perf_counter(),
        tree_seconds(),
        resource.getrusage(resource.RUSAGE_SELF),
    )
    side()
    after, spent = tree_seconds(), resource.getrusage(resource.RUSAGE_SELF)
    mine = spent.ru_utime + spent.ru_stime - own.ru_utime - own.ru_stime
    workers = after["python"] - before["python"]
    return time.perf_counter() - began, after["java"] - before["java"], workers, mine


def check_same(ours: Path, other: Path) -> None:
    """Raise AssertionError unless two outputs have the same bits, stream by stream."""
    import pyarrow.parquet as pq

    order = [("id", "ascending"), ("t", "ascending")]
    left, right = (pq.read_table(path).select(["id", "t", "y"]) for path in (ours, other))
    assert left.sort_by(order).equals(right.cast(left.schema).sort_by(order))


HEAD = ["job", "seconds", "CPU s, JVM", "CPU s, Python workers", "CPU s, sum"]


def main() -> None:
    arguments = timing.parser_of(
        __doc__, rows=1_000_000, streams=100_000, rounds=3, partitions=4
    ).parse_args()
    spark = session()
    with tempfile.TemporaryDirectory() as name:
        lines = bench(spark, Path(name), arguments)
    spark.stop()
    timing.publish(
        {"spark": "\n\n".join([timing.machine("pyspark", "pyarrow"), *lines])}, arguments.markdown
    )


def bench(spark: Any, base: Path, arguments: argparse.Namespace) -> list[str]:
    from streamrnn import Pipeline
    from streamrnn.spark import state_to_arrow
    from streamrnn.states import write_state_file

    first, source, model = base / "first.parquet", base / "log.parquet", base / "model.safetensors"
    bench_pipeline.make_log(first, arguments.streams, arguments.streams)
    bench_pipeline.make_log(source, arguments.rows, arguments.streams)
    bench_pipeline.make_model(model)
    pipeline = Pipeline.from_dict(config(source, model, base / "unused"))
    parts, state = arguments.partitions, base / "day1" / "state"
    scored(spark, first, None, pipeline, base / "day1", parts)()
    table = base / "state.parquet"
    write_state_file(state_to_arrow(spark.read.parquet(str(state))), str(table))
    sides = {
        "identity": identity(spark, source, state, base / "identity", parts),
        "score": scored(spark, source, state, pipeline, base / "scored", parts),
        "local": local(source, table, model, base / "local"),
    }
    for side in sides.values():
        side()
    check_same(base / "scored" / "rows", base / "local")
    rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            rounds[name].append(measured(side))
            print(name, [f"{s:.2f}" for s in rounds[name][-1]], file=sys.stderr, flush=True)
    median = {
        name: [statistics.median(column) for column in zip(*found, strict=True)]
        for name, found in rounds.items()
    }
    spent = {n: m[3] if n == "local" else m[1] + m[2] for n, m in median.items()}
    rows = [
        [
            n,
            f"{m[0]:.1f}",
            *(("", "") if n == "local" else (f"{m[1]:.1f}", f"{m[2]:.1f}")),
            f"{spent[n]:.1f}",
        ]
        for n, m in median.items()
    ]
    ratio = spent["score"] / (spent["identity"] + spent["local"])
    caption = f"{arguments.rows:,} rows, {arguments.streams:,} streams"
    return [caption, timing.table(HEAD, rows), f"score / (identity + local): {ratio:.2f}"]


if __name__ == "__main__":
    main()
