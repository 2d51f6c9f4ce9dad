"""The columns that a pipeline uses, and whether a file has them as the first file did."""

from __future__ import annotations

import difflib
import functools
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import DataError, DTypeError


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type in which values are used: a dictionary's or run's own, views as what they look at.

    Arrow can do little with views and runs yet (no `take`, no `fill_null`).
    """
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return value_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind


def select(
    batch: pa.RecordBatch, schema: pa.Schema, constants: Mapping[str, pa.Scalar] | None = None
) -> pa.RecordBatch:
    """The columns of the schema in its order and types, those that are not there as `constants`."""
    arrays = []
    for field in schema:
        if field.name in batch.schema.names:
            array = batch.column(field.name)
            if pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            elif pa.types.is_run_end_encoded(array.type):
                array = pc.run_end_decode(array)
        else:
            array = pa.repeat((constants or {})[field.name], batch.num_rows)
        arrays.append(array.cast(field.type) if array.type != field.type else array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def used_schema(schema: pa.Schema, columns: Sequence[str] | None, path: str) -> pa.Schema:
    """The fields of the columns in use, by `value_type`; None means all of them.

    Raises DataError that names the file and the column that is missing or there twice, DTypeError
    for one whose rows Arrow cannot choose from.
    """
    counts = Counter(schema.names)
    names = list(schema.names) if columns is None else list(columns)
    for name in names:
        if counts[name] == 0:
            raise DataError(missing_column(path, name, schema.names))
        if counts[name] > 1:
            raise DataError(
                f"{path}: column {name!r} is there {counts[name]} times: expected once. "
                "Rename all but one."
            )
    fields = [pa.field(name, value_type(schema.field(name).type)) for name in names]
    for field in fields:
        if not _rows_can_be_chosen(field.type):
            raise DTypeError(
                f"{path}: column {field.name!r}: Arrow cannot choose rows of {field.type}. "
                "Cast it, or leave it out of [output] columns."
            )
    return pa.schema(fields)


@functools.lru_cache(maxsize=256)
def _rows_can_be_chosen(kind: pa.DataType) -> bool:
    # Asked for each record batch, of which one may have three rows: 10 µs a column.
    try:
        pa.nulls(0, kind).take(pa.array([], pa.int64()))
    except pa.ArrowNotImplementedError:
        return False
    return True


def missing_column(path: str, name: str, names: Sequence[str]) -> str:
    """The message for a column that a file lacks."""
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{path}: there is no column {name!r}.{hint} Columns there are: {', '.join(names)}"


def check_same_schema(expected: pa.Schema, found: pa.Schema, path: str, first: str) -> None:
    """Raise DataError if a used column of this file differs from the first file's."""
    for field in expected:
        if field.name not in found.names:
            raise DataError(f"{missing_column(path, field.name, found.names)} (as in {first})")
        other = found.field(field.name)
        if other.type != field.type:
            raise DataError(
                f"{path}: column {field.name!r}: expected {field.type} as in {first}, "
                f"received {other.type}. Cast one of the files."
            )
    if extra := [name for name in found.names if name not in expected.names]:
        raise DataError(
            f'{path}: column {extra[0]!r} is not in {first}: [output] columns = "*" needs the '
            "same columns in every file."
        )
