"""Files of one source whose columns have other types: lossless ones are cast, others refused."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from selection import first_quick

from streamrnn import Pipeline
from streamrnn.cli.run import in_words
from streamrnn.errors import CheckpointError, DataError, StreamRNNError
from streamrnn.outputs import read_states
from streamrnn.stream.checkpoints import read_manifest
from streamrnn.stream.scoring.summary import Summary
from streamrnn.stream.sources import Content, fitted

pytestmark = pytest.mark.usefixtures("model_dir")

DAYS = 6
UTC = "UTC"
# The types that a column may drift to, from those of `_log`.
DRIFTS = {
    "id": (
        pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()), pa.string_view(),
    ),
    "t": tuple(
        pa.timestamp(unit, zone) for unit in ("us", "ms", "ns", "s") for zone in (UTC, "+02:00")
    ),
    "a": (pa.float64(), pa.float32(), pa.decimal128(12, 4), pa.float16()),
    "b": (pa.int32(), pa.int64(), pa.int8(), pa.float64(), pa.float32(), pa.decimal128(20, 2)),
    "n": (pa.int64(), pa.int32(), pa.int16()),
    "x": (pa.float64(), pa.float32()),
}  # fmt: skip


def _log(rows: int = 300, seed: int = 7) -> pa.Table:
    """Values that each type of DRIFTS can hold; some rows are late, some of `b` are null."""
    log = logs.random_log(rows, seed=seed, nulls=0.1, jitter=3)
    rng = np.random.default_rng(seed)
    times = log["t"].cast(pa.timestamp("s", UTC)).cast(pa.timestamp("us", UTC))
    quarters = pa.array(rng.integers(-40, 40, rows) / 4)
    log = log.set_column(1, "t", times).set_column(2, "a", quarters)
    return log.append_column("n", pa.array(rng.integers(-99, 99, rows))).append_column(
        "x", pa.array(rng.integers(-99, 99, rows) / 8)
    )


def _config(path: str = "in", out: str = "out", **tables: Any) -> dict[str, Any]:
    tables["source"] = {"late": "reject", "nulls": "previous", **tables.get("source", {})}
    tables["output"] = {"columns": ["id", "t", "n", "x"], **tables.get("output", {})}
    return logs.config(path, "m.safetensors", out, **tables)


def _run(path: str = "in", out: str = "out", **tables: Any) -> Summary:
    return Pipeline.from_dict(_config(path, out, **tables)).run()


def _day(table: pa.Table, day: int, folder: str = "in", **types: pa.DataType) -> None:
    for name, kind in types.items():
        table = table.set_column(table.schema.names.index(name), name, _cast(table[name], kind))
    # Arrow keeps string views, float16 and zones as they are, Parquet does not.
    path = Path(folder) / f"day-{day}.arrow"
    path.parent.mkdir(exist_ok=True)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=17)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type).dictionary_encode().cast(kind)
    return column.cast(kind)


def _rows(folder: str) -> pa.Table:
    parts = [pq.read_table(part) for part in sorted(Path(folder).glob("*.parquet"))]
    return pa.concat_tables(parts).combine_chunks()


def _bits(table: pa.Table) -> list[Any]:
    """The types and the bytes of all values."""
    values = [
        np.asarray(column.combine_chunks().fill_null(-7.5)).tobytes()
        if pa.types.is_floating(column.type)
        else column.to_pylist()
        for column in table.columns
    ]
    return [str(table.schema.remove_metadata()), *values]


def _without_paths(rejects: pa.Table) -> pa.Table:
    return rejects.drop(["file"])


@pytest.mark.parametrize("seed", first_quick(range(12), 2))
def test_drifting_types_change_no_bit(seed: int) -> None:
    """Each file has random types, and some days a run of their own: rows, rejects and state.

    Slow: more draws.
    """
    rng = np.random.default_rng(seed)
    pieces = [_log(seed=seed).slice(50 * day, 50) for day in range(DAYS)]
    source = {"format": "arrow", "batch_rows": int(rng.integers(7, 60))}
    cast = 0
    for day, piece in enumerate(pieces):
        _day(piece, day, "one")
        drift = {
            name: kinds[rng.integers(len(kinds))] if day else kinds[0]
            for name, kinds in DRIFTS.items()
        }
        _day(piece, day, **drift)
        if rng.random() < 0.5:
            cast += _run(source={**source, "batch_rows": int(rng.integers(7, 60))}).cast
        if rng.random() < 0.3:
            (Path("in") / f"day-{rng.integers(day + 1)}.arrow").touch()
    cast += _run(source=source).cast
    expected = _run("one", "right", source={"format": "arrow"})
    assert expected.cast == 0 < cast
    assert expected.rejected > 0
    assert _bits(_rows("out")) == _bits(_rows("right"))
    rejects = [_without_paths(_rows(f"{name}.rejects")) for name in ("out", "right")]
    assert _bits(rejects[0]) == _bits(rejects[1])
    assert read_states("out").equals(read_states("right"))
    assert _run(source=source).nothing_new


def _two_days(**types: pa.DataType) -> pa.Table:
    """Day 0 as it is, day 1 with other types."""
    log = _log(100)
    for day in range(2):
        _day(log.slice(50 * day, 50), day, **(types if day else {}))
    return log


REFUSED = [
    ("n", [5, 3_000_000_000], pa.int64(), "expected int32 as in {}, received 3000000000"),
    ("x", [0.5, 0.1], pa.float64(), "expected float as in {}, received 0.1"),
    ("t", [1_000, 1_700_000_000_000_001], pa.timestamp("us", UTC), r"received 2023-11-14 22:13:20"),
    ("n", ["1"], pa.string(), "expected int32 as in {}, received string. Cast one of"),
    ("n", [1.0, 2.5], pa.float64(), r"expected int32 as in {}, received 2.5 \(double\)"),
    ("n", [1.0, float("nan")], pa.float64(), r"expected int32 as in {}, received nan \(double\)"),
    ("t", [1000], pa.timestamp("ms"), r"expected timestamp\[ms, tz=UTC\] as in {}, received"),
    (
        "x",
        [Decimal("0.30"), Decimal("123456.78")],
        pa.decimal128(20, 2),
        r"expected float as in {}, received Decimal\('123456.78'\) \(decimal128\(20, 2\)\)",
    ),
    (
        "x",
        [Decimal("0.5"), Decimal("0.1234567")],
        pa.decimal128(38, 18),
        r"received Decimal\('0.123456700000000000'\) .*, which float cannot hold",
    ),
    ("n", [Decimal(1)], pa.decimal128(9, 0), "expected int32 as in {}, received decimal128"),
    ("id", [b"a"], pa.binary(), "expected string as in {}, received binary"),
]
"""Column, values and type of a later file, and the message about it."""


@pytest.mark.parametrize("alone", [False, True], ids=["one run", "two runs"])
@pytest.mark.parametrize(("name", "values", "kind", "message"), REFUSED)
def test_a_value_that_would_change_is_refused(
    name: str, values: list[Any], kind: pa.DataType, message: str, alone: bool
) -> None:
    """With file, column, both types, and the row of the value."""
    first = {"n": pa.int32(), "x": pa.float32(), "t": pa.timestamp("ms", UTC)}
    log = _log(100)
    _day(log.slice(0, 50), 0, **first)
    source = {"format": "arrow", "batch_rows": 4}
    if alone:
        _run(source=source)
    column = pa.chunked_array([pa.array((values[:1] * 9 + values[-1:] * 41), kind)])
    piece = log.slice(50, 50)
    _day(piece.set_column(piece.schema.names.index(name), name, column), 1)
    origin = "the files of earlier runs" if alone else "in/day-0.arrow"
    with pytest.raises(DataError, match=message.replace("{}", origin)) as caught:
        _run(source=source)
    assert str(caught.value).startswith("in/day-1.arrow: ")
    assert f"column '{name}'" in str(caught.value)
    assert ("row 9 (from 0)" in str(caught.value)) == (len(values) > 1)


@pytest.mark.parametrize("first", [UTC, "America/New_York"])
def test_times_in_other_zones_are_the_same_instants(first: str) -> None:
    """Hours are those of the first file's zone, in a run, in later runs, and in process."""
    logs.small_model(features=4).save("m.safetensors")
    log = _log()
    kinds = [pa.timestamp("us", zone) for zone in (first, "Asia/Kolkata", UTC, "+02:00")]
    tables = {
        "source": {"format": "arrow", "time_features": ["hour"]},
        "sink": {"partition_by": {"date": "day(t)"}},
    }
    process = Pipeline.from_dict({**_config(**tables), "sink": {}})
    rows = []
    for day, kind in enumerate(kinds):
        piece = log.slice(75 * day, 75)
        _day(piece, day, t=kind)
        _day(piece, day, "one", t=kinds[0])
        rows.append(process.process(piece.set_column(1, "t", piece["t"].cast(kind))))
        if day != 1:
            _run(**tables)
    _run("one", "right", **tables)
    assert _run(**tables).nothing_new
    parts = [
        {str(p.relative_to(out)): pq.read_table(p) for p in sorted(Path(out).rglob("*.parquet"))}
        for out in ("out", "right")
    ]
    folders = [sorted({name.split("/")[0] for name in part}) for part in parts]
    assert folders[0] == folders[1]
    ours, right = (
        _bits(pa.concat_tables(part.values()).sort_by([("t", "ascending"), ("id", "ascending")]))
        for part in parts
    )
    assert ours == right
    processed = pa.concat_tables(rows).sort_by([("t", "ascending"), ("id", "ascending")])
    assert _bits(processed) == right
    assert read_states("out").equals(read_states("right"))


