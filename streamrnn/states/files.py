"""State tables as files: `.parquet` or `.arrow`, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.errors import ConfigError, DataError, MissingFileError, SinkError

_SUFFIXES = (".parquet", ".arrow")


def check_suffix(path: str) -> None:
    """Raise ConfigError unless the path names a kind of file that a state table can be."""
    if not path.endswith(_SUFFIXES):
        raise ConfigError(f"{path}: expected a file name ending in .parquet or .arrow")


def write_state_file(table: pa.Table, path: str) -> None:
    """Write to a temporary name beside `path`, sync, rename. Raises SinkError."""
    check_suffix(path)
    temporary = f"{path}.tmp"
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            if path.endswith(".parquet"):
                pq.write_table(table, stream, compression="zstd")
            else:
                with pa.ipc.new_file(stream, table.schema) as writer:
                    writer.write_table(table)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise SinkError(f"{path}: the state table cannot be written: {error}") from error


def read_state_file(path: str) -> pa.Table:
    """Read what `write_state_file` wrote. Raises MissingFileError or DataError."""
    check_suffix(path)
    if not Path(path).is_file():
        raise MissingFileError(f"{path}: there is no such state table")
    try:
        if path.endswith(".parquet"):
            return pq.ParquetFile(path).read()
        with pa.OSFile(path) as stream:
            return pa.ipc.open_file(stream).read_all()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable state table: {error}") from error
