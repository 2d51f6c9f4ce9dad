"""Rows divided into Hive partitions: values and their folders, order, and bounded memory."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import first_quick

from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import ConfigError, DataError
from streamrnn.stream.checkpoints import partitioning_in
from streamrnn.stream.sinks import (
    PART_FORMATS,
    PartitionedWriter,
    Partitioning,
    PartWriter,
    part,
    partition_values,
    partitions,
)


def made(schema: pa.Schema, *levels: str) -> Partitioning:
    found = partitioning_in({"sink.partition_by": levels}, schema)
    assert found is not None
    return found


def back(partitioning: Partitioning, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """All columns of each partition, as read back from its folder and its file."""
    return [
        partitioning.complete(rows, f"{folder}/part-00000.parquet")
        for folder, rows in partitioning.split(batch)
    ]


TEXTS = st.text(min_size=1, max_size=20).filter(lambda text: text != partitions.NULL)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), TEXTS), min_size=1, max_size=30))
def test_a_text_is_given_back_whatever_it_is(texts: list[str | None]) -> None:
    batch = pa.record_batch({"k": pa.array(texts, pa.string()), "v": np.arange(len(texts))})
    found = back(made(batch.schema, "k"), batch)
    assert [row for rows in found for row in rows.to_pylist()] == sorted(
        batch.to_pylist(), key=lambda row: texts.index(row["k"])
    )
    assert all(rows.schema == batch.schema for rows in found)


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("a/b", "k=a%2Fb"),
        ("a=b", "k=a%3Db"),
        ("..", "k=.."),
        ("50 %", "k=50%20%25"),
        ("a+b", "k=a%2Bb"),
        ("Zürich", "k=Zürich"),
        (None, "k=__HIVE_DEFAULT_PARTITION__"),
    ],
)
def test_folders_are_named_as_hive_names_them(text: str | None, folder: str) -> None:
    batch = pa.record_batch({"k": pa.array([text], pa.string()), "v": [1]})
    ((found, _),) = made(batch.schema, "k").split(batch)
    assert found == folder
    assert partition_values(f"{found}/part-00000.parquet") == {"k": text}


@pytest.mark.parametrize("text", ["", "__HIVE_DEFAULT_PARTITION__", "x" * 300, "é" * 127])
def test_a_text_that_no_folder_can_stand_for_is_refused(text: str) -> None:
    batch = pa.record_batch({"k": [text], "v": [1]})
    with pytest.raises(DataError, match=r"\[sink\] partition_by: column 'k' has the value"):
        list(made(batch.schema, "k").split(batch))


def local(times: list[datetime.datetime | None], zone: str | None, unit: str) -> pa.RecordBatch:
    return pa.record_batch({"t": pa.array(times, pa.timestamp(unit, zone))})


TIMES = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1))


@pytest.mark.parametrize("unit", first_quick(["us", "s", "ms", "ns"]))
@settings(deadline=None)
@given(times=st.lists(st.one_of(st.none(), TIMES), min_size=1, max_size=20))
def test_functions_of_a_time_are_those_of_the_calendar(
    unit: str, times: list[datetime.datetime | None]
) -> None:
    """Before 1970, too. Slow: other units."""
    batch = local([t and t.replace(microsecond=0) for t in times], None, unit)
    levels = ("y = year(t)", "m = month(t)", "d = day(t)", "h = hour(t)")
    for rows in back(made(batch.schema, *levels), batch):
        for row in rows.to_pylist():
            time = row["t"]
            expected = time and (time.year, time.month, time.date(), time.hour)
            assert (row["y"], row["m"], row["d"], row["h"]) == (expected or (None,) * 4)


def test_the_day_of_a_time_is_that_of_its_zone() -> None:
    times = [datetime.datetime(2013, 1, 5, 23, 30), datetime.datetime(2013, 7, 5, 22, 30)]
    batch = local(times, "Europe/Berlin", "us")
    found = [folder for folder, _ in made(batch.schema, "d = day(t)", "h = hour(t)").split(batch)]
    assert found == ["d=2013-01-06/h=0", "d=2013-07-06/h=0"]


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (pa.timestamp("ms", "UTC"), "y = year(t)"),
        (pa.timestamp("s"), "d = day(t)"),
        (pa.date32(), "m = month(t)"),
        (pa.date32(), "t"),
    ],
)
def test_dates_that_no_folder_gives_back_are_refused(kind: pa.DataType, level: str) -> None:
    """A text beyond the year 9999 is no date for any reader; Arrow's years end at 32,767."""
    days = pa.array([datetime.date(1, 1, 1), None, datetime.date(9999, 12, 31)], pa.date32())
    late = pa.array([0, 2_932_897], pa.int32()).cast(pa.date32())
    good, bad = (pa.record_batch({"t": dates.cast(kind)}) for dates in (days, late))
    partitioning = made(good.schema, level)
    assert len(list(partitioning.split(good))) == 3
    with pytest.raises(DataError, match=r"column 't' has the time 10000-01-01.* 1 to 9999"):
        list(partitioning.split(bad))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int8(), [-3, 4]),
        (pa.uint64(), [0, 2**64 - 1]),
        (pa.date32(), [datetime.date(1969, 12, 31), datetime.date(2013, 1, 5)]),
        (pa.large_string(), ["a", "b"]),
    ],
)
def test_columns_come_back_with_their_types(kind: pa.DataType, values: list[Any]) -> None:
    batch = pa.record_batch({"v": pa.array([1.0, 2.0, 3.0]), "k": pa.array([*values, None], kind)})
    found = pa.Table.from_batches(back(made(batch.schema, "k"), batch))
    assert found.equals(pa.Table.from_batches([batch]))


