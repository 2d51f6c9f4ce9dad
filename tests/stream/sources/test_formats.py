"""Formats of source files: which files are read as which. (What all keep: tests/contracts.)"""

import re
import shutil
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from contracts.rows_files import SOURCE_FORMATS, write_files

from streamrnn import Pipeline
from streamrnn.errors import ConfigError, DataError, MissingFileError
from streamrnn.pipeline import draft_pipeline
from streamrnn.stream.sources import SOURCE_FORMATS as FORMATS
from streamrnn.stream.sources import list_files, suffixes_of

LOG = logs.random_log(300, nulls=0.1)


@pytest.fixture(autouse=True)
def base(model_dir: Path) -> Path:
    """A model and the log in each format, in the working directory."""
    for name in FORMATS:
        write_files(LOG, name, model_dir / name)
    return model_dir


def _run(path: str, out: str, **source: Any) -> Any:
    config = logs.config(path, "m.safetensors", out, source={"nulls": "previous", **source})
    return Pipeline.from_dict(config).run()


def _rows(out: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(p) for p in sorted(Path(out).glob("*.parquet"))])


@pytest.mark.parametrize("name", FORMATS)
def test_a_pattern_and_files_one_by_one_give_the_rows_of_the_directory(name: str) -> None:
    """By their names: nothing says which format they are of."""
    _run("parquet", "right")
    _run(f"{name}/*", "pattern")
    assert _rows("pattern").equals(_rows("right"))
    suffix = FORMATS[name].suffixes[0]
    for i in range(4):
        _run(f"{name}/{i}{suffix}", "single")
    assert _rows("single").equals(_rows("right"))


def test_a_directory_is_of_one_format() -> None:
    """Files of another format beside them are passed over, as tables of states may lie there."""
    feather.write_feather(LOG, "parquet/more.feather")
    assert len(list_files("parquet")) == 4
    assert len(list_files("parquet", suffixes_of("arrow"))) == 1
    with pytest.raises(MissingFileError, match=r"no file to read .*\.arrow or \.feather"):
        _run("parquet/none*", "none", format="arrow")


@pytest.mark.parametrize("name", FORMATS)
def test_a_directory_of_one_other_format_is_read_without_its_name(name: str) -> None:
    """Also when files come later; a draft of a pipeline finds them, too."""
    _run("parquet", "right")
    _run(name, "out")
    assert _rows("out").equals(_rows("right"))
    (Path(name) / "notes.txt").write_text("not a row\n")
    summary = _run(name, "out")
    assert summary.nothing_new
    assert f'path = "{name}"' in draft_pipeline(name, "m.safetensors").text


def test_a_directory_of_several_other_formats_is_refused_with_their_numbers() -> None:
    shutil.copytree("csv", "mixed")
    shutil.copy("ndjson/0.ndjson", "mixed/0.ndjson")
    message = re.escape(
        "[source] path: mixed: expected files of one format, found 4 files of CSV and 1 file of "
        'NDJSON. Set [source] format = "csv" or "ndjson", or name the files by a pattern'
    )
    with pytest.raises(ConfigError, match=message):
        _run("mixed", "out")
    with pytest.raises(ConfigError, match=message):
        draft_pipeline("mixed", "m.safetensors")
    _run("csv", "right")
    _run("mixed", "out", format="csv")
    assert _rows("out").equals(_rows("right"))


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
def test_arrow_streams_and_compressed_files_with_dictionaries_are_read(codec: str | None) -> None:
    """A stream in a file of any of the names, as its beginning shows."""
    _run("parquet", "right")
    options = pa.ipc.IpcWriteOptions(compression=codec)
    coded = LOG.set_column(0, "id", LOG["id"].dictionary_encode())
    for path, writer in (("0.arrows", pa.ipc.new_stream), ("0.feather", pa.ipc.new_file)):
        with writer(path, coded.schema, options=options) as to:
            to.write_table(coded, max_chunksize=50)
        _run(path, f"out{path}", batch_rows=70)
        assert _rows(f"out{path}").equals(_rows("right"))
    Path("1.arrow").write_bytes(Path("0.arrows").read_bytes()[:-9])
    with pytest.raises(DataError, match="end of the stream is missing: is it still being written"):
        _run("1.arrow", "torn")


def test_damaged_values_of_an_arrow_file_are_reported() -> None:
    """Offsets that point elsewhere would be followed."""
    columns = {"id": ["abc"] * 50, "t": LOG["t"].slice(0, 50), "a": [0.0] * 50, "b": [1] * 50}
    table = pa.table(columns)
    Path("damaged").mkdir()
    SOURCE_FORMATS["arrow"].write(table, Path("damaged/0.arrow"))
    data = bytearray(Path("damaged/0.arrow").read_bytes())
    at = data.index(b"".join(n.to_bytes(4, "little") for n in (0, 3, 6, 9)))
    data[at + 8 : at + 12] = (2**30).to_bytes(4, "little")
    Path("damaged/0.arrow").write_bytes(data)
    with pytest.raises(DataError, match=r"0\.arrow: cannot be read after row 0"):
        _run("damaged", "out", format="arrow")