@pytest.mark.parametrize("seed", range(6))
def test_process_casts_as_a_run_does(seed: int) -> None:
    """Each call has random types: rows, rejects, state and counters of the run over such files."""
    rng = np.random.default_rng(seed)
    process = Pipeline.from_dict(_config())
    rows, rejects = [], []
    for day in range(DAYS):
        types = {
            name: kinds[rng.integers(len(kinds)) if day else 0] for name, kinds in DRIFTS.items()
        }
        _day(_log(seed=seed).slice(50 * day, 50), day, **types)
        with pa.ipc.open_file(Path("in") / f"day-{day}.arrow") as file:
            rows.append(process.process(file.read_all()))
        if process.rejects is not None:
            rejects.append(pa.Table.from_batches([process.rejects]))
    _run(source={"format": "arrow"})
    assert _bits(pa.concat_tables(rows).combine_chunks()) == _bits(_rows("out"))
    assert len(rejects) > 1
    theirs, ours = (
        table.drop(["file", "row"]).combine_chunks()
        for table in (_rows("out.rejects"), pa.concat_tables(rejects))
    )
    assert _bits(ours) == _bits(theirs)
    assert pa.table(process.state).equals(read_states("out"))


@pytest.mark.parametrize(("name", "values", "kind", "message"), REFUSED)
def test_process_refuses_what_a_run_refuses(
    name: str, values: list[Any], kind: pa.DataType, message: str
) -> None:
    """With its words; the call counts nothing, and the next one goes on."""
    first = {"n": pa.int32(), "x": pa.float32(), "t": pa.timestamp("ms", UTC)}
    log = _log(100)
    for column, other in first.items():
        log = log.set_column(log.schema.names.index(column), column, _cast(log[column], other))
    pipeline, twin = (Pipeline.from_dict(_config()) for _ in range(2))
    for one in (pipeline, twin):
        one.process(log.slice(0, 50))
    wrong = pa.chunked_array([pa.array((values[:1] * 9 + values[-1:] * 41), kind)])
    piece = log.slice(50)
    with pytest.raises(DataError, match=message.replace("{}", "earlier rows")) as caught:
        pipeline.process(piece.set_column(piece.schema.names.index(name), name, wrong))
    assert str(caught.value).startswith("the batch: ")
    assert ("row 59 (from 0)" in str(caught.value)) == (len(values) > 1)
    assert pipeline.process(piece).equals(twin.process(piece))


