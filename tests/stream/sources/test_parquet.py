"""Record batches and their positions: reading on from any of them gives the rest."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn.errors import DataError
from streamrnn.stream.sources import FileSource, StreamSource, list_files
from streamrnn.stream.sources.formats import ColumnStatistics

ROWS = pa.table({"k": [f"s{i % 3}" for i in range(50)], "x": np.arange(50.0)})


def _write(path: Path, table: pa.Table, groups: list[int]) -> None:
    """A file whose row groups have these sizes."""
    with pq.ParquetWriter(path, table.schema) as writer:
        at = 0
        for size in groups:
            writer.write_table(table.slice(at, size), row_group_size=max(size, 1))
            at += size
    assert at == table.num_rows


def _files(root: Path) -> None:
    _write(root / "a.parquet", ROWS, [7, 0, 20, 23])
    _write(root / "b.parquet", ROWS.slice(0, 0), [])
    _write(root / "c.parquet", ROWS.slice(0, 11), [0, 11, 0])


@pytest.mark.parametrize("rows", [1, 4, 7, 1000])
def test_every_position_is_a_place_to_go_on_from(tmp_path: Path, rows: int) -> None:
    """Empty row groups and files among them; first rows, positions and contents agree."""
    _files(tmp_path)
    files = list_files(str(tmp_path))
    whole = list(FileSource(files, ["x", "k"], rows).batches())
    table = pa.Table.from_batches([b.batch for b in whole])
    expected = pa.concat_tables([ROWS, ROWS.slice(0, 11)]).select(["x", "k"])
    assert table.equals(expected)
    places = [(f, r) for b in whole for f, r in zip(b.origin.file_N, b.origin.row_N, strict=True)]
    assert [row for _, row in places] == [*range(50), *range(11)]
    assert all(b.batch.num_rows <= rows for b in whole)
    done = 0
    for batch in whole:
        done += batch.batch.num_rows
        position = batch.position
        first = [f.path for f in files].index(position.file)
        rest = list(FileSource(files[first:], ["x", "k"], 5).batches(position))
        assert pa.Table.from_batches([b.batch for b in rest], expected.schema).equals(
            expected.slice(done)
        )
        assert position.done == (done in (50, 61))
        if rest and not position.done:
            assert rest[0].origin.row_N[0] == position.file_row == done % 50


def test_a_file_without_rows_gives_its_end(tmp_path: Path) -> None:
    """One record batch of no rows with the right types, so that its end can be committed."""
    _write(tmp_path / "a.parquet", ROWS.slice(0, 0), [])
    (only,) = FileSource(list_files(str(tmp_path)), ["k"], 10).batches()
    assert (only.batch.num_rows, only.batch.schema.names, only.position.done) == (0, ["k"], True)


def test_dictionaries_and_views_become_plain_values(tmp_path: Path) -> None:
    """Arrow can do little with views; dictionaries differ from row group to row group."""
    columns = {
        "d": pa.array(["a", "b", "a"]).dictionary_encode(),
        "v": pa.array(["a", None, "c"], pa.string_view()),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2)
    source = FileSource(list_files(str(tmp_path)), None, 10)
    assert source.schema.types == [pa.string(), pa.large_string()]
    table = pa.Table.from_batches([b.batch for b in source.batches()])
    assert table.to_pydict() == {"d": ["a", "b", "a"], "v": ["a", None, "c"]}


def test_nulls_are_counted_among_times_beyond_the_calendar(tmp_path: Path) -> None:
    """Parquet's dates and times reach further than Python's."""
    far = pa.array([-(10**8), None, 10**8], pa.int32()).cast(pa.date32())
    times = pa.array([-(10**15), None, 10**15]).cast(pa.timestamp("ms"))
    pq.write_table(pa.table({"day": far, "time": times, "x": [1, 2, 3]}), tmp_path / "a.parquet")
    source = FileSource(list_files(str(tmp_path)), None, 10)
    recorded = source.statistics(["day", "time", "x"])
    assert recorded["day"] == recorded["time"] == ColumnStatistics(rows=3, nulls=1)
    assert recorded["x"] == ColumnStatistics(rows=3, minimum=1, maximum=3)


def test_files_with_other_columns_are_refused_by_name(tmp_path: Path) -> None:
    """Only the columns in use count; "*" needs the same ones in all."""
    pq.write_table(pa.table({"x": [1], "y": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1], "z": [1]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"x": ["1"], "y": [1]}), tmp_path / "c.parquet")
    files = list_files(str(tmp_path))
    assert sum(b.batch.num_rows for b in FileSource(files[:2], ["x"], 10).batches()) == 2
    with pytest.raises(
        DataError, match=r"b\.parquet: column 'y' not found.*Available columns: x, z"
    ):
        FileSource(files[:2], ["x", "y"], 10).check_schemas(files[1:2])
    with pytest.raises(DataError, match=r"c\.parquet: column 'x': expected int64 as in .*a\.par"):
        list(FileSource([files[0], files[2]], ["x"], 10).batches())
    with pytest.raises(DataError, match=r"b\.parquet: column 'y' not found"):
        list(FileSource(files[:2], None, 10).batches())
    pq.write_table(pa.table({"x": [1], "y": [1], "z": [1]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: column 'z' is not in"):
        list(FileSource(files[:2], None, 10).batches())


def test_a_message_on_a_wide_file_is_read_in_one_sitting(tmp_path: Path) -> None:
    pq.write_table(pa.table({f"c{i}": [1] for i in range(1000)}), tmp_path / "a.parquet")
    files = list_files(str(tmp_path))
    with pytest.raises(DataError, match=r"column 'c' not found.* c49 and 950 more$"):
        FileSource(files, ["c"], 10).check_schemas(files)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Which one would be meant?"""
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="column 'x': expected once, found 2 times"):
        _ = FileSource(list_files(str(tmp_path)), ["x"], 10).schema


