"""Keys of streams as callers give them: values, tuples, arrays, or columns of a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Bools, Ints
from streamrnn.errors import DTypeError, StateError
from streamrnn.stream.sources import shown
from streamrnn.stream.states.lossless import UnfitValueError, converted
from streamrnn.stream.states.table import StateTable


class KeyValues:
    """The keys of B streams, in the key columns of a state table; null is not a stream.

    `keys` are values if the table has one key column, tuples if it has more, an Arrow array, or an
    Arrow table or record batch with the key columns. Raises DTypeError for anything else, and for
    values of another type than the column's.
    """

    def __init__(self, keys: Any, fields: Sequence[pa.Field]) -> None:
        self._fields = list(fields)
        self.arrays = [
            _typed(values, field)
            for values, field in zip(_columns(keys, self._fields), fields, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.arrays[0])

    def slots(self, table: StateTable) -> Ints:
        """Return the slot (B,) of each key in a table, -1 if it is missing."""
        named = self._named()
        slots = np.full(len(self), -1)
        slots[named] = table.lookup(self.take(named))
        return slots

    def take(self, rows: Ints | Bools) -> list[pa.Array]:
        """Return the key columns of some rows, by index or by mask."""
        index = pa.array(np.arange(len(self))[rows])
        return [array.take(index) for array in self.arrays]

    def refuse_repeated(self, slots: Ints) -> None:
        """Raise StateError if two keys are equal."""
        _, first = np.unique(slots, return_index=True)
        if len(first) < len(slots):
            row = int(np.setdiff1d(np.arange(len(slots)), first)[0])
            earlier = int(np.argmax(slots == slots[row]))
            raise StateError(
                f"keys: {self.place(row)}: expected each stream once, but row {earlier} has the "
                "same key"
            )

    def refuse_null(self) -> None:
        """Raise StateError if a key is null."""
        named = self._named()
        if not named.all():
            raise StateError(f"keys: {self.place(int(np.argmin(named)))}: the key is null")

    def place(self, row: int) -> str:
        """Describe one key for a message."""
        pairs = zip(self._fields, self.arrays, strict=True)
        key = ", ".join(f"{field.name}={shown(array, row)}" for field, array in pairs)
        return f"row {row} (from 0): stream {key}"

    def _named(self) -> Bools:
        named = np.ones(len(self), bool)
        for array in self.arrays:
            named &= array.is_valid().to_numpy(zero_copy_only=False)
        return named


def _columns(keys: Any, fields: Sequence[pa.Field]) -> list[Any]:
    """Return one column of values per field."""
    names = [field.name for field in fields]
    if isinstance(keys, pa.Table | pa.RecordBatch):
        if missing := [name for name in names if keys.schema.names.count(name) != 1]:
            raise StateError(
                f"keys: expected one column {missing[0]!r}, received {', '.join(keys.schema.names)}"
            )
        return [keys.column(name) for name in names]
    if isinstance(keys, str | bytes) or not hasattr(keys, "__len__"):
        raise DTypeError(
            f"keys: expected a list of keys, an array or a table, received {type(keys).__name__}"
        )
    if len(fields) == 1:
        return [keys]
    rows = list(keys)
    for row, key in enumerate(rows):
        if not isinstance(key, tuple | list) or len(key) != len(fields):
            raise DTypeError(
                f"keys: row {row} (from 0): expected a tuple ({', '.join(names)}), received {key!r}"
            )
    return [[key[i] for key in rows] for i in range(len(fields))]


def _typed(values: Any, field: pa.Field) -> pa.Array:
    try:
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if isinstance(values, pa.Array):
            return converted(values, field.type)
        return pa.array(values if isinstance(values, np.ndarray) else list(values), field.type)
    except (UnfitValueError, TypeError, pa.ArrowException) as error:
        raise DTypeError(f"keys: column {field.name!r}: expected {field.type}: {error}") from error