@pytest.mark.parametrize("emit", ["every", "final"])
@pytest.mark.parametrize("columns", ["*", ["id", "t", "a", "n"]])
def test_a_column_without_values_in_the_first_call_gets_its_type_later(
    columns: Any, emit: str
) -> None:
    """Also one that the output has, or that a model reads as ids."""
    log = _log(60)
    output = {"columns": columns, "emit": emit}
    nulls = log.slice(0, 10)
    for name in ("a", "b", "n"):
        nulls = nulls.set_column(nulls.schema.names.index(name), name, pa.nulls(10))
    typed = nulls.cast(log.schema)
    found = []
    for first in (nulls, typed):
        pipeline = Pipeline.from_dict(_config(source={"nulls": 0.5}, output=output))
        rows = [pipeline.process(first), pipeline.process(log.slice(10, 1))]
        rows.append(pipeline.process(log.slice(11)))
        last = pipeline.finish()
        found.append(
            ([table.to_pylist() for table in rows], rows[1].schema, last, pa.table(pipeline.state))
        )
    assert found[0] == found[1]


DECIMALS = (
    pa.decimal128,
    pa.decimal256,
    *(getattr(pa, n) for n in ("decimal64",) if hasattr(pa, n)),
)


@pytest.mark.parametrize("columns", ["*", ["id", "t", "a"]])
@pytest.mark.parametrize("make", DECIMALS)
def test_decimals_after_floats_are_taken_as_the_floats_that_they_were(
    make: Callable[[int, int], pa.DataType], columns: Any
) -> None:
    """A column that the output has, too: rows and state are those of files with doubles."""
    log = logs.random_log(100, nulls=0.1)
    cents = [None if a is None else round(a, 2) for a in log["a"].to_pylist()]
    log = log.set_column(2, "a", pa.array(cents))
    decimals = pa.array([None if a is None else Decimal(str(a)) for a in cents], make(18, 4))
    for day, piece in enumerate((log, log.set_column(2, "a", decimals))):
        _day(piece.slice(50 * day, 50), day)
        _day(log.slice(50 * day, 50), day, "one")
    tables = {"source": {"format": "arrow", "late": "apply"}, "output": {"columns": columns}}
    assert _run(**tables).cast == 50
    assert _run("one", "right", **tables).cast == 0
    assert _bits(_rows("out")) == _bits(_rows("right"))
    assert read_states("out").equals(read_states("right"))
    assert _run(**tables).nothing_new