@pytest.mark.parametrize(
    ("kind", "level", "message"),
    [
        (pa.float64(), "k", "expected a column of text, integers or dates, but 'k' is double"),
        (pa.timestamp("us"), "k", r"such as \{ date = \"day\(k\)\" \}"),
        (pa.bool_(), "k", "but 'k' is bool"),
        (pa.int64(), "d = day(k)", "expected a timestamp or a date, but 'k' is int64"),
        (pa.date32(), "d = hour(k)", "expected a timestamp, but 'k' is date32"),
        (pa.timestamp("us"), "V = day(k)", r"'V' is also a column of the output \(v\)"),
        (pa.string(), "kk", "'kk' is not a column of the output; did you mean"),
    ],
)
def test_columns_that_cannot_name_folders_are_refused(
    kind: pa.DataType, level: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        made(pa.schema([("k", kind), ("v", pa.float32())]), level)


def test_too_many_partitions_are_refused() -> None:
    batch = pa.record_batch({"k": np.arange(100_000), "v": np.arange(100_000)})
    with pytest.raises(DataError, match="more than 10,000 partitions in one commit"):
        list(made(batch.schema, "k").split(batch))


# -- the writer ------------------------------------------------------------------------------


class Folder:
    """Parts as a `PartitionedWriter` writes them into a folder."""

    def __init__(self, root: Path, partitioning: Partitioning) -> None:
        self.root = root
        self.open = self.most_open = 0
        files = LocalFiles(str(root))
        folder = self

        class Counted(PartWriter):
            def __init__(self, name: str, path: str) -> None:
                schema = partitioning.file_schema
                super().__init__(files, name, schema, PART_FORMATS["parquet"], path)
                folder.open += 1
                folder.most_open = max(folder.most_open, folder.open)

            def finish(self) -> Any:
                folder.open -= 1
                return super().finish()

        self.writer = PartitionedWriter(
            files, partitioning, lambda path, n: Counted(f"_{n:05d}.parquet.tmp", path), "_spill"
        )

    def rows(self) -> dict[str, list[int]]:
        """The values of each folder, in the order of its parts."""
        found: dict[str, list[int]] = {}
        for staged in self.writer.finish():
            table = pq.ParquetFile(self.root / staged.staged).read()
            assert len(table) == staged.rows > 0
            found.setdefault(staged.folder, []).extend(table["v"].to_pylist())
        return found


def batches(keys: np.ndarray, size: int) -> Iterator[pa.RecordBatch]:
    whole = pa.record_batch({"k": keys, "v": np.arange(len(keys))})
    for first in range(0, len(keys), size):
        yield whole.slice(first, size)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups, buffer and open files as small as the tests."""
    monkeypatch.setattr(part, "GROUP_ROWS", 40)
    monkeypatch.setattr(partitions, "BUFFER", 1000)
    monkeypatch.setattr(partitions, "OPEN", 2)
    monkeypatch.setattr(partitions, "SYNCING", 3)


ORDERS = {
    "in order": lambda n, rng: np.arange(n) // 25,
    "all in every batch": lambda n, rng: np.arange(n) % 30,
    "a few large ones": lambda n, rng: rng.integers(0, 4, n),
    "one": lambda n, rng: np.zeros(n, np.int64),
    "some large, many small": lambda n, rng: np.where(rng.random(n) < 0.7, 0, rng.zipf(1.3, n) % 9),
    "alternating": lambda n, rng: np.arange(n) // 100 % 2 * 10 + np.arange(n) % 10,
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", first_quick([100, 7, 2000]))
@pytest.mark.parametrize("order", ORDERS)
def test_each_partition_has_its_rows_in_order(tmp_path: Path, order: str, size: int) -> None:
    """Slow: smaller and larger batches."""
    keys = ORDERS[order](1000, np.random.default_rng(1)).astype(np.int64)
    folder = Folder(tmp_path, made(pa.schema([("k", pa.int64()), ("v", pa.int64())]), "k"))
    for batch in batches(keys, size):
        folder.writer.write(batch)
    expected = {f"k={k}": np.flatnonzero(keys == k).tolist() for k in np.unique(keys)}
    assert folder.rows() == expected
    assert folder.most_open <= partitions.OPEN + partitions.SYNCING + 1
    assert not list(tmp_path.glob("_spill*"))


@pytest.mark.usefixtures("small")
def test_partitions_that_take_turns_have_one_file_each(tmp_path: Path) -> None:
    """However many there are: rows that do not fit in memory are spilled, not written as parts."""
    keys = np.arange(3000, dtype=np.int64) % 100
    folder = Folder(tmp_path, made(pa.schema([("k", pa.int64()), ("v", pa.int64())]), "k"))
    for batch in batches(keys, 200):
        folder.writer.write(batch)
    assert len(list(tmp_path.glob("_spill*"))) > 3
    assert len(folder.writer.finish()) == 100


def test_a_writer_that_is_abandoned_can_be_dropped(tmp_path: Path) -> None:
    folder = Folder(tmp_path, made(pa.schema([("k", pa.int64()), ("v", pa.int64())]), "k"))
    folder.writer.write(next(batches(np.arange(10), 10)))
    folder.writer.abandon()
    assert folder.writer.finish() == ()
