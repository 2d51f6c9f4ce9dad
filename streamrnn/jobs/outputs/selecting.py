"""Streams of a state table by key, and in the order of a column."""

import csv
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Bools
from streamrnn.base.display import count
from streamrnn.errors import ConfigError
from streamrnn.stream.config import did_you_mean
from streamrnn.stream.states import key_names


def rows_of(table: pa.Table, keys: Sequence[str], output: str) -> Bools:
    """Return which rows (S,) belong to the keys. Raises ConfigError for an unknown key."""
    names = key_names(table)
    rows = np.zeros(table.num_rows, bool)
    for key in keys:
        values = next(csv.reader([key]), []) or [key]
        if len(values) != len(names):
            raise ConfigError(
                f"--key {key}: expected {count(len(names), 'value')}, of {', '.join(names)}, "
                f"received {len(values)}"
            )
        found = np.ones(table.num_rows, bool)
        for name, value in zip(names, values, strict=True):
            equal = pc.equal(table.column(name), _typed(value, table.schema.field(name)))
            found &= equal.to_numpy(zero_copy_only=False) if table.num_rows else found
        if not found.any():
            known = [str(value) for value in table.column(names[0]).slice(0, 1000).to_pylist()]
            raise ConfigError(
                f"--key {key}: no such stream in {output}{did_you_mean(values[0], known)}"
            )
        rows |= found
    return rows


def _typed(text: str, field: pa.Field) -> pa.Scalar:
    try:
        return pa.scalar(text).cast(field.type)
    except (pa.ArrowException, UnicodeEncodeError):
        raise ConfigError(
            f"--key {text}: expected {field.type}, the type of the key column {field.name!r}"
        ) from None


def largest_first(table: pa.Table, column: str) -> pa.Table:
    """Sort streams by a column, largest first; equal ones keep their order, null comes last.

    Raises ConfigError unless there is such a column, of numbers, times or text.
    """
    names = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    if column not in names:
        raise ConfigError(
            f"--sort {column}: expected one of {', '.join(names)}{did_you_mean(column, names)}"
        )
    order = pc.sort_indices(table.select([column]), sort_keys=[(column, "descending")])
    return table.take(order)
