"""A pipeline worth killing: many streams, several files, rejects of each sort, many commits."""

import glob
import os
from pathlib import Path

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.jobs.session import session as sessions
from streamrnn.stream.checkpoints import load_state, records, versions

# Three files, with small ones before the second, of which a record batch holds several.
FILES = {"0": 800, **{f"1-{i:02d}": 20 for i in range(30)}, "1": 200, "2": 800}
ROWS = 2400


def make(folder: Path) -> Path:
    """Write the source and the model below `folder`, and give the folder back."""
    table = logs.random_log(ROWS, streams=150, seed=3, nulls=0.1, resets=0.01, jitter=5)
    a = table["a"].to_numpy().copy()
    a[np.random.default_rng(4).random(ROWS) < 0.02] = np.nan
    ids = pa.array(table["id"].to_pylist(), mask=np.arange(ROWS) % 97 == 5)
    table = table.set_column(0, "id", ids).set_column(2, "a", pa.array(a, from_pandas=False))
    first = 0
    for name, rows in FILES.items():
        logs.write(table.slice(first, rows), folder / "in" / f"{name}.parquet", row_group=300)
        first += rows
    assert first == ROWS
    logs.small_model(units=32).save(folder / "model.safetensors")
    return folder


def config(folder: Path, out: Path, **source):
    """The pipeline, with its output in `out`."""
    return logs.config(
        str(folder / "in"),
        str(folder / "model.safetensors"),
        str(out),
        source={
            "nulls": "previous",
            "reset": "new",
            "late": "reject",
            "repeated": "skip",
            "bad": "reject",
            "batch_rows": 150,
            **source,
        },
        window={"lanes": 8, "steps": 16},
        model={"threads": 1},
        output={"columns": ["id", "t", "a"], "warmup": 2},
        checkpoint={"every": 2, "keep": 2},
    )


def run(folder: Path, out: Path, **options):
    """Run it, with the state written as changes, and used files and parts as segments."""
    return run_config(config(folder, out), **options)


def run_config(data, **options):
    """Run a pipeline in the same way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "SMALL", 0)
        patch.setattr(records, "TAIL", 1)
        return Pipeline.from_dict(data).run(**options)


def session(folder, out):
    """Score the rows of its files in a session that goes on from where the last one ended.

    Small parts are merged, and small states written as changes, as in a long one.
    """
    names = [folder / "in" / f"{name}.parquet" for name in FILES]
    table = pa.concat_tables([pq.read_table(name) for name in names])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "SMALL", 0)
        patch.setattr(records, "TAIL", 1)
        patch.setattr(sessions, "_MOST_PARTS", 5)
        with Pipeline.from_dict(config(folder, out)).session() as live:
            for begin in range(live.position or 0, ROWS, 75):
                live.process(table.slice(begin, 75), position=begin + 75)
                if begin // 75 % 2:
                    live.commit()


def fit_config(data, **options):
    """Fit a pipeline."""
    return Pipeline.from_dict(data).fit(**options)


def rows(out: Path) -> pa.Table:
    """All that a glob of *.parquet finds, in the order of the names."""
    names = sorted(glob.glob(os.path.join(str(out), "**", "*.parquet"), recursive=True))
    return pa.concat_tables([pq.read_table(name) for name in names]) if names else None


def is_prefix(found: pa.Table | None, whole: pa.Table) -> bool:
    """Whether these are the first rows of the whole, bit for bit."""
    return found is None or same(found, whole.slice(0, found.num_rows))


def same(one: pa.Table | None, other: pa.Table | None) -> bool:
    """Equality of the bits: it tells -0.0 from 0.0, and a NaN is equal to itself."""
    if one is None or other is None:
        return one is other
    return one.schema == other.schema and _bits(one) == _bits(other)


def _bits(table: pa.Table) -> dict[str, list]:
    return {name: _integers(table[name].combine_chunks()) for name in table.column_names}


def _integers(array: pa.Array) -> list:
    if pa.types.is_fixed_size_list(array.type):
        return _integers(array.flatten())
    if pa.types.is_floating(array.type):
        array = array.view(pa.int64() if array.type == pa.float64() else pa.int32())
    return array.to_pylist()


class Outcome:
    """Rows, rejects and state of a finished run."""

    def __init__(self, out: Path) -> None:
        self.rows = rows(out)
        self.rejects = rows(Path(f"{out}.rejects"))
        self.state = load_state(str(out))

    def differs(self, other: "Outcome") -> list[str]:
        """What is not equal, to the bit."""
        names = ("rows", "rejects", "state")
        return [name for name in names if not same(getattr(self, name), getattr(other, name))]
