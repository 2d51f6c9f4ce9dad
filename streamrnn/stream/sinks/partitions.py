"""Hive partitions of an output: folders `date=2013-01-05/origin=JFK/`.

The columns of the folders are not stored in the files, as the tools that read such folders expect:
pyarrow refuses a column that is in both with different types, and the others take the folder's
value. `Partitioning.complete` restores the columns with their types.

All ASCII characters but letters, digits and `-_.` are percent-encoded, which Hive, Spark, pyarrow,
Polars and DuckDB decode. Other characters are written as they are, because Spark decodes byte by
byte.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamrnn.errors import DataError

NULL = "__HIVE_DEFAULT_PARTITION__"
MOST_PARTITIONS = 10_000
"""Largest number of partitions of one commit, each of which has a file of its own."""

_ENCODED = re.compile(r"[^A-Za-z0-9_.\-\x80-\U0010ffff]")
_LONGEST = 255  # bytes in the name of a folder
_CLOCK = {"year": pc.year, "month": pc.month, "hour": pc.hour}


def partition_values(name: str) -> dict[str, str | None]:
    """Return the values in the folders of a part's name: column -> text, None for null.

    >>> partition_values("date=2013-01-05/carrier=A%2FB/part-00007.parquet")
    {'date': '2013-01-05', 'carrier': 'A/B'}
    """
    folders = [folder.partition("=") for folder in name.split("/")[:-1]]
    return {key: None if text == NULL else unquote(text) for key, _, text in folders}


@dataclass(frozen=True)
class PartitionColumn:
    """One level of folders: the value of `source`, or a `function` of it ("": none).

    `field`: the level's name and type. The function is year (int32), month (1 to 12, int32), day (a
    date) or hour (0 to 23, int32), in the time zone of the column, or of `clock`, a type of
    timestamps.
    """

    field: pa.Field
    source: str
    function: str = ""
    clock: pa.DataType | None = None

    def of(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the values (N,) of N rows."""
        column = batch.column(self.source)
        if not self.function:
            return column
        if self.clock is not None:
            column = column.view(self.clock)
        if self.function == "day":
            if pa.types.is_timestamp(column.type):
                local = pc.local_timestamp(column) if column.type.tz else column
                column = pc.floor_temporal(local, unit="day")
            return column.cast(pa.date32())
        return _CLOCK[self.function](column).cast(pa.int32())

    def folders(self, values: pa.Array) -> list[str]:
        """Return the folder of each value. Raises DataError for one that no folder can stand for.

        >>> PartitionColumn(pa.field("id", pa.string()), "id").folders(pa.array(["a/b", None]))
        ['id=a%2Fb', 'id=__HIVE_DEFAULT_PARTITION__']
        """
        return [f"{self.field.name}={self._text(t)}" for t in values.cast(pa.string()).to_pylist()]

    def _text(self, text: str | None) -> str:
        if text is None:
            return NULL
        if text in ("", NULL):
            raise DataError(
                f"[sink] partition_by: column {self.source!r} has the value {text!r}, which "
                "readers of folders take for null; replace it by null or another text"
            )
        encoded = _ENCODED.sub(lambda sign: f"%{ord(sign[0]):02X}", text)
        if len(f"{self.field.name}={encoded}".encode()) > _LONGEST:
            raise DataError(
                f"[sink] partition_by: column {self.source!r} has the value {text[:40]!r}… of "
                f"{len(text)} characters; the name of a folder has at most {_LONGEST} bytes. "
                "Choose a column with shorter values"
            )
        return encoded


@dataclass(frozen=True)
class Partitioning:
    """The levels of folders of an output whose rows have `schema`, all carried columns included."""

    columns: tuple[PartitionColumn, ...]
    schema: pa.Schema

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """Names and types of the partition columns, in the order of the folders."""
        return tuple(column.field for column in self.columns)

    @property
    def file_schema(self) -> pa.Schema:
        """The schema of the files: without the columns that the folders have."""
        inside = {column.field.name for column in self.columns}
        return pa.schema([field for field in self.schema if field.name not in inside])

    def split(self, batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield the folder and rows of each partition of a batch, in the order of their first rows.

        Raises DataError for a value that no folder can stand for, or too many partitions.
        """
        if not batch.num_rows:
            return
        levels: list[tuple[list[str], NDArray[np.int64]]] = []
        code_N = np.zeros(batch.num_rows, np.int64)
        for column in self.columns:
            coded = column.of(batch).dictionary_encode(null_encoding="encode")
            check_count(len(coded.dictionary))
            index_N = coded.indices.to_numpy(zero_copy_only=False)
            levels.append((column.folders(coded.dictionary), index_N))
            code_N, firsts = _numbered(code_N.astype(np.int64) * len(coded.dictionary) + index_N)
        inside = batch.select(self.file_schema.names)
        if (code_N[1:] < code_N[:-1]).any():
            inside = inside.take(pa.array(np.argsort(code_N, kind="stable")))
        start = 0
        for row, size in zip(firsts, np.bincount(code_N).tolist(), strict=True):
            folder = "/".join(texts[index_N[row]] for texts, index_N in levels)
            yield folder, inside.slice(start, size)
            start += size

    def complete(self, batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
        """Return rows of a part's file and the columns of its folders; functions come last.

        The batch may have only some of the file's columns. Raises DataError if `name` has other
        folders than this output, pa.ArrowException for a value that is not of a folder's type.
        """
        texts = partition_values(name)
        if list(texts) != [field.name for field in self.fields]:
            raise DataError(
                f"{name}: expected folders of {', '.join(f.name for f in self.fields)}, received "
                f"{', '.join(texts) or 'none'}"
            )
        constants = {
            field.name: pa.repeat(
                pa.scalar(texts[field.name], pa.string()).cast(field.type), batch.num_rows
            )
            for field in self.fields
        }
        added = [field for field in self.fields if field.name not in self.schema.names]
        names = [*self.schema.names, *(field.name for field in added)]
        fields = {field.name: field for field in (*self.schema, *added)}
        present = [name for name in names if name in constants or name in batch.schema.names]
        columns = [constants[name] if name in constants else batch.column(name) for name in present]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(map(fields.get, present)))


def _numbered(code_N: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
    """Give equal codes one number, in the order of their first rows.

    Returns the number (N,) of each, in the smallest type, which is sorted fastest, and the first
    row of each number. Raises DataError for too many.
    """
    _, first, inverse = np.unique(code_N, return_index=True, return_inverse=True)
    check_count(len(first))
    by_first = np.argsort(first)
    number = np.empty(len(first), np.min_scalar_type(len(first)))
    number[by_first] = np.arange(len(first))
    return number[inverse], first[by_first].tolist()


def check_count(partitions: int) -> None:
    """Raise DataError for too many partitions in one commit."""
    if partitions > MOST_PARTITIONS:
        raise DataError(
            f"[sink] partition_by: more than {MOST_PARTITIONS:,} partitions in one commit, each of "
            "which has files of its own. Choose a column with fewer values, such as day instead of "
            "hour, or none"
        )


def layout_of(name: str) -> tuple[str, ...] | None:
    """Return the columns of the folders in a name; None if a folder is not `column=value`.

    >>> layout_of("date=2013-01-05/part-00007.parquet")
    ('date',)
    """
    folders = name.split("/")[:-1]
    return tuple(f.partition("=")[0] for f in folders) if all("=" in f for f in folders) else None
