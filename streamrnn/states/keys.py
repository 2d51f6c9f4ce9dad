"""From keys to slots: each stream has one row of the state table, in order of appearance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.states.hashing import Hashes, hash_rows

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class KeyIndex:
    """Slots of keys of one or more columns; equal values are one stream, null is not allowed.

    A hash table with open addressing whose cells hold slots (-1: empty). Hashes find a slot, the
    keys themselves decide. A dict of Python values took 3 to 10 times as long to search (100,000
    and 1,000,000 strings) and held the interpreter's lock meanwhile.
    """

    def __init__(self, fields: Sequence[pa.Field]) -> None:
        self.fields = tuple(fields)
        self._keys = [pa.array([], _hashable(field.type)) for field in self.fields]
        self._hashes: Hashes = np.zeros(0, np.uint64)
        self._cells: Ints = np.full(1024, -1)

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, arrays: Sequence[pa.Array], add: bool = True) -> Ints:
        """The slot (N,) of each of N keys; new ones are added, or are -1 if `add` is false.

        An array may be dictionary-encoded: values that occur often cost less then.
        """
        codes, keys = _distinct(arrays)
        keys = [key.cast(own.type) for key, own in zip(keys, self._keys, strict=True)]
        hashes = hash_rows(keys)
        slots = self._search(hashes, keys)
        new = np.flatnonzero(slots < 0)
        if add and len(new):
            slots[new] = len(self) + np.arange(len(new))
            take = pa.array(new)
            self._keys = [
                pa.concat_arrays([own, key.take(take)])
                for own, key in zip(self._keys, keys, strict=True)
            ]
            self._add(hashes[new])
        return slots[codes]

    def truncate(self, size: int) -> None:
        """Forget the keys that were added last, down to `size`."""
        if size == len(self):
            return
        self._keys = [key.slice(0, size) for key in self._keys]
        hashes, self._hashes = self._hashes[:size], self._hashes[:0]
        self._cells[:] = -1
        self._add(hashes)

    def arrays(self) -> list[pa.Array]:
        """The key columns, one value a slot."""
        return [key.cast(field.type) for key, field in zip(self._keys, self.fields, strict=True)]

    def _search(self, hashes: Hashes, keys: list[pa.Array]) -> Ints:
        """The slot of each distinct key, -1 for those that are not there."""
        slots = np.full(len(hashes), -1)
        left = np.arange(len(hashes))
        cell = self._cell(hashes)
        while len(left):
            found = self._cells[cell]
            there = found >= 0
            alike = np.flatnonzero(there)
            alike = alike[self._hashes[found[alike]] == hashes[left[alike]]]
            same = np.zeros(len(left), bool)
            same[alike] = self._equal(keys, left[alike], found[alike])
            slots[left] = np.where(same, found, -1)
            on = np.flatnonzero(there & ~same)
            left, cell = left[on], self._next(cell[on])
        return slots

    def _equal(self, keys: list[pa.Array], rows: Ints, slots: Ints) -> Bools:
        equal = np.ones(len(rows), bool)
        for own, key in zip(self._keys, keys, strict=True):
            a, b = own.take(pa.array(slots)), key.take(pa.array(rows))
            equal &= pc.equal(a, b).to_numpy(zero_copy_only=False)
        return equal

    def _add(self, hashes: Hashes) -> None:
        """Give the next slots to keys that are not there, in their order."""
        slots = len(self) + np.arange(len(hashes))
        self._hashes = np.concatenate([self._hashes, hashes])
        if 4 * len(self) > len(self._cells):
            self._cells = np.full(1 << (4 * len(self)).bit_length(), -1)
            slots = np.arange(len(self))
        cell = self._cell(self._hashes[slots])
        while len(slots):
            empty = self._cells[cell] < 0
            self._cells[cell[empty]] = slots[empty]
            # Of those that meant the same empty cell one has it now; the others go on.
            out = self._cells[cell] != slots
            slots, cell = slots[out], self._next(cell[out])

    def _cell(self, hashes: Hashes) -> Ints:
        return (hashes & np.uint64(len(self._cells) - 1)).astype(np.int64)

    def _next(self, cell: Ints) -> Ints:
        return (cell + 1) & (len(self._cells) - 1)


def _hashable(kind: pa.DataType) -> pa.DataType:
    """The type in which keys are kept: Arrow can encode, take and compare it."""
    if isinstance(kind, pa.BaseExtensionType):
        return _hashable(kind.storage_type)
    if pa.types.is_decimal(kind) and kind.bit_width < 128:
        return pa.decimal128(kind.precision, kind.scale)
    return kind


def _distinct(arrays: Sequence[pa.Array]) -> tuple[Ints, list[pa.Array]]:
    """A code for each row, and the distinct keys by code, in order of first appearance."""
    encoded = [_encoded(array) for array in arrays]
    codes = [each.indices.to_numpy(zero_copy_only=False).astype(np.int64) for each in encoded]
    if len(arrays) == 1 and _in_order(codes[0], len(encoded[0].dictionary)):
        return codes[0], [encoded[0].dictionary]
    joint = _renumbered(codes[0])
    for one, each in zip(codes[1:], encoded[1:], strict=True):
        joint = _renumbered(joint * len(each.dictionary) + one)
    first = np.empty(int(joint.max(initial=-1)) + 1, np.int64)
    first[joint[::-1]] = np.arange(len(joint) - 1, -1, -1)
    pairs = zip(encoded, codes, strict=True)
    return joint, [each.dictionary.take(pa.array(code[first])) for each, code in pairs]


def _encoded(array: pa.Array) -> pa.DictionaryArray:
    if pa.types.is_dictionary(array.type):
        return array
    return array.cast(_hashable(array.type)).dictionary_encode()


def _renumbered(codes: Ints) -> Ints:
    """The same codes numbered in order of first appearance."""
    indices = pa.array(codes).dictionary_encode().indices
    renumbered: Ints = indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return renumbered


def _in_order(codes: Ints, size: int) -> bool:
    """Whether the codes are 0 to size - 1, all used, in order of first appearance."""
    peak = np.maximum.accumulate(np.append(-1, codes))
    return int(peak[-1]) == size - 1 and int(np.diff(peak).max(initial=0)) <= 1
