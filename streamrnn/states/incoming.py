"""A state table from elsewhere, taken column by column and checked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from streamrnn.arrays import Bools, Ints
from streamrnn.errors import StateError
from streamrnn.states.lossless import UnfitValueError, converted


class Incoming:
    """An Arrow table whose rows are streams, named by the columns `keys`.

    `where` is what messages call it. Every error is a StateError with the column and, where one is
    at fault, the row and its stream.
    """

    def __init__(self, source: pa.Table, keys: Sequence[pa.Field], where: str) -> None:
        self.source = source
        self.where = where
        self._fields = list(keys)
        self.keys = [self.column(field.name, field.type) for field in keys]
        for field, array in zip(keys, self.keys, strict=True):
            self.refuse(field.name, nulls(array), "the key is null")

    def __contains__(self, name: str) -> bool:
        return name in self.source.column_names

    def __len__(self) -> int:
        return int(self.source.num_rows)

    def column(self, name: str, kind: pa.DataType) -> pa.Array:
        """A column in this type; see `lossless` for the types that are taken for it."""
        names = self.source.column_names
        if names.count(name) != 1:
            raise StateError(f"{self.where}: {_missing_or_twice(name, names)}")
        column = self.source.column(names.index(name))
        if not column.num_chunks:
            return self._converted(name, pa.array([], column.type), kind, 0)
        pieces, row = [], 0
        for chunk in column.chunks:
            pieces.append(self._converted(name, chunk, kind, row))
            row += len(chunk)
        return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)

    def _converted(self, name: str, chunk: pa.Array, kind: pa.DataType, row: int) -> pa.Array:
        """Values of a column, the first of which is in this row."""
        try:
            return converted(chunk, kind)
        except TypeError as error:
            raise StateError(
                f"{self.where}: column {name!r}: expected {kind}, received {chunk.type}"
            ) from error
        except UnfitValueError as error:
            place = self.place(row + error.row)
            raise StateError(f"{place}: column {name!r}: {error}") from error
        except pa.ArrowException as error:
            raise StateError(
                f"{self.where}: column {name!r}: expected {kind}, received {chunk.type}, "
                f"which cannot be brought to it without loss: {error}"
            ) from error

    def slots(self, find: Callable[[Sequence[pa.Array]], Ints]) -> Ints:
        """What `find` gives for the keys, which must be there once each."""
        slots = find(self.keys)
        if len(slots) and np.bincount(slots).max() > 1:
            _, first, of = np.unique(slots, return_index=True, return_inverse=True)
            again = first[of] != np.arange(len(slots))
            row = int(np.argmax(again))
            raise StateError(
                f"{self.place(row)}: expected each stream once, but row {first[of][row]} is of the "
                f"same one ({_count(again)} of {len(self)} rows). Remove all but one"
            )
        return slots

    def refuse(self, name: str, rows: Bools, what: str) -> None:
        """Raise StateError if any of the rows (S,) is marked; `what` is wrong with the first."""
        if rows.any():
            raise StateError(
                f"{self.place(int(np.argmax(rows)))}: column {name!r}: {what} "
                f"({_count(rows)} of {len(self)} rows)"
            )

    def place(self, row: int) -> str:
        """Where a row is, for a message."""
        named = zip(self._fields, self.keys, strict=False)
        key = ", ".join(f"{field.name}={_shown(array, row)}" for field, array in named)
        return f"{self.where}: row {row} (from 0): stream {key}"


def meta(source: pa.Table, name: str) -> str:
    """An entry of streamrnn's metadata as text; "" if it is not there."""
    metadata = source.schema.metadata or {}
    found: bytes = metadata.get(f"streamrnn.{name}".encode(), b"")
    return found.decode(errors="replace")


def key_names(table: pa.Table, where: str = "the table") -> list[str]:
    """The key columns of a state table. Raises StateError, with `where`, if it is none."""
    metadata = table.schema.metadata or {}
    text = metadata.get(b"streamrnn.keys")
    if text is None:
        raise StateError(f"{where}: not a state table: its schema has no metadata of streamrnn")
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise StateError(
            f"{where}: not a state table: expected a list of names as metadata streamrnn.keys, "
            f"received {text.decode(errors='replace')[:80]!r}"
        )
    for name in names:
        if table.column_names.count(name) != 1:
            raise StateError(f"{where}: {_missing_or_twice(name, table.column_names)}")
    return names


def nulls(array: pa.Array) -> Bools:
    """Which values are null."""
    found: Bools = array.is_null().to_numpy(zero_copy_only=False)
    return found


def _count(rows: Bools) -> int:
    return int(np.count_nonzero(rows))


def _missing_or_twice(name: str, names: Sequence[str]) -> str:
    if name in names:
        return (
            f"column {name!r} is there {Counter(names)[name]} times: expected once. "
            "Remove all but one"
        )
    return f"there is no column {name!r}. Columns there are: {', '.join(names)}"


def _shown(array: pa.Array, row: int) -> str:
    # Python's own times would lose nanoseconds, or refuse.
    one = array.slice(row, 1)
    if pa.types.is_temporal(one.type):
        return str(one.cast(pa.string())[0].as_py())
    return repr(one[0].as_py())
