"""Formats of source files, formats of parts and sources keep their contracts, or say why not."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any, get_args

import logs
import pyarrow as pa
import pytest
from contracts.declared import assert_declared, holding
from contracts.rows_files import (
    PART_FORMATS,
    SOURCE_FORMATS,
    SOURCES,
    TABLES,
    read_parts,
    write_files,
)

from streamrnn import Pipeline
from streamrnn.base.plugin import plugin_names
from streamrnn.errors import CheckpointError, ConfigError, DataError
from streamrnn.outputs import compact, diff_states, verify
from streamrnn.stream import sources
from streamrnn.stream.config import values
from streamrnn.stream.config.load import Config
from streamrnn.stream.config.schema import SinkSection
from streamrnn.stream.sinks import PART_FORMATS as PARTS
from streamrnn.stream.sources import SOURCE_FORMATS as FILES

FILE = "tests/contracts/rows_files.py"
LOG = logs.random_log(300, nulls=0.1, jitter=3)
COLUMNS = ["id", "t", "a"]


def source_classes() -> list[str]:
    """What gives record batches, wherever in the room of sources; not what only describes it."""
    found = set()
    for module in pkgutil.walk_packages(sources.__path__, "streamrnn.stream.sources."):
        for name, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            gives = name.endswith("Source") and hasattr(cls, "batches")
            if gives and not getattr(cls, "_is_protocol", False):
                found.add(name)
    return sorted(found)


def test_every_format_of_source_files_has_a_row() -> None:
    assert_declared("format of source files", FILES, SOURCE_FORMATS, FILE)


def test_every_format_of_parts_has_a_row() -> None:
    assert_declared("format of parts", PARTS, PART_FORMATS, FILE)


def test_the_schema_names_every_format() -> None:
    tables = set(values.SOURCE_FORMAT_NAMES) - {"auto", *FILES}
    assert set(FILES) < set(values.SOURCE_FORMAT_NAMES)
    assert tables <= set(plugin_names("table"))
    assert set(PARTS) == set(get_args(SinkSection.model_fields["format"].annotation))
    assert set(values.INDEXED_FORMATS) <= set(PARTS)


def test_a_table_of_another_plugin_is_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no line here: a module, and its entry point."""
    monkeypatch.setattr(values, "plugin_names", lambda kind: ["delta", "iceberg", "tablets"])
    assert_config_takes("source", "tablets")
    with pytest.raises(
        ConfigError, match=r'"iceberg" or "tablets", received the string "tablet"; did'
    ):
        assert_config_takes("source", "tablet")


def test_every_format_of_tables_has_a_row() -> None:
    assert_declared("format of tables", plugin_names("table"), TABLES, FILE)


def test_every_source_has_a_row() -> None:
    assert_declared("source", source_classes(), SOURCES, FILE)


def test_a_new_format_or_source_without_a_row_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "tablets", FILES["parquet"])
    with pytest.raises(AssertionError, match=r"format of source files without a row.*\['tablets'"):
        test_every_format_of_source_files_has_a_row()
    monkeypatch.setitem(PARTS, "tablets", PARTS["parquet"])
    with pytest.raises(AssertionError, match=r"format of parts without a row.*\['tablets'"):
        test_every_format_of_parts_has_a_row()

    class TabletSource(sources.FileSource):
        pass

    monkeypatch.setattr(
        "streamrnn.stream.sources.reading.TabletSource", TabletSource, raising=False
    )
    with pytest.raises(AssertionError, match=r"source without a row.*\['TabletSource'"):
        test_every_source_has_a_row()


# ---- formats of source files


@pytest.fixture
def base(model_dir: Path) -> Path:
    """A model and the log as Parquet files, in the working directory."""
    write_files(LOG, "parquet", model_dir / "parquet")
    return model_dir


def run(path: str, out: str, sink: str = "parquet", **source: Any) -> None:
    tables = {
        "source": {"nulls": "previous", "late": "reject", **source},
        "sink": {"format": sink},
        "checkpoint": {"every": 1, "keep": 9},
    }
    Pipeline.from_dict(logs.config(path, "m.safetensors", out, **tables)).run()


