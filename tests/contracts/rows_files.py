"""Rows of contracts for formats of source files, formats of parts, and classes of sources."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from contracts.declared import HOLDS, Contract, Row

from streamrnn.stream.sources import SOURCE_FORMATS as FORMATS
from streamrnn.stream.sources import FileSource, StreamSource, list_files, suffixes_of

GROUP = 50
"""Rows of a row group that `write` makes, where the format has groups."""


def write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=GROUP)


def write_arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=GROUP)


def write_csv(table: pa.Table, path: Path) -> None:
    """Texts without quotes, times without fractions where they have none."""
    pacsv.write_csv(table, path, pacsv.WriteOptions(quoting_style="needed"))


def write_ndjson(table: pa.Table, path: Path) -> None:
    """Without the keys whose values are null; a file without rows is a blank line."""
    rows = [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows) or "\n")


def read_arrow(path: Path) -> pa.Table:
    return pa.ipc.open_file(path).read_all()


@dataclass(frozen=True)
class SourceFormatRow(Row):
    """write(table, path): by a library, not by streamrnn.

    config: the pipeline file takes its name. oracle: the rows are those that were written. cut: in
    pieces of any size, resumed behind any of them, from one file or several, they give the same
    outputs and states. damaged: what is no such file is refused by its name.
    """

    write: Callable[[pa.Table, Path], None]
    config: Contract = HOLDS
    oracle: Contract = HOLDS
    cut: Contract = HOLDS
    damaged: Contract = HOLDS


SOURCE_FORMATS = {
    "parquet": SourceFormatRow(write_parquet),
    "arrow": SourceFormatRow(write_arrow),
    "csv": SourceFormatRow(write_csv),
    "ndjson": SourceFormatRow(write_ndjson),
}


def write_files(table: pa.Table, name: str, folder: Path) -> None:
    """300 rows in files of 120, 0, 180 and 0 rows, of a format."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, (first, rows) in enumerate(((0, 120), (120, 0), (120, 180), (300, 0))):
        path = folder / f"{i}{FORMATS[name].suffixes[0]}"
        SOURCE_FORMATS[name].write(table.slice(first, rows), path)


@dataclass(frozen=True)
class PartFormatRow(Row):
    """read(path): a part, as a reader without streamrnn does.

    config: the pipeline file takes its name. oracle: the rows read are those of a Parquet output.
    cut: however a run was cut and resumed, they are the same. bytes: equal rows are equal files.
    damaged: a changed bit is found by `verify`.
    """

    read: Callable[[Path], pa.Table]
    config: Contract = HOLDS
    oracle: Contract = HOLDS
    cut: Contract = HOLDS
    bytes: Contract = HOLDS
    damaged: Contract = HOLDS


PART_FORMATS = {"parquet": PartFormatRow(pq.read_table), "arrow": PartFormatRow(read_arrow)}


def read_parts(folder: Path, name: str, suffix: str) -> pa.Table:
    """All rows of an output, in order."""
    parts = sorted(Path(folder).glob(f"*{suffix}"))
    return pa.concat_tables([PART_FORMATS[name].read(part) for part in parts])


@dataclass(frozen=True)
class SourceRow(Row):
    """open(table, folder, columns, rows): a source of a log of 300 rows.

    oracle: its rows are those of the log, and batches say where they begin. cut: record batches of
    any size hold the same rows. resumed: a source that begins at a position of another gives what
    follows.
    """

    open: Callable[[pa.Table, Path, list[str], int], Any]
    oracle: Contract = HOLDS
    cut: Contract = HOLDS
    resumed: Contract = HOLDS


def open_files(table: pa.Table, folder: Path, columns: list[str], rows: int) -> FileSource:
    if not folder.exists():
        write_files(table, "parquet", folder)
    return FileSource(list_files(str(folder), suffixes_of("parquet")), columns, rows)


def open_stream(table: pa.Table, folder: Path, columns: list[str], rows: int) -> StreamSource:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=GROUP)
    return StreamSource(columns, rows, io.BytesIO(out.getvalue()))


SOURCES = {
    "FileSource": SourceRow(open_files),
    "StreamSource": SourceRow(
        open_stream, resumed="A stream can be read once, from its beginning to its end."
    ),
}


@dataclass(frozen=True)
class TableRow(Row):
    """config: the pipeline file takes its name. oracle: what is read is what a library wrote."""

    config: Contract = HOLDS
    oracle: Contract = HOLDS


TABLES = {
    name: TableRow(oracle=f"tests/plugins/lakes/test_{name}_oracle.py reads what {library} wrote.")
    for name, library in {"delta": "deltalake", "iceberg": "pyiceberg"}.items()
}
