"""One part: a Parquet file of the rows it was given."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn.base.storage import open_files
from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import SinkError
from streamrnn.stream.sinks import PART_FORMATS, Part, PartWriter
from streamrnn.stream.sinks.part import _repeats

SCHEMA = pa.schema([("key", pa.string()), ("y", pa.float32())])


def batch(start, rows):
    numbers = range(start, start + rows)
    return pa.record_batch([[str(n) for n in numbers], list(numbers)], schema=SCHEMA)


@pytest.fixture
def writer(tmp_path):
    writer = PartWriter(open_files(str(tmp_path)), "staged.tmp", SCHEMA, PART_FORMATS["parquet"])
    yield writer
    writer.abandon()


def test_rows_come_back_in_order_with_their_schema(writer, tmp_path):
    batches = [batch(0, 5), batch(5, 0), batch(5, 1)]
    for each in batches:
        writer.write(each)
    writer.finish()
    assert pq.read_table(tmp_path / "staged.tmp").equals(pa.Table.from_batches(batches))


def test_the_part_says_what_the_file_is(writer, tmp_path):
    writer.write(batch(0, 5))
    part = writer.finish()
    data = (tmp_path / "staged.tmp").read_bytes()
    found = (len(data), hashlib.sha256(data).hexdigest())
    assert (part.rows, part.bytes, part.sha256) == (5, *found)
    assert part.staged == "staged.tmp"
    assert part.placed("part-00007.parquet", 4) == Part(
        "part-00007.parquet", 5, *found, 4, "staged.tmp"
    )


def test_small_batches_share_row_groups(writer, tmp_path, monkeypatch):
    monkeypatch.setattr("streamrnn.stream.sinks.part.GROUP_ROWS", 100)
    for start in range(0, 250, 10):
        writer.write(batch(start, 10))
    writer.finish()
    found = pq.ParquetFile(tmp_path / "staged.tmp").metadata
    assert [found.row_group(n).num_rows for n in range(found.num_row_groups)] == [100, 100, 50]


@pytest.mark.parametrize(("keys", "dictionary"), [(1_000, True), (30_000, True), (99_000, False)])
def test_keys_that_hardly_repeat_have_no_dictionary(writer, tmp_path, keys, dictionary):
    """They come in turns, so that the first rows say nothing."""
    numbers = np.arange(100_000) % keys
    columns = [pa.array(numbers).cast(pa.string()), pa.array(numbers, pa.float32())]
    writer.write(pa.record_batch(columns, schema=SCHEMA))
    writer.finish()
    group = pq.ParquetFile(tmp_path / "staged.tmp").metadata.row_group(0)
    assert group.column(0).has_dictionary_page is dictionary
    assert not group.column(1).has_dictionary_page
    assert pq.read_table(tmp_path / "staged.tmp").column(0).equals(pa.chunked_array(columns[:1]))


def test_long_texts_are_not_looked_at():
    """Some thousands of them, or the chunks joined, would be more than Arrow can hold at once."""
    chunk = pa.array(["x" * (1 << 20)] * 64)
    assert _repeats(pa.chunked_array([chunk] * 40))


def test_a_part_without_rows_has_the_schema(writer, tmp_path):
    assert writer.finish().rows == 0
    assert pq.read_schema(tmp_path / "staged.tmp") == SCHEMA


def test_a_part_given_up_is_no_parquet_file(writer, tmp_path):
    writer.write(batch(0, 5))
    writer.abandon()
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(tmp_path / "staged.tmp")


def test_the_cause_of_a_failed_write_is_told(writer, tmp_path, monkeypatch):
    def full(self, descriptor, view):
        raise OSError(28, "No space left on device")

    writer.write(batch(0, 5))
    monkeypatch.setattr(LocalFiles.disk, "write", full.__get__(LocalFiles.disk))
    with pytest.raises(SinkError, match=r"staged\.tmp: No space left on device\. Free") as caught:
        writer.finish()
    assert caught.value.errno == 28
