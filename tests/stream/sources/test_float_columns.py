"""A column that was integer becomes float, as pandas writes it: one rule for all formats of files.

Each test also runs with values that a text format cannot read in the type of their column.
"""

import json
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contracts.rows_files import SOURCE_FORMATS, write_arrow, write_parquet
from jobs.engines.in_process import TasksHere
from jobs.engines.same import assert_same

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, DataError, DTypeError
from streamrnn.jobs.engines import opening
from streamrnn.outputs import compact, read_states, verify
from streamrnn.stream.scoring.summary import Summary

pytestmark = pytest.mark.usefixtures("model_dir")

TYPED = {"parquet": write_parquet, "arrow": write_arrow}
BIG = 2**60 + 1
"""An integer that float64 cannot hold."""


def write(
    name: str, day: int, b: list[Any], folder: str = "in", big: list[int] | None = None
) -> None:
    """A file with a value of `b` a row, in text formats spelled as Python does."""
    n = range(len(b))
    columns: dict[str, Any] = {
        "id": ["xyz"[i % 3] for i in n],
        "t": [100 * day + i for i in n],
        "a": [0.25 * (i % 7) for i in n],
        "b": b,
        "big": big or [BIG] * len(b),
    }
    path = Path(folder) / f"{day}.{name}"
    path.parent.mkdir(exist_ok=True)
    if name in TYPED:
        TYPED[name](pa.table(columns), path)
        return
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if name == "ndjson":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    lines = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
    path.write_text("\n".join([",".join(columns), *lines, ""]))


def run(
    name: str, out: str = "out", columns: str = "id t", path: str = "in", **source: Any
) -> Summary:
    source = {"nulls": 0, "format": name, **source}
    tables = {"source": source, "output": {"columns": columns.split()}}
    return Pipeline.from_dict(logs.config(path, "m.safetensors", out, **tables)).run()


def rows(out: str = "out") -> list[pa.Table]:
    return [pq.read_table(part) for part in sorted(Path(out).glob("*.parquet"))]


def scores(out: str = "out") -> list[float]:
    return [v for part in rows(out) for v in part["score"].to_pylist()]


FORMATS = pytest.mark.parametrize("name", sorted(SOURCE_FORMATS))


@FORMATS
@pytest.mark.parametrize("between", [False, True], ids=["one run", "two runs"])
@pytest.mark.parametrize("odd", [1.0, 2.5])
def test_a_column_that_is_a_feature_alone_is_read_as_any_number(
    name: str, between: bool, odd: float
) -> None:
    """The outputs and states are those of a log of floats, however it is cut."""
    days: list[list[Any]] = [[1, 2, 3, 4], [odd, None, 3.0, 4.0], [5, 6, 7, 8]]
    for day, b in enumerate(days):
        write(name, day, b)
        write("parquet", day, [None if v is None else float(v) for v in b], "floats")
        if between:
            run(name, batch_rows=3)
    if not between:
        run(name)
    run("parquet", "right", path="floats")
    assert scores() == scores("right")
    assert read_states("out").equals(read_states("right"))


@pytest.mark.parametrize("name", ["csv", "ndjson"])
@pytest.mark.parametrize("size", [3, 100_000])
def test_a_fraction_far_into_a_file_makes_a_feature_float_from_there_on(
    name: str, size: int
) -> None:
    """Whether the first blocks have been read, or not, and wherever the run is resumed."""
    b = [1] * 70_000 + [2.5] + [3] * 10
    write(name, 0, b)
    write("parquet", 0, [float(v) for v in b], "floats")
    run(name, batch_rows=size * 20_000 if size < 9 else size)
    run("parquet", "right", path="floats")
    assert scores() == scores("right")


@FORMATS
def test_a_copied_integer_column_takes_whole_floats_as_integers(name: str) -> None:
    """Integers beside it keep all their digits; also as a key or a time."""
    write(name, 0, [1, 2, 3])
    run(name, columns="id t b big")
    write(name, 1, [1.0, None, -3.0])
    run(name, columns="id t b big")
    first, second = rows()
    assert first.schema == second.schema
    assert second["b"].to_pylist() == [1, None, -3]
    assert second["big"].to_pylist() == [BIG] * 3
    run(name, "keyed", key="b", features=["a", "t"], bad="reject")
    assert read_states("keyed")["b"].to_pylist() == [1, 2, 3, -3]


@FORMATS
def test_a_fraction_in_a_copied_integer_column_is_rejected_or_an_error(name: str) -> None:
    write(name, 0, [1, 2, 3])
    run(name, columns="id b")
    write(name, 1, [1.0, 2.5, 3.0])
    with pytest.raises(DataError) as error:
        run(name, columns="id b")
    message = str(error.value)
    for part in (f"1.{name}: row 1 (from 0)", "column 'b': expected int64", "received"):
        assert part in message
    assert "2.5" in message
    assert 'types = { b = "float64" }' in message
    assert message.count(f"1.{name}") == 1
    assert "damaged" not in message
    summary = run(name, columns="id b", bad="reject")
    assert (summary.rows, summary.rejected) == (3, 1)
    assert rows()[-1]["b"].to_pylist() == [1, 3]
    (reject,) = rows("out.rejects")[0].to_pylist()
    assert (reject["row"], reject["b"]) == (1, None)
    assert "column 'b': expected int64" in reject["reason"]
    assert "2.5" in reject["reason"]


