"""Equal state tables give equal files, whatever the tables went through."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from streamrnn.states import Layout, StateTable, read_state_file, write_state_file
from streamrnn.stream.states import Held

LAYOUT = Layout(
    keys=(pa.field("k", pa.string()),),
    time=pa.timestamp("us", "UTC"),
    states={"lstm/h": 3, "lstm/c": 3},
    previous={"a": pa.float32(), "i": pa.int64(), "s": pa.string()},
    pending=(pa.field("k", pa.string()), pa.field("y", pa.float32())),
    fingerprint="f" * 64,
    layers={"lstm": [3]},
)


def _table(before: int) -> StateTable:
    """Four streams; two have no time and no previous value, and had `before` earlier."""
    table = StateTable(LAYOUT)
    slots = table.find([pa.array(["a", "b", "c", "d"])])
    rng = np.random.default_rng(7)
    table.scatter(slots, {n: rng.normal(size=(4, 3)).astype(np.float32) for n in LAYOUT.states})
    there = np.array([True, False, True, False])
    numbers = np.where(there, 5, before)
    previous = {
        "a": (numbers, there),
        "i": (numbers, there),
        "s": (np.where(there, "x", str(before)).astype(object), there),
    }
    times = np.where(there, 77, before)
    table.advance(slots, np.zeros(4, np.int64), times, previous, seen=there)
    rows = [pa.array(["c"]), pa.array([1.5], pa.float32())]
    schema = pa.schema(LAYOUT.pending)
    table.hold(Held(np.array([2]), pa.RecordBatch.from_arrays(rows, schema=schema)))
    return table


def _bytes(table: pa.Table, path: Path) -> bytes:
    write_state_file(table, str(path))
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_what_a_stream_had_before_its_reset_is_not_in_the_file(suffix: str, tmp_path: Path) -> None:
    """Arrow keeps values under nulls: there a file would hold what no reader can see."""
    one, two = _table(0).to_arrow(), _table(12345).to_arrow()
    assert one == two
    assert _bytes(one, tmp_path / f"1{suffix}") == _bytes(two, tmp_path / f"2{suffix}")


def _from_parquet(table: pa.Table, folder: Path) -> pa.Table:
    """As Parquet gives it back, but for its name of the items of a list."""
    write_state_file(table, str(folder / "between.parquet"))
    return read_state_file(str(folder / "between.parquet")).cast(table.schema)


def _with_values_under_nulls(table: pa.Table, _: Path) -> pa.Table:
    times = table.column("last_time").combine_chunks()
    values = times.cast(pa.int64()).fill_null(9).buffers()[1]
    odd = pa.Array.from_buffers(times.type, 4, [times.buffers()[0], values])
    at = table.schema.get_field_index("last_time")
    return table.set_column(at, table.schema.field(at), odd)


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(
            lambda table, _: pa.concat_tables([table.slice(0, 1), table.slice(1)]), id="pieces"
        ),
        pytest.param(lambda table, _: pa.concat_tables([table, table]).slice(4), id="slice"),
        pytest.param(_from_parquet, id="parquet"),
        pytest.param(_with_values_under_nulls, id="other values under nulls"),
    ],
)
def test_equal_tables_give_equal_files(suffix: str, other, tmp_path: Path) -> None:
    """In pieces, part of a larger table, read from a file of the other kind."""
    table = _table(0).to_arrow()
    made = other(table, tmp_path)
    assert made.equals(table, check_metadata=True)
    assert _bytes(made, tmp_path / f"1{suffix}") == _bytes(table, tmp_path / f"2{suffix}")


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_metadata_stands_in_one_order(suffix: str, tmp_path: Path) -> None:
    path = str(tmp_path / f"t{suffix}")
    write_state_file(_table(0).to_arrow(), path)
    names = [name.decode() for name in read_state_file(path).schema.metadata]
    kinds = ("format_version", "fingerprint", "layers", "keys")
    assert names == [f"streamrnn.{kind}" for kind in kinds]
