"""Find the slot of each key, which is its row in the state table, and the shard of each key.

Slots are assigned in the order of appearance, shards by a hash that is equal on every machine.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Ints, Words
from streamrnn.errors import StateError
from streamrnn.nn.kernels.rows import (
    LastTimes,
    PlainColumns,
    PlainRows,
    StringIndex,
    grown,
    read_plain,
)
from streamrnn.stream.sources import hashes_of
from streamrnn.stream.sources.casts import decoded, has_equality, is_text
from streamrnn.stream.sources.content import bytes_of, words_of

_CHUNK = 1 << 16
"""A chunk of at least this many keys is joined to others only when all chunks are joined."""


class KeyIndex:
    """Slots of keys of one or more columns; equal keys are one stream, null is not allowed.

    With several columns, the values of each column are numbered, and a key is a tuple of these
    numbers. `removed` is the count of keys that are kept although no slot has them any more.
    """

    def __init__(self, fields: Sequence[pa.Field]) -> None:
        """Raise StateError if the values of a field cannot be compared as bytes."""
        self.fields = tuple(fields)
        for field in self.fields:
            if not has_equality(_comparable(field.type)):
                raise StateError(
                    f"key column {field.name!r}: expected a type that a key can have (string, "
                    f"integer, boolean, date, timestamp, decimal, binary), received {field.type}"
                )
        # In chunks: joining all of them in each record batch would take quadratic time.
        self._keys = [[pa.array([], _comparable(field.type))] for field in self.fields]
        # The key of slot s is at place s + _behind[s] if s < _moved, else at place s + removed.
        self._behind, self._moved, self.removed = np.zeros(0, np.int64), 0, 0
        self._columns = [StringIndex() for _ in fields] if len(self.fields) > 1 else []
        self._rows = StringIndex()

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, arrays: Sequence[pa.Array], add: bool = True) -> Ints:
        """Return the slot (N,) of each of N keys; new keys are added, or get -1 without `add`."""
        keys = [
            array if array.type.equals(stored[0].type) else decoded(array).cast(stored[0].type)
            for array, stored in zip(arrays, self._keys, strict=True)
        ]
        slots: Ints
        slots, new = self._rows.find(*self._row_keys(keys, add), add)
        if len(new):
            take = pa.array(new)
            for field, stored, key in zip(self.fields, self._keys, keys, strict=True):
                stored.append(key.take(take))
                # Keep few chunks: join the last two while that is cheap.
                while len(stored) > 1 and len(stored[-2]) <= len(stored[-1]) < _CHUNK:
                    stored[-2:] = [_joined(field, stored[-2:])]
        return slots

    def plain(
        self, batch: pa.RecordBatch, columns: PlainColumns, last: LastTimes, most: int
    ) -> PlainRows | None:
        """Return the rows of a record batch if they are plain (see `kernels.rows`)."""
        return read_plain(batch, columns, self._rows, last, most)

    def truncate(self, size: int) -> None:
        """Remove the keys added last, until `size` are left."""
        kept = size + self.removed
        self._keys = [pa.chunked_array(keys).slice(0, kept).chunks for keys in self._keys]
        self._rows.truncate(size)

    def moving(self, source: Ints, to: Ints, size: int) -> Callable[[], None]:
        """Return the call, which may be repeated, that moves keys from the slots `source` to `to`.

        `size` slots are left: `source` are all slots from `size` on whose keys stay, and the
        earlier keys of `to` are removed.
        """
        streams = len(self)
        behind, removed = grown(self._behind, streams), self.removed + streams - size
        if self.removed:  # else they are 0, in untouched memory
            behind[self._moved : streams] = self.removed
        moved, move_rows = behind[source] + source - to, self._rows.moving(source, to, size)

        def move() -> None:
            behind[to] = moved
            move_rows()
            self._behind, self._moved, self.removed = behind, size, removed

        return move

    def similar_keys(self, first: int) -> tuple[Ints, Ints]:
        """Return slots from `first` on, and for each the first slot whose key looks like its key.

        Texts that differ only in case or in blanks around them look alike. No key may have been
        removed.
        """
        hashes = key_hashes([_folded(key) for key in self._whole()])  # Arrow's dictionary is slow
        order = np.argsort(hashes, kind="stable")
        begins = np.diff(hashes[order], prepend=0) != 0
        begins[:1] = True
        like = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
        alike = np.flatnonzero((like != order) & (order >= first))
        alike = alike[np.argsort(order[alike])]
        return order[alike], like[alike]

    def become(self, other: "KeyIndex") -> None:
        """Take over the keys of another index, which must not change any more."""
        self._keys, self._columns, self._rows = other._keys, other._columns, other._rows
        self._behind, self._moved, self.removed = other._behind, other._moved, other.removed

    def rebuild(self) -> None:
        """Repair the index in a process that was forked during a `find` of another thread."""
        for table in (*self._columns, self._rows):
            table.rebuild()

    def arrays(self, slots: Ints | None = None) -> list[pa.Array]:
        """Return the key columns, one value per slot, or one for each of `slots`."""
        keys = self._whole()
        if slots is not None or self.removed:
            take = pa.array(self._places(np.arange(len(self)) if slots is None else slots))
            keys = [key.take(take) for key in keys]
        return [key.cast(field.type) for key, field in zip(keys, self.fields, strict=True)]

    def _places(self, slots: Ints) -> Ints:
        places = slots + self.removed
        early = slots < self._moved
        places[early] = slots[early] + self._behind[slots[early]]
        return places

    def _whole(self) -> list[pa.Array]:
        """Join the chunks of each key column; return the columns."""
        for field, chunks in zip(self.fields, self._keys, strict=True):
            if len(chunks) > 1:
                chunks[:] = [_joined(field, chunks)]
        return [chunks[0] for chunks in self._keys]

    def _row_keys(self, keys: list[pa.Array], add: bool) -> tuple[Words, Ints, Ints]:
        if not self._columns:
            return bytes_of(keys[0])
        pairs = zip(self._columns, keys, strict=True)
        numbers = np.stack([column.find(*bytes_of(key), add)[0] for column, key in pairs], axis=1)
        width = numbers.shape[1] * numbers.itemsize
        start = np.arange(len(numbers)) * width
        return words_of(numbers.view(np.uint8).ravel()), start, np.full(len(numbers), width)


class KeyCopy(KeyIndex):
    """The keys that an index had when this copy was created; it cannot be searched."""

    def __init__(self, index: KeyIndex) -> None:
        self.fields, self._size = index.fields, len(index)
        self._keys = [list(chunks) for chunks in index._keys]
        self._behind, self._moved = index._behind[: index._moved].copy(), index._moved
        self.removed = index.removed

    def __len__(self) -> int:
        return self._size

    def taken(self, slots: Ints) -> "KeyCopy":
        """Return only the keys of `slots`, in the order of `slots`."""
        taken, take = KeyCopy(self), pa.array(self._places(slots))
        taken._keys = [[key.take(take)] for key in self._whole()]
        taken._size, taken._moved, taken.removed = len(slots), 0, 0
        return taken


def _folded(key: pa.Array) -> pa.Array:
    """Return texts in lower case, without blanks around them, and other keys as they are."""
    if not is_text(key.type):
        return key
    if pc.all(pc.string_is_ascii(key), min_count=0).as_py():  # 5 times as fast
        return pc.ascii_lower(pc.ascii_trim_whitespace(key))
    with suppress(pa.ArrowInvalid):  # not UTF-8
        key = pc.utf8_lower(pc.utf8_trim_whitespace(key))
    return key


def _joined(field: pa.Field, chunks: list[pa.Array]) -> pa.Array:
    try:
        return pa.concat_arrays(chunks)
    except pa.ArrowInvalid as error:  # offsets of 32 bits
        raise StateError(
            f"key column {field.name!r}: the keys take more than 2 GiB, the limit of a column of "
            f"type {field.type} in the state. Cast the column to large_{field.type} in the source"
        ) from error


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


_FACTOR = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT, _HALF = np.uint64(33), np.uint64(32)


def key_hashes(keys: Sequence[pa.Array]) -> Words:
    """Return a hash (N,) uint64 of all bits of each of N keys, in the types of the state table."""
    hashes = hashes_of(keys)
    mixed = (hashes ^ (hashes >> _SHIFT)) * _FACTOR
    mixed ^= mixed >> _SHIFT
    return mixed


def shard_of(hash_N: Words, shards: int) -> Ints:
    """Return the shard (N,) int64 of each of N hashes of keys, from 0 to `shards` - 1.

    Outputs rely on this assignment: each shard's state has its own files.

    >>> shard_of(key_hashes([pa.array(["a", "b", "c", "d"])]), 3).tolist()
    [2, 1, 2, 2]
    """
    return (((hash_N >> _HALF) * np.uint64(shards)) >> _HALF).astype(np.int64)


def by_shard(shard_N: Ints, shards: int) -> list[Ints]:
    """Return the rows of each shard, in ascending order."""
    kind = np.uint8 if shards <= 1 << 8 else np.uint16 if shards <= 1 << 16 else np.int64
    order = np.argsort(shard_N.astype(kind), kind="stable")  # radix sort for 16 bits
    ends = np.cumsum(np.bincount(shard_N, minlength=shards))
    return np.split(order, ends[:-1])
