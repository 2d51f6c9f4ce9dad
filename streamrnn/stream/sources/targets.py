"""The columns of labels and their weights, as numbers."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Bools, Doubles, Ints
from streamrnn.errors import DataError, DTypeError
from streamrnn.stream.sources.casts import is_number, nulls_of
from streamrnn.stream.sources.contract import Rows
from streamrnn.stream.sources.schema import used_schema


@dataclass(frozen=True)
class TargetColumns:
    """The columns of `[target]`: K columns of values, and one of weights (None: all are 1).

    They are read as the source has them: `valid`, `clip` and `nulls` apply to features only.
    """

    values: tuple[str, ...]
    weight: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All columns, each once."""
        return tuple(dict.fromkeys([*self.values, *filter(None, [self.weight])]))

    def check(self, schema: pa.Schema, path: str) -> None:
        """Raise DataError if a column is missing, DTypeError if it holds no numbers."""
        used_schema(schema, self.names, path)
        for key, names in (("column", self.values), ("weight", (self.weight,))):
            for name in filter(None, names):
                kind = schema.field(name).type
                if not is_number(kind):
                    advice = ". Number its classes from 0" if key == "column" else ""
                    raise DTypeError(
                        f"{path}: [target] {key}: column {name!r}: expected number or boolean, "
                        f"received {kind}{advice}"
                    )

    def read(self, rows: Rows) -> tuple[Doubles, Doubles]:
        """Return values (N, K) float64, NaN for null, and weights (N,) float64 of N rows.

        A null weight is 0. Values are converted as they are, also in invalid rows: `refuse`
        checks them.
        """
        values = np.empty((len(rows), len(self.values)))
        for k, name in enumerate(self.values):
            values[:, k] = _numbers(rows.batch.column(name))
        if self.weight is None:
            return values, np.ones(len(rows))
        column = rows.batch.column(self.weight)
        weight = _numbers(column)
        if column.null_count:
            weight[nulls_of(column)] = 0
        return values, weight

    def refuse(self, rows: Rows, values: Doubles, weight: Doubles, valid: Ints) -> None:
        """Raise DataError for an infinite value, or for a weight below 0, infinite or NaN.

        `valid` are the rows to check, in order.
        """
        for k, name in enumerate(self.values):
            _refuse(rows, np.isinf(values[:, k]), valid, "column", name, "a finite number or null")
        if self.weight is not None:
            wrong = ~((weight >= 0) & (weight < np.inf))
            _refuse(rows, wrong, valid, "weight", self.weight, "a finite number, 0 or more")


def _refuse(rows: Rows, wrong: Bools, valid: Ints, key: str, name: str, expected: str) -> None:
    if not wrong.any():
        return
    unfit = valid[wrong[valid]]
    if len(unfit):
        row = int(unfit[0])
        value = rows.batch.column(name)[row].as_py()
        raise DataError(
            f"{rows.place(row)}: [target] {key}: column {name!r}: expected {expected}, received "
            f"{value}. Rows like it in this record batch: {len(unfit)}."
        ).at(rows.number(row))


def _numbers(array: pa.Array) -> Doubles:
    """Return numbers or booleans (N,) as float64, NaN for null."""
    if pa.types.is_floating(array.type) or pa.types.is_integer(array.type):
        values: Doubles = array.to_numpy(zero_copy_only=False).astype(np.float64)
        return values
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values.astype(np.float64)