def rows_of(source: Any, *start: Any) -> pa.Table:
    return pa.Table.from_batches([each.batch for each in source.batches(*start)], source.schema)


def _before(batch: sources.SourceBatch) -> sources.Content | None:
    """The rows before the position of a record batch, in its file."""
    reading = batch.readings.get(batch.position.file)
    return None if reading is None else reading.content


def assert_config_takes(table: str, name: str) -> None:
    """The pipeline file names it, and names it again when it is written."""
    config = Config.parse(logs.config("in", "m", "out", **{table: {"format": name}}))
    assert getattr(config, table).format == name
    assert Config.parse(config.model_dump(mode="json", exclude_unset=True)) == config


@pytest.mark.parametrize("name", [*holding(SOURCE_FORMATS, "config"), *holding(TABLES, "config")])
def test_the_pipeline_file_takes_a_format_of_files(name: str) -> None:
    assert_config_takes("source", name)


@pytest.mark.parametrize("name", holding(SOURCE_FORMATS, "oracle"))
def test_rows_are_those_that_were_written(name: str, tmp_path: Path) -> None:
    write_files(LOG, name, tmp_path)
    files = sources.list_files(str(tmp_path), sources.suffixes_of(name))
    source = sources.FileSource(files, COLUMNS, 33, format=name)
    assert source.total_rows() == 300
    assert rows_of(source).equals(LOG.select(COLUMNS))


@pytest.mark.parametrize("name", holding(SOURCE_FORMATS, "cut"))
def test_a_run_over_a_format_is_cut_free(name: str, base: Path) -> None:
    """Outputs and states of record batches of any size, of one file or four, equal Parquet's."""
    run("parquet", "right", batch_rows=1000)
    write_files(LOG, name, base / "files")
    (base / "one").mkdir()
    SOURCE_FORMATS[name].write(LOG, base / "one" / f"log{FILES[name].suffixes[0]}")
    for path, rows in (("files", 7), ("files", 50), ("one", 1000), ("one", 41)):
        out = f"out-{path}-{rows}"
        types = {} if FILES[name].typed else {"b": "int32"}
        run(path, out, format=name, batch_rows=rows, types=types)
        for folder in ("", ".rejects"):
            made, right = (
                read_parts(base / f"{each}{folder}", "parquet", ".parquet")
                for each in (out, "right")
            )
            kept = [column for column in made.schema.names if column not in ("file", "row")]
            assert made.select(kept).equals(right.select(kept))
        assert not diff_states(out, "right")


@pytest.mark.parametrize("name", holding(SOURCE_FORMATS, "cut"))
def test_files_of_a_format_are_read_on_behind_every_record_batch(name: str, tmp_path: Path) -> None:
    write_files(LOG, name, tmp_path)
    files = sources.list_files(str(tmp_path), sources.suffixes_of(name))
    whole, row = sources.FileSource(files, COLUMNS, 33, format=name), 0
    for each in whole.batches():
        row += each.batch.num_rows
        first = [file.name for file in files].index(each.position.file)
        other = sources.FileSource(files[first:], COLUMNS, 20, format=name)
        other.earlier = {field.name: str(field.type) for field in whole.schema}
        rest = rows_of(other, each.position, _before(each))
        assert rest.equals(LOG.select(COLUMNS).slice(row))


