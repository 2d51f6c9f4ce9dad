"""The order of rows, and columns that are refused before a job."""

from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark", reason="needs the engines extra")
from plugins.spark import sessions

from streamrnn.errors import ConfigError, DataError, DTypeError, StreamRNNError
from streamrnn.spark import score

pytestmark = pytest.mark.filterwarnings(sessions.PANDAS)
CASES: list[tuple[type[StreamRNNError], str, dict[str, str], Any]] = [
    (ConfigError, "order: rows of a DataFrame have no order", {}, ()),
    (ConfigError, "order: expected names of columns, received int 3", {}, [3]),
    (ConfigError, "order: expected names of columns, received int 3", {}, 3),
    (DataError, "order: column 'offset' not found. Available columns: id, t", {}, ["offset"]),
    (DTypeError, "order: column 'a': expected text, .* received double", {}, ["t", "a"]),
    (DTypeError, "'z': expected text, .* received decimal", {"z": "1.5"}, ["t", "z"]),
    (DTypeError, "'z': expected text, .* received binary", {"z": "X'41'"}, ["t", "z"]),
    (DTypeError, "key: column 'id': expected a type that a key can have", {"id": "1.5d"}, ["t"]),
    (DTypeError, "column 'a': expected number or boolean, received string", {"a": "'x'"}, ["t"]),
    (DTypeError, "column 'a': interval month cannot be read", {"a": "interval 1 month"}, ["t"]),
    (DataError, "the DataFrame: column 'b' not found. Available columns: id, t", {"b": ""}, ["t"]),
    (DTypeError, "time: column 't': expected timestamp, date or integer", {"t": "'now'"}, ["t"]),
]


@pytest.mark.parametrize(("error", "text", "changes", "order"), CASES)
def test_what_can_be_known_is_refused_before_a_job(
    error: type[StreamRNNError],
    text: str,
    changes: dict[str, str],
    order: Any,
    spark: Any,
    tmp_path: Path,
) -> None:
    """One error on the driver, for a missing order and for columns."""
    from pyspark.sql import functions

    (path,) = sessions.write_days(logs.random_log(10), tmp_path / "log", 1)
    frame = spark.read.parquet(path)
    before = sessions.jobs(spark)
    assert before > 0  # reading the schema of the file was one
    for name, value in changes.items():
        frame = frame.withColumn(name, functions.expr(value)) if value else frame.drop(name)
    with pytest.raises(error, match=text):
        score(frame, sessions.pipeline(tmp_path), order=order)
    assert sessions.jobs(spark) == before


def test_rows_of_one_order_in_a_stream_are_refused(spark: Any, tmp_path: Path) -> None:
    """Different streams may share a time; two rows of one stream may not, wherever a batch ends."""
    times = pa.array([0, 0, 1, 1, 2, 2, 2], pa.int64()).cast(pa.timestamp("us", "UTC"))
    log = logs.random_log(7).set_column(1, "t", times)
    log = log.set_column(0, "id", pa.array(["x", "y", "x", "y", "y", "x", "x"]))
    logs.write(log, tmp_path / "log" / "0.parquet")
    pipeline = sessions.pipeline(tmp_path, source={"batch_rows": 6})
    frame = spark.read.parquet(str(tmp_path / "log"))
    result = score(frame, pipeline, order=["t"])
    with pytest.raises(DataError) as caught:
        result.summary()
    place = "t=1969-12-31 19:00:00.000002-0500: stream id='x'"
    assert (
        f"{place}: another row of this stream has the same values in the `order` columns (t)"
        in str(caught.value)
    )
    single = frame.where("id != 'x'")
    assert score(single, pipeline, order=["t"]).rows.count() == 3


def test_a_batch_never_ends_between_equal_orders(spark: Any, tmp_path: Path) -> None:
    """All streams have rows at the same times; batches of two rows give the same bits."""
    log = logs.random_log(60)
    times = pa.array([i // 3 for i in range(60)], pa.int64()).cast(pa.timestamp("us", "UTC"))
    log = log.set_column(1, "t", times).set_column(0, "id", pa.array(["x", "y", "z"] * 20))
    logs.write(log, tmp_path / "log" / "0.parquet")
    pipeline = sessions.pipeline(tmp_path, "out", source={"batch_rows": 2})
    pipeline.run()
    found = score(spark.read.parquet(str(tmp_path / "log")), pipeline, order=["t"]).rows.toArrow()
    expected = pq.read_table(tmp_path / "out").cast(found.schema)
    assert sessions.by_stream(found).equals(sessions.by_stream(expected))


def test_rejects_name_the_order_of_their_rows(spark: Any, tmp_path: Path) -> None:
    """An order without a file; keys and times that are null; more of them than allowed."""
    log = logs.random_log(12, streams=3)
    ids = [None if i in (3, 7) else id_ for i, id_ in enumerate(log.column("id").to_pylist())]
    log = log.set_column(0, "id", pa.array(ids)).append_column("offset", pa.array(range(100, 112)))
    logs.write(log, tmp_path / "log" / "0.parquet")
    source = {"bad": "reject", "rename": {"id": "stream"}}
    frame = spark.read.parquet(str(tmp_path / "log")).withColumnRenamed("id", "stream")
    result = score(frame, sessions.pipeline(tmp_path, source=source), order="offset")
    found = sorted(result.rejects.toArrow().to_pylist(), key=lambda row: row["order/offset"])
    assert [row["order/offset"] for row in found] == [103, 107]
    assert [row["reason"] for row in found] == ["column 'id': key is null"] * 2
    assert all(row["file"] is row["row"] is None for row in found)
    assert found[0]["a"] == log.column("a")[3].as_py()
    strict = sessions.pipeline(tmp_path, source={**source, "max_rejects": 1})
    with pytest.raises(DataError, match=r"2 rejected rows, more than \[source\] max"):
        score(frame, strict, order=["offset"], partitions=1).summary()
