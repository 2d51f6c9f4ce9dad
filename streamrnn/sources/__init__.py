"""Record batches with their position, and the contract that brings their rows to arrays."""

from streamrnn.sources.contract import Contract, Faults, Feature, Rows, shown, ticks
from streamrnn.sources.files import SourceFile, list_files, resolve
from streamrnn.sources.parquet import ParquetSource, SourceBatch
from streamrnn.sources.position import Position
from streamrnn.sources.schema import check_same, missing_column, select, used_schema, value_type
from streamrnn.sources.stream import StreamSource

__all__ = [
    "Contract",
    "Faults",
    "Feature",
    "ParquetSource",
    "Position",
    "Rows",
    "SourceBatch",
    "SourceFile",
    "StreamSource",
    "check_same",
    "list_files",
    "missing_column",
    "resolve",
    "select",
    "shown",
    "ticks",
    "used_schema",
    "value_type",
]