@pytest.mark.parametrize(("kind", "digits"), [(pa.float64(), 15), (pa.float32(), 6)], ids=str)
def test_decimals_become_the_nearest_floats(kind: pa.DataType, digits: int) -> None:
    """As Python converts them; Arrow's cast gives neighbours. Those of more digits are unfit.

    Digits are those without zeros at the end, of any scale.
    """
    rng = np.random.default_rng(3)
    for scale in (0, 1, 2, digits, 22, -3):
        unscaled = rng.integers(-(10**digits) + 1, 10**digits, 500)
        values = [Decimal(int(n)).scaleb(-scale) for n in unscaled]
        array = pa.array([*values, None], pa.decimal128(38, scale))
        found, unfit = fitted(array.slice(1), kind)
        expected = np.array([float(value) for value in values[1:]], kind.to_pandas_dtype())
        assert not unfit
        assert found[:-1].to_numpy().tobytes() == expected.tobytes()
        assert found[-1].as_py() is None
    wide = [Decimal(10**digits + 1), Decimal(1), Decimal(-(10**37)), Decimal(10**digits)]
    assert fitted(pa.array(wide, pa.decimal128(38, 0)), kind)[1] == [0, 2]


@pytest.mark.parametrize("make", DECIMALS)
@pytest.mark.parametrize(("kind", "digits"), [(pa.float64(), 15), (pa.float32(), 6)], ids=str)
def test_zeros_at_the_end_of_a_decimal_do_not_count(
    make: Callable[[int, int], pa.DataType], kind: pa.DataType, digits: int
) -> None:
    """Spark and DuckDB give 0.5 a scale of 18; the oracle is Python's float of its text."""
    rng = np.random.default_rng(5)
    width = {pa.decimal128: 38, pa.decimal256: 76}.get(make, 18)
    for scale in (1, 4, 15, 18, 30, 60):
        if scale > width:
            continue
        values = [Decimal(0)]
        for _ in range(300):
            short = int(rng.integers(-(10**digits) + 1, 10**digits)) // 10 ** int(
                rng.integers(0, digits)
            )
            value = Decimal(short).scaleb(-int(rng.integers(0, min(scale, 22) + 1)))
            if abs(value) < 10 ** (width - scale):
                values.append(value)
        array = pa.array([None, *values], make(width, scale))
        found, unfit = fitted(array, kind)
        expected = np.array([float(value) for value in values], kind.to_pandas_dtype())
        assert not unfit
        assert found[1:].to_numpy().tobytes() == expected.tobytes()
    long = pa.array([Decimal("0.5"), Decimal("0.1234567890123456")], make(width, 16))
    assert fitted(long, kind)[1] == [1]


