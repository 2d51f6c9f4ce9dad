"""Record batches that span files: every row is traced to its own file, and each file is known."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn.errors import DataError
from streamrnn.stream.sources import NOTHING, Content, FileSource, SourceBatch, list_files, reading

KINDS = {
    "int": lambda n: pa.array(np.arange(n) * 7 - 20),
    "small": lambda n: pa.array(np.arange(n) % 100, pa.int8()),
    "date": lambda n: pa.array(np.arange(n)[::-1], pa.int32()).cast(pa.date32()),
    "stamp": lambda n: pa.array(np.arange(n) ** 2, pa.timestamp("us")),
    "nulls": lambda n: pa.array([None if i % 3 else i for i in range(n)], pa.int64()),
}


def _table(rows: int, time: str = "int") -> pa.Table:
    """A time, text with nulls, lists, and floats."""
    return pa.table(
        {
            "t": KINDS[time](rows),
            "k": [None if i % 5 == 0 else f"é{i % 3}" for i in range(rows)],
            "l": [[i] * (i % 4) for i in range(rows)],
            "x": np.arange(rows) / 7,
        }
    )


def _write(table: pa.Table, sizes: list[int], folder: Path) -> list[Path]:
    """Files of these sizes, in row groups of 10 rows."""
    paths, first = [], 0
    for i, size in enumerate(sizes):
        paths.append(folder / f"{i:03d}.parquet")
        pq.write_table(table.slice(first, size), paths[-1], row_group_size=10)
        first += size
    return paths


def _batches(folder: Path, rows: int, time: str | None = "t") -> list[SourceBatch]:
    return list(FileSource(list_files(str(folder)), None, rows, time=time).batches())


@pytest.mark.parametrize("time", KINDS)
@pytest.mark.parametrize("rows", [1, 7, 40, 1000])
def test_rows_and_contents_are_those_of_each_file(tmp_path: Path, rows: int, time: str) -> None:
    """The oracle reads file by file, with pyarrow alone."""
    rng = random.Random(rows)
    sizes = [rng.choice([0, 1, 2, 5, 33]) for _ in range(30)]
    table = _table(sum(sizes), time)
    paths = _write(table, sizes, tmp_path)
    found = _batches(tmp_path, rows)
    assert pa.Table.from_batches([each.batch for each in found]).equals(table)
    places = [(each.origin.file(i), row) for each in found for i, row in _enumerated(each)]
    assert places == [(str(p), i) for p, n in zip(paths, sizes, strict=True) for i in range(n)]
    last = {name: reading for each in found for name, reading in each.readings.items()}
    for path in paths:
        whole = pq.read_table(path).combine_chunks().to_batches()
        right = sum((Content.of(batch, "t") for batch in whole), NOTHING)
        assert last[str(path)].content == right


def _enumerated(batch: SourceBatch) -> list[tuple[int, int]]:
    return list(enumerate(batch.origin.row_N.tolist()))


@pytest.mark.parametrize("rows", [7, 40, 1000])
def test_a_reading_is_of_the_rows_so_far(tmp_path: Path, rows: int) -> None:
    """At each position: the rows before it in its file, as a commit stores them."""
    table = _table(300)
    paths = _write(table, [120, 3, 3, 100, 0, 74], tmp_path)
    for each in _batches(tmp_path, rows):
        position = each.position
        before = pq.read_table(position.file).slice(0, position.file_row).combine_chunks()
        (batch,) = before.to_batches() or [pa.RecordBatch.from_pylist([], before.schema)]
        assert each.readings[position.file].content == Content.of(batch, "t")
        source = FileSource(list_files(str(tmp_path)), None, 11, time="t")
        source.files = source.files[paths.index(Path(position.file)) :]
        rest = list(source.batches(position, each.readings[position.file].content))
        if rest:
            name = rest[-1].position.file
            own = FileSource(source.files, None, 1000, time="t").content(source.files[-1])
            assert rest[-1].readings[name].content == own


def test_batches_are_filled_and_small_files_share_them(tmp_path: Path) -> None:
    """Two neighbours never fit in one batch; files larger than a batch are cut as before."""
    _write(_table(300), [20] * 10 + [95] + [5], tmp_path)
    found = _batches(tmp_path, 50)
    sizes = [each.batch.num_rows for each in found]
    assert sum(sizes) == 300
    assert max(sizes) <= 50
    assert all(a + b > 50 for a, b in pairwise(sizes[:5]))
    assert len(found[0].readings) == 2


def test_the_number_of_files_in_a_batch_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files without rows too; the end of each is known."""
    monkeypatch.setattr(reading, "_MOST_SLICES", 10)
    _write(_table(3), [0] * 25 + [3], tmp_path)
    found = _batches(tmp_path, 10)
    assert [len(each.readings) for each in found] == [10, 10, 6]
    assert [each.position.done for each in found] == [True] * 3
    assert found[0].batch.schema == found[-1].batch.schema


def test_rows_before_a_damaged_file_come_first(tmp_path: Path) -> None:
    paths = _write(_table(60), [20, 20, 20], tmp_path)
    paths[2].write_bytes(b"no parquet")
    batches = FileSource(list_files(str(tmp_path)), None, 1000).batches()
    first = next(batches)
    assert first.batch.num_rows == 40
    assert (first.position.file, first.position.done) == (str(paths[1]), True)
    with pytest.raises(DataError, match=r"002\.parquet: not a readable Parquet file"):
        next(batches)


def test_rows_before_a_file_of_another_type_come_first(tmp_path: Path) -> None:
    """Only the files with the schema that was seen last are not checked again."""
    _write(_table(60), [20, 20, 20], tmp_path)
    other = _table(5).set_column(3, "x", pa.array(["a"] * 5))
    pq.write_table(other, tmp_path / "001.parquet")
    batches = FileSource(list_files(str(tmp_path)), None, 1000).batches()
    assert next(batches).batch.num_rows == 20
    with pytest.raises(DataError, match=r"001\.parquet: column 'x': expected double as in .*000"):
        next(batches)


def test_large_values_are_not_copied_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offsets of text have 32 bits: pieces are joined up to a number of bytes only."""
    monkeypatch.setattr(reading, "_MOST_BYTES", 1000)
    for i in range(4):
        pq.write_table(pa.table({"k": ["x" * 450]}), tmp_path / f"{i}.parquet")
    found = _batches(tmp_path, 100, time=None)
    assert [each.batch.num_rows for each in found] == [2, 2]
