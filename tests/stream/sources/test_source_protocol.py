"""What every source of record batches promises, whatever it reads."""

import io
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import logs
import pyarrow as pa
import pytest
from contracts.rows_files import SOURCE_FORMATS as WRITERS

from streamrnn.stream import sources
from streamrnn.stream.sources import (
    SOURCE_FORMATS,
    FileSource,
    Source,
    SourceBatch,
    StreamSource,
    list_files,
    suffixes_of,
)

LOG = logs.random_log(300, nulls=0.1)
COLUMNS = ["t", "id", "a"]
Open = Callable[[], Source]
STREAM = "stream"


def _stream() -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, LOG.schema) as writer:
        writer.write_table(LOG, max_chunksize=50)
    return out.getvalue()


@pytest.fixture(params=[*SOURCE_FORMATS, STREAM])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """A call that opens a source of the log, 33 rows in a record batch: each kind that there is."""
    name: str = request.param
    if name == STREAM:
        data = _stream()
        return lambda: StreamSource(COLUMNS, 33, io.BytesIO(data))
    suffix = SOURCE_FORMATS[name].suffixes[0]
    for i, (first, rows) in enumerate(((0, 120), (120, 0), (120, 180))):
        WRITERS[name].write(LOG.slice(first, rows), tmp_path / f"{i}{suffix}")
    return lambda: FileSource(
        list_files(str(tmp_path), suffixes_of(name)), COLUMNS, 33, time="t", format=name
    )


def _table(source: Source, *start: object) -> pa.Table:
    batches = source.batches(*start)  # type: ignore[arg-type]
    return pa.Table.from_batches([each.batch for each in batches], source.schema)


def _places(batch: SourceBatch) -> list[tuple[str, int]]:
    """The file and row of each row."""
    return [(batch.origin.file(i), int(row)) for i, row in enumerate(batch.origin.row_N)]


def test_every_source_is_tried_here() -> None:
    """A new one takes its place among the parameters of `opened`."""
    found = {
        name
        for name in dir(sources)
        if isinstance(each := getattr(sources, name), type) and hasattr(each, "replayable")
    }
    assert found == {"FileSource", "StreamSource"}


def test_its_repr_does_not_list_its_files(opened: Open) -> None:
    assert repr(opened()).startswith(f"<{type(opened()).__module__}.{type(opened()).__name__} ")


def test_the_schema_is_that_of_the_columns_in_use(opened: Open) -> None:
    assert opened().schema == LOG.select(COLUMNS).schema
    assert opened().name in (opened().files[0].path if opened().files else "stdin")


def test_all_rows_come_in_order_and_counted(opened: Open) -> None:
    source = opened()
    assert _table(source).equals(LOG.select(COLUMNS))
    assert source.total_rows() == (300 if source.files else None)
    assert bool(source.files) == source.replayable
    assert source.of_files is (source if source.replayable else None)
    batches = list(opened().batches())
    assert max(each.batch.num_rows for each in batches) == 33
    rows = [place for each in batches for place in _places(each)]
    assert rows[0][1] == 0
    for (file, row), (next_file, next_row) in pairwise(rows):
        assert next_row == (row + 1 if next_file == file else 0)
    seen: Counter[str] = Counter()
    for each in batches:
        seen.update(file for file, _ in _places(each))
        assert each.position.file_row == seen[each.position.file]


def test_what_is_read_from_a_position_on_are_the_rows_behind_it(opened: Open) -> None:
    """From each position that a record batch had."""
    whole, rows = list(opened().batches()), LOG.select(COLUMNS)
    done = 0
    for each in whole:
        done += each.batch.num_rows
        source = opened()
        names = [file.name for file in source.files]
        source.files = source.files[names.index(each.position.file) :] if names else []
        reading = each.readings.get(each.position.file)
        before = None if reading is None else reading.content
        assert _table(source, each.position, before).equals(rows.slice(done))


def test_the_identity_stays_and_shows_another_file(opened: Open) -> None:
    source = opened()
    assert source.identity == opened().identity
    list(source.batches())
    assert source.identity == opened().identity
    if source.files:
        path = Path(source.files[0].path)
        (path.parent / f"9{path.suffix}").write_bytes(path.read_bytes())
        assert source.identity != opened().identity


def test_times_of_files_are_known_where_footers_say_them(opened: Open) -> None:
    """And files come in their order; a format without statistics says none."""
    source = opened()
    files = source.files[::-1]
    times = source.times(files)
    assert [each.path for each in times] == [
        file.path for file in files if file.path.endswith(".parquet") and "1." not in file.path
    ]
    if times:
        assert source.in_time_order(files) == [files[1], files[2], files[0]]
    elif not files:
        assert source.in_time_order(files) == []