@FORMATS
def test_an_output_may_widen_an_integer_column_to_float(name: str) -> None:
    """As the message says: parts before keep their integers, and readers see both."""
    write(name, 0, [1, 2, 3])
    run(name, columns="id b")
    write(name, 1, [1.0, 2.5, 3.0])
    run(name, columns="id b", types={"b": "float64"})
    write(name, 2, [7, 8, 9])
    run(name, columns="id b", types={"b": "float64"})
    assert [str(part.schema.field("b").type) for part in rows()] == ["int64", "double", "double"]
    assert [part["b"].to_pylist() for part in rows()][1:] == [[1, 2.5, 3], [7, 8, 9]]
    assert verify("out").rows == 9
    for types in ({}, {"b": "int64"}):
        with pytest.raises(CheckpointError, match=r"source\.types"):
            run(name, columns="id b", types=types)
    compact("out")
    assert [v for part in rows() for v in part["b"].to_pylist()] == [1, 2, 3, 1, 2.5, 3, 7, 8, 9]
    run(name, columns="id b", types={"b": "float64"})


@pytest.mark.parametrize("name", ["csv", "ndjson"])
@pytest.mark.parametrize("options", [{}, {"batch_rows": 2}, {"sort": "file"}], ids=str)
def test_bad_reject_takes_cells_that_cannot_be_read(name: str, options: dict[str, Any]) -> None:
    """Rejects say which, by row; the rows beside them are scored as if they were alone."""
    odd = {"b": "oops", "a": "-", "t": "now"}
    for folder, wrong in (("in", True), ("clean", False)):
        write(name, 0, [1, 2, 3], folder)
        write(name, 1, [4, 5, 6.0, 7], folder)
        path = Path(folder) / f"1.{name}"
        lines = path.read_text().splitlines(keepends=True)
        row = json.loads(lines[0]) if name == "ndjson" else None
        for column, text in odd.items() if wrong else ():
            if row is None:
                values = dict(zip(lines[0].strip().split(","), lines[1].split(","), strict=True))
                lines.insert(2, ",".join(({**values, column: text}).values()))
            else:
                lines.insert(1, json.dumps({**row, column: text}) + "\n")
        path.write_text("".join(lines))
    run(name, "right", path="clean", late="apply")
    summary = run(name, bad="reject", late="apply", **options)
    assert (summary.rows, summary.rejected) == (10, 3)
    assert scores() == scores("right")
    assert read_states("out").equals(read_states("right"))
    rejects = rows("out.rejects")[0].to_pylist()
    for column, text in odd.items():
        (row,) = (row for row in rejects if f"column '{column}'" in row["reason"])
        assert text in row["reason"]
        assert row["file"].endswith(f"1.{name}")
    expected = [1, 2, 3] if "sort" not in options else [1, 2, 6]
    assert sorted(row["row"] for row in rejects) == expected
    (Path("in") / f"1.{name}").touch()
    assert run(name, bad="reject", late="apply", **options).nothing_new
    with pytest.raises(DataError, match=r"oops|now|.-."):
        run(name, "other", late="apply", **options)


@pytest.mark.parametrize("name", ["csv", "ndjson"])
@pytest.mark.parametrize("row", [0, 2])
def test_bad_reject_takes_a_text_among_the_first_numbers(name: str, row: int) -> None:
    """Which would make the column text: it gets the type of the values beside it."""
    b: list[Any] = [1, 2, 3, 4]
    b[row] = "oops"
    write(name, 0, b)
    if name == "ndjson":  # pyarrow infers no type of such a file
        summary = run(name, bad="reject", types={"b": "int64"})
    else:
        summary = run(name, bad="reject")
    assert (summary.rows, summary.rejected) == (4, 1)
    assert rows("out.rejects")[0]["row"].to_pylist() == [row]


def test_a_feature_of_texts_alone_is_an_error_with_bad_reject() -> None:
    write("csv", 0, ["x", "y"])
    with pytest.raises(DTypeError, match="column 'b'"):
        run("csv", bad="reject")


def test_shards_reject_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(3))
    for name in ("csv", "ndjson"):
        write(name, 0, [1, 2, 3, 4, 5])
        write(name, 1, [1, "oops", 2.5, "-", 3])
    source = {"nulls": 0, "format": "csv", "bad": "reject", "batch_rows": 2}
    for out, engine in (("right", {}), ("out", {"type": "ray", "shards": 3, "epoch_rows": 4})):
        config = logs.config("in", "m.safetensors", out, source=source, engine=engine)
        config["output"] = {"columns": ["id", "t"]}
        assert Pipeline.from_dict(config).run().rejected == 2
    assert_same("right", "out")


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("dicts", [False, True])
def test_process_takes_whole_floats_and_rejects_others(align: bool, dicts: bool) -> None:
    source = {"nulls": 0, "bad": "reject"}
    output = {"columns": ["id", "n"]}
    config = logs.config("in", "m.safetensors", None, source=source, output=output)
    pipeline = Pipeline.from_dict(config)

    def call(t: int, *n: Any) -> list[Any]:
        size = len(n)
        columns = {"id": ["x"] * size, "t": range(t, t + size), "a": [0.5] * size, "b": [1] * size}
        data = pa.table({**columns, "n": n})
        answer = pipeline.process(data.to_pylist() if dicts else data, align=align)
        found: list[Any] = answer["n"].to_pylist()
        return found

    assert call(0, 1, 2) == [1, 2]
    assert call(2, 3.0, None) == [3, None]
    assert call(4, 5.0, 2.5, 7.0) == ([5, None, 7] if align else [5, 7])
