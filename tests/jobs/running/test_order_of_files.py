"""The order in which files are read, and what is said where their times go back."""

from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.cli.run import in_words
from streamrnn.errors import ConfigError, DataError, LateRowError

LOG = logs.random_log(1200)
PIECES = [LOG.slice(100 * i, 100) for i in range(12)]


def _config(path: str = "in", out: str = "out", **tables: Any) -> dict[str, Any]:
    return logs.config(path, "m.safetensors", out, **tables)


def _scores(out: str = "out") -> list[dict[str, Any]]:
    parts = sorted(Path(out).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts]).to_pylist()


def _in_one_file() -> list[dict[str, Any]]:
    logs.write(LOG, Path("one/file.parquet"))
    Pipeline.from_dict(_config("one", "right")).run()
    return _scores("right")


@pytest.mark.parametrize(
    "name", ["part-{}.parquet", "year=2024/month=1/day={}/part-0.parquet"], ids=["names", "hive"]
)
@pytest.mark.parametrize("timed", [True, False], ids=["time", "no time"])
def test_integers_are_read_in_their_order(model_dir: Path, name: str, timed: bool) -> None:
    """As Spark, DuckDB and Polars write them; with a time and without one, which cannot tell."""
    for day, piece in enumerate(PIECES, 1):
        logs.write(piece, Path("in") / name.format(day))
    config = _config(output={"columns": ["id", "t"]})
    if not timed:
        del config["source"]["time"]
    Pipeline.from_dict(config).run()
    assert _scores() == _in_one_file()


def _backwards(pieces: slice = slice(None)) -> None:
    """Files whose names are in an order that their times are not."""
    for name, piece in list(zip("lkjihgfedcba", PIECES, strict=True))[pieces]:
        logs.write(piece, Path("in") / f"{name}.parquet", row_group=30)


def test_order_by_time_is_that_of_the_statistics(model_dir: Path) -> None:
    """In one run and in the next."""
    for pieces in (slice(3), slice(3, None)):
        _backwards(pieces)
        Pipeline.from_dict(_config(source={"order": "time"})).run()
    assert _scores() == _in_one_file()


def test_dates_beyond_the_calendar_are_in_order(model_dir: Path) -> None:
    """Parquet's dates reach further than Python's."""
    days = pa.array([-(10**8), 0, 10**8], pa.int32())
    log = LOG.slice(0, 3).set_column(LOG.column_names.index("t"), "t", days.cast(pa.date32()))
    for number, name in enumerate("cba"):
        logs.write(log.slice(number, 1), Path(f"in/{name}.parquet"))
    pipeline = Pipeline.from_dict(_config(source={"order": "time"}))
    pipeline.validate()
    pipeline.run()
    parts = [pq.read_table(part) for part in Path("out").glob("*.parquet")]
    assert pa.concat_tables(parts)["t"].cast(pa.int32()).to_pylist() == days.to_pylist()


def test_order_by_time_needs_statistics_and_a_time(model_dir: Path) -> None:
    _backwards()
    pq.write_table(PIECES[3], "in/e.parquet", write_statistics=False)
    with pytest.raises(DataError, match=r'in/e\.parquet: \[source\] order = "time" requires'):
        Pipeline.from_dict(_config(source={"order": "time"})).run()
    config = _config(source={"order": "time"})
    del config["source"]["time"]
    with pytest.raises(ConfigError, match=r"source\.order: needs source\.time"):
        Pipeline.from_dict(config)


def test_order_by_time_says_that_int96_has_no_statistics(model_dir: Path) -> None:
    """They were written: to ask for them would help nobody."""
    Path("in").mkdir()
    pq.write_table(PIECES[3], "in/e.parquet", use_deprecated_int96_timestamps=True)
    with pytest.raises(DataError, match=r"'t': it is stored as INT96, .*Write timestamps"):
        Pipeline.from_dict(_config(source={"order": "time"})).run()


def test_order_by_time_says_that_a_partition_is_null(model_dir: Path) -> None:
    for name in ("t=3", "t=__HIVE_DEFAULT_PARTITION__"):
        logs.write(PIECES[3].drop_columns(["t"]), Path("in") / name / "e.parquet")
    with pytest.raises(
        DataError, match=r"in/t=__HIVE.*'t': it is a partition, whose value is null"
    ):
        Pipeline.from_dict(_config(source={"order": "time"})).run()


