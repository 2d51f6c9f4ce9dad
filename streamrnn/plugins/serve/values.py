"""Values of JSON as columns of a pipeline, and answers as JSON."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import DataError

_ZONE = re.compile(r"(?:Z|[+-]\d\d(?::?\d\d)?)$")
_UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)


class JsonColumns:
    """The columns that requests have, with the types to read them in (null: as the values are).

    `time` is the time column, `old_names` maps columns to other names that rows may have for them.
    """

    def __init__(
        self, schema: pa.Schema, time: str | None, old_names: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.schema = schema
        self._time = time
        self._old_names = old_names

    @property
    def known(self) -> bool:
        """Whether each column has a type."""
        return not any(pa.types.is_null(field.type) for field in self.schema)

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        """Return rows as a record batch: a key that a row lacks is null, others are ignored.

        Times are ISO text, which is UTC without an offset, or integers in the unit of the column.
        Raises DataError for a value that its column cannot hold.
        """
        arrays = []
        for field in self.schema:
            names = (field.name, *self._old_names.get(field.name, ()))
            values = [row.get(field.name) for row in rows]
            for old in names[1:]:
                values = [row.get(old, v) for row, v in zip(rows, values, strict=True)]
            arrays.append(self.array(field.name, values))
        return pa.RecordBatch.from_arrays(arrays, self.schema.names)

    def filled(self, arrays: Mapping[str, pa.Array], rows: int) -> pa.RecordBatch:
        """Return a record batch of some of the columns; the others are null."""
        columns = [
            arrays[field.name] if field.name in arrays else pa.nulls(rows, field.type)
            for field in self.schema
        ]
        return pa.RecordBatch.from_arrays(columns, self.schema.names)

    def fitted(self, table: pa.Table) -> pa.RecordBatch:
        """Return the columns in use of Arrow data, in their types. Raises DataError."""
        arrays = {}
        for field in self.schema:
            names = {field.name, *self._old_names.get(field.name, ())} & set(table.column_names)
            for name in names:
                column = table.column(name).combine_chunks()
                try:
                    arrays[field.name] = _as_type(column, field.type)
                except _UNFIT as error:
                    raise DataError(
                        f"the request: column {name!r}: expected {field.type}, received "
                        f"{column.type}: {error}"
                    ) from error
        return self.filled(arrays, len(table))

    def array(self, name: str, values: Sequence[Any]) -> pa.Array:
        """Return values of JSON as a column of N rows. Raises DataError for one that is unfit."""
        kind = self.schema.field(name).type
        if pa.types.is_null(kind):
            text = name == self._time and any(type(value) is str for value in values)
            kind = pa.timestamp("us", "UTC") if text else None
        try:
            return _in_type(values, kind)
        except _UNFIT as error:
            row = next((i for i in range(len(values)) if not _fits(values[i : i + 1], kind)), 0)
            expected = error if kind is None else f"expected {kind}"
            raise DataError(
                f"the request: row {row} (from 0): column {name!r}: {expected}, received "
                f"{values[row]!r:.80}"
            ) from error


def _fits(values: Sequence[Any], kind: pa.DataType | None) -> bool:
    try:
        _in_type(values, kind)
    except _UNFIT:
        return False
    return True


def _in_type(values: Any, kind: pa.DataType | None) -> pa.Array:
    """Return values of JSON, or of a tensor, in a type, or as what they are."""
    if type(values) is np.ndarray:
        return _as_type(pa.array(values), kind)
    if kind is not None and pa.types.is_integer(kind) and float in set(map(type, values)):
        return pa.array(values).cast(kind)  # Arrow would cut 2.5 to 2
    if kind is None or not (pa.types.is_temporal(kind) or pa.types.is_decimal(kind)):
        return pa.array(values, kind)
    if pa.types.is_decimal(kind):
        return pa.array([None if v is None else str(v) for v in values], pa.string()).cast(kind)
    if not any(type(value) is str for value in values):
        if any(type(value) not in (int, type(None)) for value in values):
            raise TypeError("a time is ISO text, or an integer")
        return pa.array(values, kind)
    if pa.types.is_timestamp(kind):
        values = [_in_utc(value) if type(value) is str else value for value in values]
        return pa.array(values, pa.string()).cast(pa.timestamp(kind.unit, "UTC")).cast(kind)
    return pa.array(values, pa.string()).cast(kind)


def _as_type(column: pa.Array, kind: pa.DataType | None) -> pa.Array:
    return column if kind is None or pa.types.is_null(kind) else column.cast(kind)


def _in_utc(text: str) -> str:
    """Return an ISO text of a time with an offset."""
    if len(text) == len("2024-01-01"):
        return f"{text}T00:00Z"
    return text if _ZONE.search(text, 11) else f"{text}Z"


def json_objects(answer: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of an answer as values of JSON: times are ISO text.

    Of what is no finite number orjson makes a null.
    """
    names = answer.schema.names
    columns = zip(*map(_plain, answer.columns), strict=True)
    return [dict(zip(names, values, strict=True)) for values in columns]


def _plain(column: pa.Array) -> list[Any]:
    kind = column.type
    if column.null_count == len(column):
        return [None] * len(column)
    if pa.types.is_floating(kind) or (pa.types.is_integer(kind) and not column.null_count):
        numbers: list[Any] = column.to_numpy(zero_copy_only=False).tolist()  # null: NaN
        return numbers
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            column = column.cast(pa.timestamp(kind.unit, "UTC"))
        column = pc.replace_substring(column.cast(pa.string()), " ", "T")
    elif pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values
