"""A run with nothing but an output folder in it: what it writes depends on the state it carries."""

import glob
import os
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.stream.checkpoints import OutputFolder, Snapshot, load_state
from streamrnn.stream.sinks import partition_values
from streamrnn.stream.sources import Position

SCHEMA = pa.schema([("stream", pa.int64()), ("seen", pa.int64())])
REJECTS = pa.schema([("reason", pa.string()), ("row", pa.int64())])
STEPS = 5


def rows_of(step, seen):
    """The rows of a step, and `seen` after them: streams 0, step and a new one are dirty."""
    dirty = np.unique([0, step, len(seen)])
    seen = np.concatenate([seen, [0]])
    seen[dirty] += 1
    batch = pa.record_batch([pa.array(dirty), pa.array(seen[dirty])], schema=SCHEMA)
    return batch, dirty, seen


def run(
    path,
    *,
    steps=STEPS,
    keep=1,
    full_refresh=False,
    one_run=False,
    partition_by=(),
    where="",
    more=MappingProxyType({}),
    say=lambda commit: None,
):
    """Run to the end, from wherever the folder stands; the odd steps reject a row.

    Each commit counts as the end of a run, unless it is `one_run`. `more` are keys of the config.
    """
    config = {"source.key": ["stream"], "sink.partition_by": partition_by}
    config |= {"alerts.where": where, **more}
    with OutputFolder.open(str(path), keep=keep, full_refresh=full_refresh) as folder:
        folder.begin(SCHEMA, model="model", config=config)
        start = folder.manifest.counters["steps"] if folder.manifest else 0
        table = folder.load_state()
        seen = np.zeros(4, np.int64) if table is None else table["seen"].to_numpy()
        for step in range(start, steps):
            batch, dirty, seen = rows_of(step, seen)
            folder.write(batch)
            if step % 2:
                folder.reject(pa.record_batch([["odd"], [step]], schema=REJECTS))

            def state(rows, seen=seen):
                rows = np.arange(len(seen)) if rows is None else rows
                return pa.table({"stream": rows, "seen": seen[rows]})

            manifest = folder.commit(
                position=Position("log.parquet", 0, step, step, False),
                state=Snapshot(len(seen), dirty if step else None, state),
                counters={"steps": step + 1},
                complete=step == steps - 1,
                end_of_run=not one_run or step == steps - 1,
            )
            say(manifest.commit)
        return folder.recovered


def acts(run, steps):
    """Runs to the end: one that retains its commits, one that does not, one that starts over."""
    plain = partial(run, steps=steps)
    return partial(plain, keep=3), plain, partial(plain, full_refresh=True)


def visible(path):
    """All rows that a reader who globs finds, in the order of the part numbers."""
    names = glob.glob("**/*.parquet", root_dir=str(path), recursive=True)
    return [
        (*map(int, partition_values(name).values()), *row.values())
        for name in sorted(names, key=os.path.basename)
        for row in pq.ParquetFile(f"{path}/{name}").read().to_pylist()
    ]


def outcome(path):
    """Everything that a run leaves for others: rows, rejects, state."""
    return visible(path), visible(f"{path}.rejects"), load_state(str(path)).to_pydict()


def expected(steps=STEPS):
    """The same, worked out without a folder."""
    rows, seen = [], np.zeros(4, np.int64)
    for step in range(steps):
        batch, _, seen = rows_of(step, seen)
        rows += [tuple(row.values()) for row in batch.to_pylist()]
    rejects = [("odd", step) for step in range(1, steps, 2)]
    return rows, rejects, {"stream": list(range(len(seen))), "seen": seen.tolist()}


def files_of(path):
    """Every file below a folder, with its size."""
    root = Path(path)
    return {str(p.relative_to(root)): p.stat().st_size for p in root.rglob("*") if p.is_file()}