def test_the_first_file_of_the_output_gives_the_types() -> None:
    """Also when it is gone: the rows written and the state keep theirs."""
    _two_days(id=pa.large_string(), t=pa.timestamp("ns", UTC), n=pa.int16(), b=pa.float64())
    Path("in/day-1.arrow").rename("later.arrow")
    _run(source={"format": "arrow"})
    schema = read_manifest("out").config["source.schema"]
    Path("in/day-0.arrow").unlink()
    Path("later.arrow").rename("in/day-1.arrow")
    pipeline = Pipeline.from_dict(_config(source={"format": "arrow"}))
    assert pipeline.validate() == []
    assert pipeline.explain()["new_files"] == 1
    assert pipeline.run().cast == 4 * 50
    assert read_manifest("out").config["source.schema"] == schema
    assert _rows("out").num_rows > 50


def test_casts_are_counted_and_a_change_of_encoding_is_none() -> None:
    _two_days(id=pa.dictionary(pa.int32(), pa.string()))
    assert _run(source={"format": "arrow"}).cast == 0
    _two_days(b=pa.int64(), a=pa.float32())
    summary = _run(out="other", source={"format": "arrow"})
    assert summary.cast == 100
    assert "note     100 values cast: their file has another type" in in_words(summary)


def test_each_file_checks_its_features_by_its_own_type() -> None:
    """An integer that float32 cannot hold is a fault; the same number as a double is rounded."""
    log = _log(100)
    large = pa.chunked_array([pa.array([16_777_217] * 50)])
    for day, kind in enumerate((pa.float64(), pa.int64())):
        _day(log.slice(50 * day, 50).set_column(3, "b", large.cast(kind)), day)
    with pytest.raises(DataError, match=r"in/day-1\.arrow: row 0 .*integer is not exactly"):
        _run(source={"format": "arrow"})
    _day(log.slice(50, 50).set_column(3, "b", pa.array(["x"] * 50)), 1)
    with pytest.raises(StreamRNNError, match=r"in/day-1\.arrow: .*'b': expected number or boolean"):
        _run(source={"format": "arrow"})


