"""Types of columns of text that have no values at first, over several runs."""

from pathlib import Path
from typing import Any

import logs
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import DataError, MissingFileError
from streamrnn.stream.checkpoints import read_manifest


@pytest.fixture(autouse=True)
def base(model_dir: Path) -> None:
    """A model and a folder, in the working directory."""
    Path("in").mkdir()


def run(day: int, text: str, columns: str = "note", **source: Any) -> int:
    """Write the file of a day and run; return the number of rows read."""
    Path(f"in/{day}.csv").write_text(text)
    tables: dict[str, Any] = {
        "source": {"format": "csv", "nulls": 0, **source},
        "output": {"columns": columns.split()},
    }
    rows: int = Pipeline.from_dict(logs.config("in", "m.safetensors", "out", **tables)).run().rows
    return rows


def rows(day: int, b: str, note: str) -> str:
    return f"id,t,a,b,note\nx,2024-01-0{day}T00:00:00Z,1.5,{b},{note}\n"


def kinds() -> dict[str, str]:
    found: dict[str, str] = read_manifest("out").config["source.schema"]
    return found


def test_a_feature_keeps_the_type_of_its_first_values_in_later_runs() -> None:
    run(1, rows(1, "", "x"))
    assert kinds()["b"] == "null"
    run(2, rows(2, "", "x"))
    run(3, rows(3, "5", "x"))
    assert kinds()["b"] == "int64"
    with pytest.raises(DataError, match=r"column 'b': expected int64, received 'true'"):
        run(4, rows(4, "true", "x"))


def test_a_carried_column_without_values_is_text() -> None:
    """Parts of an output have one type for it."""
    run(1, rows(1, "1", ""))
    assert kinds()["note"] == "string"
    run(2, rows(2, "1", "hello"))
    run(3, rows(3, "1", "7"))
    assert pq.read_table("out")["note"].to_pylist() == [None, "hello", "7"]


def test_a_type_that_an_output_cannot_change_is_named() -> None:
    run(1, rows(1, "", "x"), columns="b")
    with pytest.raises(DataError, match=r"'b': expected null.*no values there.*--full-refresh"):
        run(2, rows(2, "5", "x"), columns="b")


@pytest.mark.parametrize("start", ["", "id,t,a,b,note\n"])
def test_a_file_without_rows_is_not_used_until_it_has_some(start: str) -> None:
    with pytest.raises(
        (DataError, MissingFileError), match=r"1\.csv: .*(has no rows yet|it is empty)"
    ):
        run(1, start)
    run(1, rows(1, "1", "x"))
    assert run(2, start) == 0
    assert len(read_manifest("out").sources) == 1
    assert run(2, rows(2, "1", "x")) == 1
