"""Formats of source files: the same rows give the same output, read in any pieces."""

from pathlib import Path
from typing import Any, get_args

import logs
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.config.schema import Source
from streamrnn.errors import DataError
from streamrnn.outputs import diff_states
from streamrnn.sources import FORMATS, FileSource, list_files, suffixes_of

LOG = logs.random_log(300, nulls=0.1)


def _write(table: pa.Table, name: str, folder: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i, first in enumerate((0, 120, 120, 300)):
        piece = table.slice(first, (120, 0, 180, 0)[i])
        path = Path(folder, f"{i}{FORMATS[name].suffixes[0]}")
        if name == "parquet":
            pq.write_table(piece, path, row_group_size=50)
        else:
            with pa.ipc.new_file(path, piece.schema) as writer:
                writer.write_table(piece, max_chunksize=50)


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and the log in each format, in the working directory."""
    logs.small_model().save(tmp_path / "m.safetensors")
    monkeypatch.chdir(tmp_path)
    for name in FORMATS:
        _write(LOG, name, name)
    return tmp_path


def _run(path: str, out: str, **source: Any) -> Any:
    config = logs.config(path, "m.safetensors", out, source={"nulls": "previous", **source})
    return Pipeline.from_dict(config).run()


def _rows(out: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(p) for p in sorted(Path(out).glob("*.parquet"))])


def test_the_pipeline_file_knows_all_formats() -> None:
    formats = set(get_args(Source.model_fields["format"].annotation))
    assert formats == {"auto", *FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows_and_states(name: str) -> None:
    """Whole, in pieces of any size, from a directory, a pattern or a file."""
    _run("parquet", "right", batch_rows=1000)
    for rows in (7, 50, 1000):
        _run(name, f"out-{rows}", batch_rows=rows, format=name)
        assert _rows(f"out-{rows}").equals(_rows("right"))
        assert not diff_states(f"out-{rows}", "right")
    _run(f"{name}/*", "pattern")
    assert _rows("pattern").equals(_rows("right"))
    suffix = FORMATS[name].suffixes[0]
    for i in range(4):
        _run(f"{name}/{i}{suffix}", "single")
    assert _rows("single").equals(_rows("right"))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_resumes_at_every_position(name: str) -> None:
    """All batches from the end of each one are what follows it."""
    source = FileSource(list_files(name, suffixes_of(name)), ["id", "t", "a"], 33, format=name)
    whole = list(source.batches())
    assert sum(each.batch.num_rows for each in whole) == source.total_rows() == 300
    for at, each in enumerate(whole):
        files = list(source.files)
        first = [file.name for file in files].index(each.position.file)
        source.files = files[first:]
        rest = [b.batch for b in source.batches(each.position, each.reading.content)]
        table = pa.Table.from_batches(rest, source.schema)
        assert table.equals(
            pa.Table.from_batches([b.batch for b in whole[at + 1 :]], source.schema)
        )
        source.files = files


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_no_such_file_is_reported(name: str) -> None:
    suffix = FORMATS[name].suffixes[0]
    for text in (b"", b"id,t\n1,2\n" * 50):
        Path(f"torn{suffix}").write_bytes(text)
        with pytest.raises(DataError, match=rf"torn{suffix}: not a readable {FORMATS[name].name}"):
            _run(f"torn{suffix}", "out")


def test_a_directory_is_of_one_format() -> None:
    """Files of another format beside them are passed over, as tables of states may lie there."""
    feather.write_feather(LOG, "parquet/more.feather")
    assert len(list_files("parquet")) == 4
    assert len(list_files("parquet", suffixes_of("arrow"))) == 1
    with pytest.raises(DataError, match=r"there is no file to read .*\.arrow or \.feather"):
        _run("parquet/none*", "none", format="arrow")


def test_damaged_values_of_an_arrow_file_are_reported() -> None:
    """Offsets that point elsewhere would be followed."""
    columns = {"id": ["abc"] * 50, "t": LOG["t"].slice(0, 50), "a": [0.0] * 50, "b": [1] * 50}
    table = pa.table(columns)
    _write(table, "arrow", "damaged")
    data = bytearray(Path("damaged/0.arrow").read_bytes())
    at = data.index(b"".join(n.to_bytes(4, "little") for n in (0, 3, 6, 9)))
    data[at + 8 : at + 12] = (2**30).to_bytes(4, "little")
    Path("damaged/0.arrow").write_bytes(data)
    with pytest.raises(DataError, match=r"0\.arrow: cannot be read after row 0"):
        _run("damaged", "out", format="arrow")