@pytest.mark.parametrize("name", holding(SOURCE_FORMATS, "damaged"))
def test_what_is_no_such_file_is_refused(name: str, base: Path) -> None:
    torn = f"torn{FILES[name].suffixes[0]}"
    write_files(LOG, name, base / "files")
    whole = next((base / "files").iterdir()).read_bytes()
    for text in (b"", b"id,t\0\n1,2\n" * 50, whole[: len(whole) // 2]):
        Path(torn).write_bytes(text)
        with pytest.raises(DataError, match=rf"{torn}: not a readable {FILES[name].name}"):
            run(torn, "out", format=name)


# ---- formats of parts


@pytest.mark.parametrize("name", holding(PART_FORMATS, "config"))
def test_the_pipeline_file_takes_a_format_of_parts(name: str) -> None:
    assert_config_takes("sink", name)


@pytest.mark.parametrize("name", holding(PART_FORMATS, "oracle"))
def test_an_output_is_the_same_rows_in_every_format(name: str, base: Path) -> None:
    run("parquet", "right")
    run("parquet", "out", sink=name)
    for folder in ("", ".rejects"):
        made = read_parts(base / f"out{folder}", name, PARTS[name].suffix)
        assert made.equals(read_parts(base / f"right{folder}", "parquet", ".parquet"))
        assert made.num_rows


@pytest.mark.parametrize("name", holding(PART_FORMATS, "cut"))
def test_a_run_that_was_cut_leaves_the_same_rows(name: str, base: Path) -> None:
    """In two runs, by record batches and commits of another size."""
    run("parquet", "right", sink=name, batch_rows=1000)
    run("parquet/0.parquet", "out", sink=name, batch_rows=17)
    run("parquet", "out", sink=name, batch_rows=64)
    made, right = (read_parts(base / each, name, PARTS[name].suffix) for each in ("out", "right"))
    assert made.equals(right)
    assert len(list((base / "out").glob("part-*"))) > 1


@pytest.mark.parametrize("name", holding(PART_FORMATS, "bytes"))
def test_equal_rows_are_equal_files(name: str, base: Path) -> None:
    for out in ("out", "again"):
        run("parquet", out, sink=name, batch_rows=60)
    parts = sorted(path.name for path in Path("out").glob("part-*"))
    assert parts == sorted(path.name for path in Path("again").glob("part-*"))
    for part in parts:
        assert Path("out", part).read_bytes() == Path("again", part).read_bytes()


@pytest.mark.parametrize("name", holding(PART_FORMATS, "damaged"))
def test_a_damaged_part_is_found(name: str, base: Path) -> None:
    run("parquet", "out", sink=name, batch_rows=60)
    verify("out")
    part = next(Path("out").glob(f"*{PARTS[name].suffix}"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    for act in (verify, compact):
        with pytest.raises(CheckpointError, match="is damaged"):
            act("out")


# ---- sources


@pytest.mark.parametrize("name", holding(SOURCES, "oracle"))
def test_a_source_gives_the_rows_of_the_log(name: str, tmp_path: Path) -> None:
    """And says of each row which row of which file it is."""
    source = SOURCES[name].open(LOG, tmp_path / "in", COLUMNS, 33)
    assert source.schema == LOG.select(COLUMNS).schema
    batches = list(source.batches())
    assert pa.Table.from_batches([each.batch for each in batches]).equals(LOG.select(COLUMNS))
    seen: dict[str, int] = {}
    for each in batches:
        for row in range(each.batch.num_rows):
            file = each.origin.file(row)
            assert each.origin.row_N[row] == seen.get(file, 0)
            seen[file] = seen.get(file, 0) + 1
        assert each.batch.num_rows <= 33


@pytest.mark.parametrize("name", holding(SOURCES, "cut"))
def test_record_batches_of_any_size_hold_the_same_rows(name: str, tmp_path: Path) -> None:
    for rows in (1, 7, 50, 51, 1000):
        source = SOURCES[name].open(LOG, tmp_path / "in", COLUMNS, rows)
        assert rows_of(source).equals(LOG.select(COLUMNS))


@pytest.mark.parametrize("name", holding(SOURCES, "resumed"))
def test_a_source_resumes_behind_every_record_batch(name: str, tmp_path: Path) -> None:
    """Read again by another one, with record batches of another size."""
    first = SOURCES[name].open(LOG, tmp_path / "in", COLUMNS, 33)
    whole, row = list(first.batches()), 0
    for each in whole:
        row += each.batch.num_rows
        other = SOURCES[name].open(LOG, tmp_path / "in", COLUMNS, 20)
        names = [file.name for file in other.files]
        other.files = other.files[names.index(each.position.file) :]
        rest = rows_of(other, each.position, _before(each))
        assert rest.equals(LOG.select(COLUMNS).slice(row))
    assert row == 300
