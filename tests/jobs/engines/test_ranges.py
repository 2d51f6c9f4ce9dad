"""A source is cut into epochs and row ranges: each row is read once, at its own number."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.jobs.engines.shard import Outcome
from streamrnn.jobs.engines.sharded import WorkloadCounts
from streamrnn.jobs.engines.splitting import KeyCounts, Split, cut
from streamrnn.stream.sources import FileSource, Position, list_files
from streamrnn.stream.states import by_shard, key_hashes, shard_of

GROUPS = ((30, 7), (), (100,), (1, 1, 1), (64, 36))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FileSource:
    """Five files with row groups of these sizes, one of them without rows."""
    folder, first = tmp_path_factory.mktemp("ranges"), 0
    for index, sizes in enumerate(GROUPS):
        with pq.ParquetWriter(folder / f"{index}.parquet", pa.schema([("n", pa.int64())])) as file:
            for size in sizes:
                file.write_table(pa.table({"n": range(first, first + size)}), row_group_size=size)
                first += size
    return FileSource(list_files(str(folder)), ["n"], 40)


@settings(deadline=None)
@given(
    epoch_rows=st.integers(1, 300),
    range_rows=st.integers(1, 300),
    skipped=st.integers(0, 36),
    scored=st.integers(0, 10),
)
def test_the_pieces_of_all_epochs_have_each_row_once(
    source: FileSource, epoch_rows: int, range_rows: int, skipped: int, scored: int
) -> None:
    """From any row of the first file on; positions and numbers are those of the rows."""
    start = Position(source.files[0].name, 0, skipped, skipped, False) if skipped else None
    epochs = cut(source, start, scored, epoch_rows, range_rows)
    rows: list[int] = []
    for epoch in epochs:
        assert epoch.rows <= max(epoch_rows, 100)
        for row_range in epoch.row_ranges:
            assert row_range.first == len(rows) + scored
            read = [
                item.batch.column("n").to_numpy()
                for item in source.subset(row_range.files).batches(
                    row_range.start, stop=row_range.stop
                )
            ]
            rows += np.concatenate(read).tolist()
            assert len(rows) + scored == row_range.first + row_range.rows
        if epoch.position is not None:
            names = [file.name for file in source.files]
            before = sum(sum(sizes) for sizes in GROUPS[: names.index(epoch.position.file)])
            assert before + epoch.position.file_row == skipped + len(rows)
    assert rows == list(range(skipped, 240))
    assert epochs[-1].position is None


def test_the_shard_of_a_key_never_changes() -> None:
    """Outputs have the states of shards in files of their own."""
    keys = [pa.array([f"stream {n}" for n in range(1000)])]
    shards = shard_of(key_hashes(keys), 7)
    assert shards[:12].tolist() == [0, 3, 6, 2, 5, 1, 5, 2, 1, 2, 3, 3]
    numbers = [pa.array(range(1000), pa.int32()), pa.array([n % 3 == 0 for n in range(1000)])]
    assert shard_of(key_hashes(numbers), 5)[:12].tolist() == [3, 3, 1, 1, 3, 2, 1, 0, 2, 4, 0, 4]
    assert np.bincount(shards, minlength=7).min() > 110


def test_equal_keys_have_one_shard_however_arrow_stores_them() -> None:
    keys = pa.array(["a", "bcd", "", "a longer key than a word", "a"])
    forms = [keys, keys.cast(pa.large_string()), keys.dictionary_encode(), keys.slice(0)]
    hashes = [key_hashes([form]).tolist() for form in forms]
    assert all(found == hashes[0] for found in hashes)
    assert hashes[0][0] == hashes[0][4]


def test_rows_of_a_shard_keep_their_order() -> None:
    found = by_shard(np.array([2, 0, 2, 1, 0, 2]), 4)
    assert [rows.tolist() for rows in found] == [[1, 4], [3], [0, 2, 5], []]


def test_a_stream_that_dominates_is_named_with_what_it_allows() -> None:
    """Three shards take 1, 2 and 9 seconds: more than 12/9 workers do not help."""
    counts = WorkloadCounts(workers=4, shards=3)
    split = Split([10, 20, 170], heavy={5: (160, "id=big"), 9: (10, "id=small")})
    counts.add([split], [Outcome(shard, seconds=s) for shard, s in enumerate((1.0, 2.0, 9.0))])
    workload = counts.workload
    assert (workload.largest_stream, workload.largest_share) == ("id=big", 0.8)
    assert workload.speed_up_limit == pytest.approx(12 / 9)
    assert workload.advice == [
        "stream id=big has 80% of the rows, which one worker scores in sequence: more than "
        "1.3 workers do not help"
    ]


def test_a_large_stream_is_found_wherever_its_rows_are() -> None:
    """Of a log that is sorted by stream the last record batch has other streams."""
    counts = KeyCounts([pa.field("id", pa.string())])
    for batch in (["big"] * 600, ["a", "b", "a"], ["c", "d"]):
        keys = [pa.array(batch)]
        counts.add(keys, key_hashes(keys))
    assert max(counts.heaviest().values()) == (600, "id='big'")


def test_small_chunks_are_noticed() -> None:
    counts = WorkloadCounts(workers=2, shards=1000)
    counts.add([Split([1] * 1000, bytes=60_000_000)], [Outcome(s) for s in range(1000)])
    assert any("60 kB at a time" in advice for advice in counts.workload.advice)
