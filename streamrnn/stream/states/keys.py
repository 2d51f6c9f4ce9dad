"""From keys to slots: the row of each stream in the state table, in order of appearance."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Ints, Words
from streamrnn.errors import StateError
from streamrnn.nn.kernels.keys import StringIndex
from streamrnn.stream.sources.words import bytes_of, words_of


class KeyIndex:
    """Slots of keys of one or more columns; equal values are one stream, null is not allowed.

    With several columns, the values of each are numbered; the key of a row is its tuple of numbers.
    """

    def __init__(self, fields: Sequence[pa.Field]) -> None:
        """Raise StateError if the values of a field cannot be compared as bytes."""
        self.fields = tuple(fields)
        for field in self.fields:
            _check_type(field)
        # Joined on demand: doing so in each record batch would cost the square of the keys.
        self._keys = [[pa.array([], _comparable(field.type))] for field in self.fields]
        self._columns = [StringIndex() for _ in fields] if len(self.fields) > 1 else []
        self._rows = StringIndex()

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, arrays: Sequence[pa.Array], add: bool = True) -> Ints:
        """Return the slot (N,) of each of N keys; new ones are added, or -1 if `add` is false."""
        keys = [
            array if array.type.equals(known[0].type) else array.cast(known[0].type)
            for array, known in zip(arrays, self._keys, strict=True)
        ]
        slots: Ints
        slots, new = self._rows.find(*self._joined(keys, add), add)
        if len(new):
            take = pa.array(new)
            for known, key in zip(self._keys, keys, strict=True):
                known.append(key.take(take))
        return slots

    def truncate(self, size: int) -> None:
        """Remove the keys that were added last, down to `size`."""
        self._keys = [[key.slice(0, size)] for key in self._whole()]
        self._rows.truncate(size)

    def rebuild(self) -> None:
        """Repair the index in a process that was forked during a `find` of another thread."""
        for table in (*self._columns, self._rows):
            table.rebuild()

    def arrays(self) -> list[pa.Array]:
        """Return the key columns, one value per slot."""
        return [key.cast(field.type) for key, field in zip(self._whole(), self.fields, strict=True)]

    def _whole(self) -> list[pa.Array]:
        """Return the keys of each column as one array."""
        for field, chunks in zip(self.fields, self._keys, strict=True):
            if len(chunks) > 1:
                chunks[:] = [_joined_chunks(field, chunks)]
        return [chunks[0] for chunks in self._keys]

    def _joined(self, keys: list[pa.Array], add: bool) -> tuple[Words, Ints, Ints]:
        """Return the bytes of each row's key."""
        if not self._columns:
            return bytes_of(keys[0])
        pairs = zip(self._columns, keys, strict=True)
        numbers = np.stack([column.find(*bytes_of(key), add)[0] for column, key in pairs], axis=1)
        width = numbers.shape[1] * numbers.itemsize
        start = np.arange(len(numbers)) * width
        return words_of(numbers.view(np.uint8).ravel()), start, np.full(len(numbers), width)


def _joined_chunks(field: pa.Field, chunks: list[pa.Array]) -> pa.Array:
    try:
        return pa.concat_arrays(chunks)
    except pa.ArrowInvalid as error:  # offsets of 32 bits
        raise StateError(
            f"key column {field.name!r}: the keys take more than 2 GiB, the limit of a column of "
            f"type {field.type} in the state. Cast it to large_{field.type} in the source"
        ) from error


def _check_type(field: pa.Field) -> None:
    kind = _comparable(field.type)
    unequal = (pa.types.is_floating, pa.types.is_nested, pa.types.is_null, pa.types.is_interval)
    if any(test(kind) for test in unequal) or pa.types.is_run_end_encoded(kind):
        raise StateError(
            f"key column {field.name!r}: expected a type with equality (string, integer, boolean, "
            f"date, timestamp, decimal, binary), received {field.type}"
        )


def _comparable(kind: pa.DataType) -> pa.DataType:
    """Return the type in which keys are stored: its values can be compared as bytes."""
    if isinstance(kind, pa.BaseExtensionType):
        return _comparable(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _comparable(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    return kind
