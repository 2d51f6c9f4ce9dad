"""Checkpoints that were damaged on a disk."""

import random
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pytest
from selection import first_quick

from streamrnn import Pipeline
from streamrnn.errors import DataError, StateError
from streamrnn.states import read_state_file, write_state_file
from streamrnn.stream.states import checked, with_checksum

LOG = logs.random_log(200, nulls=0.1)
CHECKSUM = b"streamrnn.checksum"


@pytest.fixture(autouse=True)
def folder(workdir: Path) -> Path:
    """Work in a folder with a model."""
    logs.small_model("LSTM").save("m.safetensors")
    return workdir


def _checkpoint(path: str, **tables: Any) -> Pipeline:
    pipeline = Pipeline.from_dict(logs.config("in", "m.safetensors", None, **tables))
    pipeline.process(LOG)
    pipeline.checkpoint(path)
    return pipeline


TABLES: dict[str, Any] = {
    "plain": {"source": {"nulls": "previous"}},
    "held rows": {"source": {"nulls": 0}, "output": {"emit": "final"}},
    "windows": {"source": {"nulls": 0}, "window": {"kind": "independent", "steps": 7}},
}


@pytest.mark.parametrize("suffix", first_quick(["arrow", "parquet"]))
@pytest.mark.parametrize("tables", TABLES.values(), ids=TABLES)
def test_no_changed_byte_changes_the_state(tables: dict[str, Any], suffix: str) -> None:
    """It is reported, or in bytes that have no meaning: padding, and values under nulls.

    Slow: files of Parquet.
    """
    expected = _checkpoint(f"c.{suffix}", **tables).state.to_arrow()
    assert Pipeline.resume(f"c.{suffix}").state.to_arrow().equals(expected)
    data = Path(f"c.{suffix}").read_bytes()
    rng = random.Random(7)
    refused = 0
    for place in [len(data) // 2, *(rng.randrange(len(data)) for _ in range(60))]:
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        Path(f"d.{suffix}").write_bytes(changed)
        try:
            state = Pipeline.resume(f"d.{suffix}").state.to_arrow()
        except (DataError, StateError):
            refused += 1
        else:
            assert state.equals(expected), place
    assert refused > 20


def test_a_changed_value_is_refused_with_what_to_do() -> None:
    _checkpoint("c.arrow", **TABLES["plain"])
    table = pa.ipc.open_file("c.arrow").read_all()
    steps = pa.array([n + 1 for n in table["steps"].to_pylist()])
    index = table.schema.names.index("steps")
    changed = table.set_column(index, table.schema.field("steps"), steps)
    write_state_file(changed, "d.arrow")
    message = r"^d\.arrow: the checkpoint is damaged: the checksum of its values does not match\. "
    with pytest.raises(DataError, match=message):
        Pipeline.resume("d.arrow")
    session = table.schema.metadata[b"streamrnn.session"].replace(b'"rows": 2', b'"rows": 3')
    metadata = {**table.schema.metadata, b"streamrnn.session": session}
    write_state_file(table.replace_schema_metadata(metadata), "d.arrow")
    with pytest.raises(DataError, match=r"the checksum of its metadata does not match"):
        Pipeline.resume("d.arrow")


def test_a_checkpoint_without_a_checksum_is_resumed() -> None:
    """An edited one needs none."""
    expected = _checkpoint("c.arrow", **TABLES["plain"]).state.to_arrow()
    table = pa.ipc.open_file("c.arrow").read_all()
    metadata = {**table.schema.metadata}
    del metadata[CHECKSUM]
    write_state_file(table.replace_schema_metadata(metadata).slice(0, 3), "d.arrow")
    assert Pipeline.resume("d.arrow").state.to_arrow().equals(expected.slice(0, 3))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3], pa.int16()),
        pa.array([True, None, False]),
        pa.array(["a", None, "bc"]),
        pa.array([b"a", None, b"bc"], pa.large_binary()),
        pa.array([b"ab", None, b"bc"], pa.binary(2)),
        pa.array([1, None, 3]).cast(pa.decimal128(22, 2)),
        pa.array([1, None, 3], pa.timestamp("ns", "UTC")),
        pa.array([1, None, 3], pa.timestamp("s", "UTC")),
        pa.array([1, None, 3], pa.time32("s")),
        pa.array([1, None, 3], pa.date32()),
        pa.array([86_400_000, None, 0], pa.date64()),
        pa.array([1, None, 3], pa.duration("s")),
        pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        pa.array([[["a"], []], None, [["b"]]], pa.list_(pa.list_(pa.string()))),
        pa.array([{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}]),
        pa.nulls(3),
    ],
    ids=lambda column: str(column.type),
)
def test_a_checksum_depends_on_values_alone(column: pa.Array) -> None:
    """Not on chunks, files, or memory under nulls; swapped rows are other values."""
    table = pa.table({"c": column})
    written = with_checksum(table)
    pieces = pa.table({"c": pa.chunked_array([column.slice(0, 1), column.slice(1)])})
    again = pieces.replace_schema_metadata(written.schema.metadata)
    assert checked(again, "c.arrow").equals(table)
    for path in ("c.arrow", "c.parquet"):
        write_state_file(written, path)
        found = checked(read_state_file(path), path)
        assert found["c"].cast(column.type).combine_chunks().equals(column)
    if column.null_count < len(column):
        swapped = table.take(pa.array([2, 1, 0])).replace_schema_metadata(written.schema.metadata)
        with pytest.raises(DataError, match="checksum of its values"):
            checked(swapped, "c.arrow")