def test_a_dot_in_a_name_is_only_a_character(tmp_path: Path) -> None:
    """Parquet writes nested columns with dots."""
    nested = pa.array([{"speed": 7}])
    pq.write_table(pa.table({"wind": nested, "wind.speed": [1]}), tmp_path / "a.parquet")
    source = FileSource(list_files(str(tmp_path)), ["wind.speed"], 10)
    assert next(source.batches()).batch.to_pydict() == {"wind.speed": [1]}


def test_damage_is_told_with_the_file_and_the_last_good_row(tmp_path: Path) -> None:
    """Bytes in the middle overwritten: rows before them were read."""
    path = tmp_path / "a.parquet"
    _write(path, ROWS, [25, 25])
    raw = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    raw[start : start + 40] = b"\xff" * 40
    path.write_bytes(bytes(raw))
    batches = FileSource(list_files(str(tmp_path)), None, 25).batches()
    assert next(batches).batch.num_rows == 25
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read after row 25"):
        next(batches)


def _stream(table: pa.Table) -> io.BytesIO:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    out.seek(0)
    return out


def test_a_stream_is_read_in_batches_of_some_rows() -> None:
    """Arrow IPC: the columns in use, in their order; first rows count on."""
    source = StreamSource(["x", "k"], 15, _stream(ROWS))
    batches = list(source.batches())
    assert [(b.origin.row_N[0], b.batch.num_rows) for b in batches] == [
        (0, 15),
        (15, 5),
        (20, 15),
        (35, 5),
        (40, 10),
    ]
    assert pa.Table.from_batches([b.batch for b in batches]).equals(ROWS.select(["x", "k"]))


def test_a_stream_that_breaks_off_or_is_none_is_refused() -> None:
    """What was read before stays read."""
    whole = _stream(ROWS).getvalue()
    source = StreamSource(None, 20, io.BytesIO(whole[:-400]))
    with pytest.raises(DataError, match="stdin: the Arrow stream ends early after row"):
        list(source.batches())
    with pytest.raises(DataError, match="stdin: expected an Arrow IPC stream"):
        _ = StreamSource(None, 20, io.BytesIO(b"PAR1 and so on")).schema