def test_a_late_row_names_the_file_that_was_ahead(model_dir: Path) -> None:
    """Both files with their times, and the key that reads them in order; not the files' sorting."""
    logs.write(PIECES[1], Path("in/1.parquet"))
    logs.write(PIECES[0], Path("in/2.parquet"))
    with pytest.raises(LateRowError) as caught:
        Pipeline.from_dict(_config()).run()
    text = str(caught.value)
    assert text.startswith("in/2.parquet: row ")
    times = [PIECES[i]["t"].cast(pa.string()) for i in (1, 0)]
    assert f"in/1.parquet ({times[0][0]} to {times[0][-1]}) was read before in/2.parquet" in text
    assert f"({times[1][0]} to {times[1][-1]})" in text
    assert 'order = "time"' in text
    assert "ORDER BY" not in text
    Pipeline.from_dict(_config(source={"order": "time"})).run()


def test_a_late_row_of_another_run_names_the_file_that_was_used(model_dir: Path) -> None:
    logs.write(PIECES[1], Path("in/1.parquet"))
    Pipeline.from_dict(_config()).run()
    logs.write(PIECES[0], Path("in/2.parquet"))
    with pytest.raises(
        LateRowError, match=r"An earlier run read .*/in/1\.parquet \(2024"
    ) as caught:
        Pipeline.from_dict(_config()).run()
    assert "start over with --full-refresh" in str(caught.value)  # no commit is from before it


def test_a_file_that_is_out_of_order_itself_is_to_be_sorted(model_dir: Path) -> None:
    logs.write(PIECES[0], Path("in/1.parquet"))
    logs.write(PIECES[1].take(pa.array(range(99, -1, -1))), Path("in/2.parquet"))
    for rows in (7, 1000):
        with pytest.raises(LateRowError, match=r"SELECT \* FROM 'in/2\.parquet' ORDER BY t, id"):
            Pipeline.from_dict(_config(source={"batch_rows": rows})).run()


def test_files_that_overlap_are_to_be_merged(model_dir: Path) -> None:
    """Read by time, and still late."""
    for name, rows in (("a", range(0, 100, 2)), ("b", range(1, 100, 2))):
        logs.write(PIECES[0].take(pa.array(rows)), Path("in") / f"{name}.parquet")
    with pytest.raises(LateRowError, match="Their times overlap: merge and sort them"):
        Pipeline.from_dict(_config(source={"order": "time"})).run()


@pytest.mark.parametrize("late", ["drop", "reject", "apply"])
def test_a_run_that_takes_late_rows_notes_files_that_go_back(model_dir: Path, late: str) -> None:
    _backwards()
    summary = Pipeline.from_dict(_config(source={"late": late, "max_rejects": 5000})).run()
    assert "note     times go back from file to file: in/b.parquet (2024" in in_words(summary)
    assert "is read after in/a.parquet (2024" in in_words(summary)


def test_validate_and_explain_say_where_times_go_back(model_dir: Path) -> None:
    _backwards()
    pipeline = Pipeline.from_dict(_config())
    (note,) = pipeline.validate()
    assert note.startswith("times go back from file to file: in/b.parquet (")
    assert "(the first of 11 such places)" in note
    plan = pipeline.explain()
    assert plan["notes"] == [note]
    assert (plan["order"], plan["files"], plan["last_file"]) == ("path", 12, "in/l.parquet")
    assert plan["first_files"] == ["in/a.parquet", "in/b.parquet", "in/c.parquet"]
    sorted_ = Pipeline.from_dict(_config(source={"order": "time"}))
    assert sorted_.validate() == []
    plan = sorted_.explain()
    assert (plan["order"], plan["first_files"][:2]) == ("time", ["in/l.parquet", "in/k.parquet"])


def test_a_preview_reads_files_in_the_order_of_a_run(model_dir: Path) -> None:
    _backwards()
    pipeline = Pipeline.from_dict(_config(source={"order": "time"}))
    found = pipeline.preview(5).to_pylist()
    assert found == _in_one_file()[:5]
