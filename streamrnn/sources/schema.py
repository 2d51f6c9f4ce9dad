"""The columns that a pipeline uses, and whether a file has them as the first file did."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa

from streamrnn.errors import DataError


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type in which values are used: a dictionary's own, and views as what they look at.

    Arrow can do little with views yet (no `take`, no `fill_null`).
    """
    if pa.types.is_dictionary(kind):
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
        else:
            array = pa.repeat((constants or {})[field.name], batch.num_rows)
        arrays.append(array.cast(field.type) if array.type != field.type else array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def used_schema(schema: pa.Schema, columns: Sequence[str] | None, path: str) -> pa.Schema:
    """The fields of the columns in use, by `value_type`; None means all of them.

    Raises DataError that names the file and the column that is missing or there twice.
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
    fields = [schema.field(name) for name in names]
    return pa.schema([pa.field(f.name, value_type(f.type)) for f in fields])


def missing_column(path: str, name: str, names: Sequence[str]) -> str:
    """The message for a column that a file lacks."""
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{path}: there is no column {name!r}.{hint} Columns there are: {', '.join(names)}"


def check_same(expected: pa.Schema, found: pa.Schema, path: str, first: str) -> None:
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
