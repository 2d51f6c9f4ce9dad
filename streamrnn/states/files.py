"""State tables as files: `.parquet` or `.arrow`, written whole or not at all.

Equal tables give equal bytes, whatever they were made of.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.errors import ConfigError, DataError, MissingFileError, SinkError
from streamrnn.sources import DAMAGE
from streamrnn.storage import Output, open_store, replace_file

_SUFFIXES = (".parquet", ".arrow")


def check_suffix(path: str) -> None:
    """Raise ConfigError unless the path names a kind of file that a state table can be."""
    if not path.endswith(_SUFFIXES):
        raise ConfigError(f"{path}: expected a file name ending in .parquet or .arrow")


def write_state_file(table: pa.Table, path: str) -> None:
    """Write a file, or an object of a URI, that is there whole or not at all. Raises SinkError."""
    check_suffix(path)
    try:
        with replace_file(path) as output:
            _write(table, output, path)
    except (pa.ArrowException, OSError) as error:
        cause = error.__cause__ if isinstance(error, SinkError) else error
        raise SinkError(f"{path}: the state table cannot be written: {cause}") from error


def read_state_file(path: str) -> pa.Table:
    """Read what `write_state_file` wrote. Raises MissingFileError or DataError.

    All values are checked before they are touched, as damaged offsets would lead anywhere.
    """
    check_suffix(path)
    try:
        table = _read(path)
        table.validate(full=True)
        for field in table.schema:
            _check_shown(field)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: there is no such state table") from error
    except DAMAGE as error:
        raise DataError(
            f"{path}: not a readable state table: {error}. Export it again, or restore it from a "
            "backup."
        ) from error
    return table


def _read(path: str) -> pa.Table:
    store, place = open_store(path)
    with store.open(place) as stream:
        if path.endswith(".parquet"):
            return pq.ParquetFile(stream).read()
        return pa.ipc.open_file(stream).read_all()


def _check_shown(field: pa.Field) -> None:
    """Raise what pyarrow does over a name that is no UTF-8, or a time zone that nobody knows."""
    field.name.encode()
    kind = field.type
    if pa.types.is_struct(kind):
        for inner in kind:
            _check_shown(inner)
    elif pa.types.is_timestamp(kind):
        pa.scalar(0, kind).cast(pa.string())


def _write(table: pa.Table, stream: Output, path: str) -> None:
    table = _settled(table)
    if path.endswith(".parquet"):
        pq.write_table(table, stream, compression="zstd")
        return
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)


def _settled(table: pa.Table) -> pa.Table:
    """The table with each column in one chunk and zeros under its nulls, which Arrow files hold."""
    table = table.combine_chunks()
    for at, name in enumerate(table.column_names):
        if table.column(at).null_count:
            zeroed = table.column(at).take(pa.array(np.arange(len(table))))
            table = table.set_column(at, table.schema.field(name), zeroed)
    return table
