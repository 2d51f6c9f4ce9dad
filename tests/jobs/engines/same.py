"""Compare two outputs: rows by stream, rejects and states, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from kill.case import same

from streamrnn.outputs import read_states


def rows(out: str | Path) -> pa.Table:
    """The rows of an output by stream; in a stream their order is that of the output."""
    table = pq.read_table(out).combine_chunks()
    order = pa.compute.sort_indices(
        pa.table({"id": table["id"], "n": range(len(table))}),
        sort_keys=[("id", "ascending"), ("n", "ascending")],
    )
    return table.take(order).combine_chunks()


def rejects(out: str | Path) -> pa.Table | None:
    """The rejected rows, by file and row."""
    files = sorted(Path(f"{out}.rejects").glob("*.parquet"))
    if not files:
        return None
    table = pa.concat_tables(pq.read_table(file) for file in files)
    names = pa.array([Path(name).name for name in table["file"].to_pylist()])
    table = table.set_column(table.column_names.index("file"), "file", names)
    return table.sort_by([("file", "ascending"), ("row", "ascending")]).combine_chunks()


def state(out: str | Path) -> pa.Table:
    """The state table, by stream."""
    return read_states(str(out)).sort_by("id").combine_chunks()


def assert_same(one: str | Path, other: str | Path) -> None:
    """Equal bits: a NaN is equal to itself, and -0.0 differs from 0.0."""
    for part in (rows, rejects, state):
        a, b = part(one), part(other)
        assert (a is None) == (b is None), part.__name__
        if a is not None and b is not None:
            assert a.schema.equals(b.schema, check_metadata=part is state), part.__name__
            assert same(a, b), f"{part.__name__}: {a.num_rows} and {b.num_rows} rows"
