"""The columns that a pipeline uses, and whether a file has them as the first file did."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from streamrnn.errors import DataError


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values: a dictionary's own."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def used_schema(schema: pa.Schema, columns: Sequence[str] | None, path: str) -> pa.Schema:
    """The fields of the columns in use, dictionaries decoded; None means all of them.

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
