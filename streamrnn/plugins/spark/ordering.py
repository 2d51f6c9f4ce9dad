"""The order of rows, which a DataFrame lacks, and the place of each row in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Bools, Ints
from streamrnn.errors import ConfigError, DataError, DTypeError
from streamrnn.plugins.spark.frames import arrow_type, pyspark, quoted
from streamrnn.stream.sources import Origin, named_values, ticks

_ADVICE = (
    'For files, name the order of a local run: order=["_metadata.file_path", '
    '"_metadata.row_index"]. The time alone is enough only if no stream has two rows of one time '
    "(ties are refused); late rows are then sorted into their place."
)


@dataclass(frozen=True)
class Order:
    """The columns that order the rows of each stream, by name, and the types of their values."""

    names: tuple[str, ...]
    types: tuple[pa.DataType, ...]

    @classmethod
    def of(cls, frame: Any, order: Sequence[str]) -> "Order":
        """Check the order of a DataFrame; a hidden column can be named.

        Raises ConfigError without an order, or for anything but names; DataError for a missing
        column; DTypeError for a nested or unknown type, and for floats, as NaN does not equal
        itself.
        """
        several = isinstance(order, Sequence) and not isinstance(order, str)
        names: tuple[Any, ...] = tuple(order) if several else (order,)
        for name in names:
            if not isinstance(name, str):  # such as a Column
                raise ConfigError(
                    f"order: expected names of columns, received {type(name).__name__} {name}. To "
                    "order by an expression, add it to the DataFrame as a column"
                )
        if not names:
            raise ConfigError(
                "order: rows of a DataFrame have no order; name the columns that order the rows of "
                f"each stream. {_ADVICE}"
            )
        types = [arrow_type(_type_of(frame, name), "UTC") for name in names]
        for name, kind in zip(names, types, strict=True):
            if kind is None or pa.types.is_nested(kind) or pa.types.is_floating(kind):
                raise DTypeError(
                    f"order: column {name!r}: expected text, an integer, a time or a date, "
                    f"received {_type_of(frame, name).simpleString()}"
                )
        return cls(names, tuple(types))

    @property
    def is_file_and_row(self) -> bool:
        """Whether the order is by file (text) and row (an integer)."""
        if len(self.types) != 2:
            return False
        return bool(pa.types.is_string(self.types[0]) and pa.types.is_integer(self.types[1]))


def column(frame: Any, name: str) -> Any:
    """Return a column of a DataFrame by its name, or by an expression for a hidden one."""
    functions = pyspark().sql.functions
    return functions.col(quoted(name) if name in frame.columns else name)


def _type_of(frame: Any, name: str) -> Any:
    exception = pyspark().errors.AnalysisException
    try:
        return frame.select(column(frame, name)).schema[0].dataType
    except exception as error:
        raise DataError(
            f"order: column {name!r} not found. Available columns: {', '.join(frame.columns)}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Places(Origin):
    """The place of each of N rows in the order.

    `values` (N,) are the values of the columns of the order, `row_N` the indices of the rows.
    """

    order: Order
    values: tuple[pa.Array, ...]

    def file(self, row: int) -> str:
        if self.order.is_file_and_row:
            return str(self.values[0][row].as_py())
        return "the DataFrame"

    def place(self, row: int) -> str:
        if self.order.is_file_and_row:
            return f"{self.file(row)}: row {self.values[1][row].as_py()} (from 0)"
        return f"the DataFrame: row {named_values(self.order.names, self.values, row)}"

    def key(self, row: int) -> list[tuple[bool, str | int]]:
        """Return values that sort rows as their order does, null first, for JSON."""
        values: list[tuple[bool, str | int]] = []
        for array in self.values:
            one = array.slice(row, 1)
            text = pa.types.is_string(array.type)
            value = (one[0].as_py() or "") if text else int(ticks(one)[0])
            values.append((one[0].is_valid, value))
        return values

    def first_of_last_tie(self) -> int:
        """Return the index of the first row that has the same order as the last row."""
        changed = np.flatnonzero(self._changes())
        return int(changed[-1]) + 1 if len(changed) else 0

    def tied(self) -> tuple[Ints, Ints]:
        """Return the rows (K,) that share their order with another row, and the tie of each (K,).

        Ties are numbered: rows with the same number have the same order.
        """
        changes = self._changes()
        group = np.concatenate([[0], np.cumsum(changes)])
        rows = np.flatnonzero(np.bincount(group)[group] > 1)
        return rows, group[rows]

    def _changes(self) -> Bools:
        """Return whether each row but the first (N - 1,) differs from the row before it."""
        changes = np.zeros(len(self.row_N) - 1, bool)
        for array in self.values:
            before, after = array[:-1], array[1:]
            nulls = pc.xor(before.is_null(), after.is_null())
            unequal = pc.or_(pc.fill_null(pc.not_equal(before, after), False), nulls)
            changes |= unequal.to_numpy(zero_copy_only=False)
        return changes


def repeated(slots: Ints, group: Ints) -> int | None:
    """Return the smallest index at which a slot (K,) repeats in its group (K,), or None."""
    order = np.lexsort((group, slots))  # stable
    same = (group[order][1:] == group[order][:-1]) & (slots[order][1:] == slots[order][:-1])
    return int(order[1:][same].min()) if same.any() else None


def tie_error(places: Places, stream: str) -> DataError:
    """Return the error for two rows of a stream with the same order."""
    names = ", ".join(places.order.names)
    return DataError(
        f"{stream}: another row of this stream has the same order ({names}): rows with the same "
        "order could be scored in any order. Add a column to `order` in which they differ. "
        f"{_ADVICE}"
    )