def test_a_rejected_value_that_the_rejects_cannot_hold_is_in_the_reason() -> None:
    """The rejects have one type for a column, that of the first file."""
    log = _log(100)
    _day(log.slice(0, 50), 0)
    odd = pa.array([float("nan")] + [0.5] * 49)
    _day(log.slice(50, 50).set_column(3, "b", odd), 1)
    _run(source={"format": "arrow", "bad": "reject"})
    rejects = _rows("out.rejects")
    assert rejects["b"].type == pa.int32()
    last = [row for row in rejects.to_pylist() if row["file"].endswith("day-1.arrow")]
    assert last[0]["b"] is None
    assert last[0]["reason"].endswith("'b' holds nan, which is null here: int32 cannot hold it")


def test_a_stream_on_stdin_is_cast_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run after run, to the types of the first."""
    import io
    import sys
    from types import SimpleNamespace

    def stdin(table: pa.Table, bad: str = "error") -> Summary:
        out = io.BytesIO()
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(out.getvalue())))
        return _run("-", source={"bad": bad})

    log = _log(100)
    assert stdin(log.slice(0, 50)).cast == 0
    other = log.slice(50).set_column(0, "id", log["id"].slice(50).cast(pa.large_string()))
    assert stdin(other.set_column(5, "n", other["n"].cast(pa.int32()))).cast == 100
    wrong = log.set_column(5, "n", pc.add(log["n"].cast(pa.float64()), 0.5))
    with pytest.raises(DataError, match=r"stdin: row 0 .*'n': expected int64 as in earlier runs"):
        stdin(wrong)
    assert stdin(wrong, "reject").rejected == 100


@pytest.mark.parametrize("first", [pa.int64(), pa.float64(), pa.float16(), pa.int8()], ids=str)
@pytest.mark.parametrize("kind", [pa.int32(), pa.float32(), pa.float64()], ids=str)
def test_a_source_rewritten_in_another_type_scores_nothing_twice(
    first: pa.DataType, kind: pa.DataType
) -> None:
    """A used file that is cast is as it was; so is one file with the rows of all."""
    for day in range(3):
        _day(_log().slice(100 * day, 100), day, b=first if day < 2 else kind)
    source = {"format": "arrow", "late": "apply"}
    assert _run(source=source).rows == 300
    _day(_log().slice(100, 100), 1, b=kind, t=pa.timestamp("ns", UTC), id=pa.large_string())
    assert _run(source={**source, "batch_rows": 7}).nothing_new
    for day in range(3):
        Path(f"in/day-{day}.arrow").unlink()
    _day(_log(), 9, b=pa.float32())
    with pytest.raises(CheckpointError, match=r"rows of 3 used files .*\n.*day-9\.arrow"):
        _run(source=source)


def test_a_value_that_the_first_type_cannot_hold_is_a_value_of_its_own() -> None:
    """As content: fractions, large and negative numbers, NaN; whatever the batches."""
    odd = [1.5, 2.0**53, -1.0, 3e9, float("nan"), 7.0, None, -0.5]
    for first in (pa.int64(), pa.uint8(), pa.float16()):
        schema = pa.schema([("b", first)])
        contents = {}
        for i, value in enumerate(odd):
            batch = pa.record_batch({"b": pa.array([value], pa.float64())})
            contents[i] = Content.of(batch, None, schema).digest
        assert len(set(contents.values())) == len(odd)
        whole = pa.record_batch({"b": pa.array(odd, pa.float64())})
        assert Content.of(whole, None, schema).digest == sum(contents.values()) % 2**64
        own = pa.record_batch({"b": pa.array([7], first)})
        assert Content.of(own, None).digest == contents[5]


def test_times_that_cannot_be_cast_are_an_error_of_their_row() -> None:
    """Also where files are put in order by them, or a note would show them."""
    log = _log(100)
    logs.write(log.slice(0, 50), Path("in/0.parquet"))
    late = pa.array([2**61] * 50, pa.timestamp("ms", UTC))
    logs.write(log.slice(50).set_column(1, "t", late), Path("in/1.parquet"))
    for order in ("path", "time"):
        with pytest.raises(DataError, match=r"in/1\.parquet"):
            _run(source={"order": order, "late": "apply"})
