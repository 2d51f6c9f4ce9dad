"""Values of requests as columns of a pipeline, and answers as JSON."""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import DataError
from streamrnn.stream.sources import decoded, shown

_ZONE = re.compile(r"(?:Z|[+-]\d\d(?::?\d\d)?)$")
_EXACT = {kind.id for kind in (pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.string())}
"""Types for which Arrow refuses JSON values of other types, but takes True as 1."""
_DIGITS = 15
"""Number of decimal digits that a float64 always keeps; more digits in JSON may be lost."""
_UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)


class RequestColumns:
    """The columns of requests, and the types to convert their values to.

    `schema`: names and types; the type null stands for the type that the values have. `time`: the
    time column, if there is one. `old_names`: column -> other names that requests may use for the
    column.
    """

    def __init__(
        self, schema: pa.Schema, time: str | None, old_names: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.schema = schema
        self._time = time
        self._new_names = {old: new for new, names in old_names.items() for old in names}
        self._kinds = {f.name: None if pa.types.is_null(f.type) else f.type for f in schema}

    def of_objects(self, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        """Return rows as a record batch, as `batch` does: each key is a column."""
        if self._new_names:
            rows = [self._renamed(row.items(), f"row {i} (from 0): ") for i, row in enumerate(rows)]
        columns = [(name, [row.get(name) for row in rows]) for name in self._kinds]
        return self.batch(columns, len(rows))

    def batch(self, columns: Iterable[tuple[str, Any]], rows: int) -> pa.RecordBatch:
        """Return columns, as lists of values or Arrow arrays, as a record batch of `rows` rows.

        A missing column is null, and an unknown column is ignored. Times are integers in the unit
        of the column, or ISO text, which is in UTC if it has no offset. Raises DataError for a
        value that its column cannot hold, and for a column that occurs twice.
        """
        by_name = self._renamed(columns)
        arrays = [
            self._array(name, kind, by_name[name]) if name in by_name else pa.nulls(rows, kind)
            for name, kind in self._kinds.items()
        ]
        return pa.RecordBatch.from_arrays(arrays, [*self._kinds])

    def _renamed(self, columns: Iterable[tuple[str, Any]], place: str = "") -> dict[str, Any]:
        """Return the columns in use by their new names. `place`: how a message names the row."""
        by_name: dict[str, Any] = {}
        for name, values in columns:
            new = self._new_names.get(name, name)
            if new in by_name:
                raise DataError(
                    f"the request: {place}column {new!r}: expected once, received twice, or under "
                    "several names that [source] declares to be the same. Remove all but one"
                )
            if new in self._kinds:
                by_name[new] = values
        return by_name

    def _array(self, name: str, kind: pa.DataType | None, values: Any) -> pa.Array:
        if kind is None and name == self._time and str in map(type, values):
            kind = pa.timestamp("us", "UTC")
        try:
            return _writable(_in_type(values, kind))
        except _UNFIT as error:
            row = next((i for i in range(len(values)) if not _fits(values[i : i + 1], kind)), 0)
            raise DataError(
                f"the request: row {row} (from 0): column {name!r}: "
                f"{error if kind is None else f'expected {kind}'}, "
                f"received {_shown(values[row : row + 1]):.80}"
                f"{''.join(f'. {advice}' for advice in getattr(error, '__notes__', ()))}"
            ) from error


def _shown(value: list[Any] | pa.Array) -> str:
    """Return the text of one value for a message; "None" if there is no value."""
    if type(value) is list or not len(value):
        return repr(next(iter(value), None))
    return shown(value, 0)


def _fits(values: Any, kind: pa.DataType | None) -> bool:
    try:
        _writable(_in_type(values, kind))
    except _UNFIT:
        return False
    return True


def _writable(array: pa.Array) -> pa.Array:
    """Return the array unless an output or an answer cannot hold it.

    Raises ArrowInvalid, and what `to_pylist` raises.
    """
    if pa.types.is_timestamp(array.type) and array.type.unit == "s":
        array.cast(pa.timestamp("ms", array.type.tz))  # as Parquet has no seconds
    if pa.types.is_nested(array.type):
        array.to_pylist()  # fails for times that Python's do not reach
    return array


def _in_type(values: Any, kind: pa.DataType | None) -> pa.Array:
    """Return values as an array of a type; for None, of the type that the values have."""
    if isinstance(values, pa.DictionaryArray):
        values = decoded(values)
    if isinstance(values, pa.Array) and kind is not None and pa.types.is_timestamp(kind):
        values = values.to_pylist() if "string" in str(values.type) else values
    if type(values) is not list:
        return values if kind in (None, values.type) else _finite(values, values.cast(kind))
    types = set(map(type, values))
    if kind is None or kind.id in _EXACT:
        if kind is not None and bool in types and not pa.types.is_boolean(kind):
            raise TypeError("Arrow would take True as 1")
        return _finite(values, pa.array(values, kind))
    if pa.types.is_decimal(kind):
        texts = [None if value is None else _decimal(value) for value in values]
        return pa.array(texts, pa.string()).cast(kind)
    if pa.types.is_integer(kind) and float in types:
        values = [_whole(value) if type(value) is float else value for value in values]
    if pa.types.is_nested(kind):
        return _nested(values, kind)
    if not pa.types.is_temporal(kind):
        return pa.array(values, kind)
    if str not in types:
        if types - {int, type(None)}:
            raise TypeError("a time is ISO text, or an integer")
        return pa.array(values, kind)
    if pa.types.is_timestamp(kind):
        values = [_in_utc(value) if type(value) is str else value for value in values]
        return pa.array(values, pa.string()).cast(pa.timestamp(kind.unit, "UTC")).cast(kind)
    return pa.array(values, pa.string()).cast(kind)


def _nested(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return lists or objects as an array of a type, if its inner types can hold all values."""
    array = pa.array(values, kind)
    some = [value for value in values if value is not None]
    if pa.types.is_struct(kind):
        for field in kind:
            _in_type([value.get(field.name) for value in some], field.type)
    elif hasattr(kind, "value_type"):
        _in_type([*chain.from_iterable(some)], kind.value_type)
    return array


def _finite(values: Any, array: pa.Array) -> pa.Array:
    """Return the array. Raises ValueError if a finite value is beyond the range of its type."""
    is_list = pa.types.is_nested(array.type) and hasattr(array.type, "value_type")
    if isinstance(values, pa.Array) and pa.types.is_struct(array.type):
        before = dict(zip((field.name for field in values.type), values.flatten(), strict=True))
        for field, inner in zip(array.type, array.flatten(), strict=True):
            _finite(before.get(field.name), inner)
    elif isinstance(values, pa.Array) and is_list:
        _finite(values.flatten(), array.flatten())
    if pa.types.is_floating(array.type):
        lost = pc.invert(pc.is_finite(array))
        if isinstance(values, pa.Array) and pa.types.is_floating(values.type):
            lost = pc.and_(lost, pc.is_finite(values))
        if lost.true_count:
            raise ValueError("a value is beyond the range of its type")
    return array


def _whole(value: float) -> int:
    if abs(value) >= 2**53:
        raise _inexact("Send an integer at or beyond ±2**53 without a point or an exponent")
    if not value.is_integer():
        raise ValueError("Arrow would cut it")
    return int(value)


def _decimal(value: Any) -> str:
    text = str(value)
    if type(value) is float:
        digits = len(Decimal(text).normalize().as_tuple().digits)
        if digits > _DIGITS or abs(value) >= 10**_DIGITS:
            raise _inexact(f"Send a number of more than {_DIGITS} digits as text")
    return text


def _inexact(advice: str) -> ValueError:
    error = ValueError("a float may be another number than its JSON")
    error.add_note(advice)
    return error


def _in_utc(text: str) -> str:
    """Return the ISO text of a time with its offset, or with Z if it has none."""
    if len(text) == len("2024-01-01"):
        return f"{text}T00:00Z"
    return text if _ZONE.search(text, 11) else f"{text}Z"


def json_objects(answer: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of an answer as JSON objects, with times as ISO text.

    NaN and infinities stay: orjson writes them as null.
    """
    columns = list(map(_of_json, answer.columns))
    rows: list[dict[str, Any]] = pa.record_batch(columns, answer.schema.names).to_pylist()
    return rows


def _of_json(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            column = column.cast(pa.timestamp(kind.unit, "UTC"))
        return pc.replace_substring(column.cast(pa.string()), " ", "T")
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.string())
    return column
