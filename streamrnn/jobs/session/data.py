"""Data of a caller: Arrow data or dicts, as record batches whose schema is checked once."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa

from streamrnn.errors import DataError, DTypeError
from streamrnn.stream.scoring import LoadedPipeline
from streamrnn.stream.scoring.scorer import Scored
from streamrnn.stream.sources import (
    Feature,
    cast_columns,
    cast_what_fits,
    common_schema,
    missing_column,
    new_names,
    select,
)

BATCH = "the batch"
"""What messages call the data of a call."""
REQUEST = "the request"
"""What messages call the rows of a request, which are counted from its first row."""


class CheckedSchema(NamedTuple):
    """A valid schema of data, and how its record batches are converted for scoring.

    `used` has the columns in use as the data has them, dictionaries decoded; `target` has the same
    columns with the types to cast to; `origin` says in messages where these types come from.
    `indices` are the places of the columns in the data (None if a column must be converted), and
    `all_in_order` says that they are all columns of the data, in order. `changed` is the number of
    columns whose type differs from the type in `origin`.
    """

    schema: pa.Schema
    used: pa.Schema
    target: pa.Schema
    origin: str
    indices: list[int] | None
    all_in_order: bool
    changed: int

    @classmethod
    def of(
        cls,
        schema: pa.Schema,
        used: pa.Schema,
        expected: pa.Schema,
        origin: str,
        features: Mapping[str, Feature],
    ) -> Self:
        """Check the columns in use against the `expected` columns, as a run checks files.

        `origin` names where the `expected` columns come from. Columns that are `features` alone may
        have any type that can be read. Raises DataError and DTypeError.
        """
        used, target = common_schema(expected, used, BATCH, origin, features)
        changed = sum(a.type != b.type for a, b in zip(used, expected, strict=True))
        as_it_is = all(schema.field(field.name).type == field.type for field in target)
        indices = [schema.get_field_index(name) for name in target.names] if as_it_is else None
        in_order = indices == list(range(len(schema)))
        return cls(schema, used, target, origin, indices, in_order, changed)

    def columns(
        self, batch: pa.RecordBatch, first_row: int, *, refuse: bool
    ) -> tuple[pa.RecordBatch, Mapping[int, str]]:
        """Return the columns to score, converted; `first_row` numbers the batch's first row.

        A value that does not fit the target type raises DataError; with `refuse` it becomes null,
        and the second result says why, by row.
        """
        if self.all_in_order:
            return batch, {}
        if self.indices is not None:
            return batch.select(self.indices), {}
        batch = select(batch, self.used)
        if self.used == self.target:
            return batch, {}
        if refuse:
            return cast_what_fits(batch, self.target, self.origin)
        return cast_columns(batch, self.target, BATCH, first_row, self.origin), {}


def batches_of(data: object) -> tuple[list[pa.RecordBatch], pa.Schema]:
    """Return the data's record batches (one or none; several if text exceeds 2 GiB) and schema."""
    if isinstance(data, pa.RecordBatch):
        return [data], data.schema
    if not (hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")):
        raise DTypeError(
            "process: expected a RecordBatch, a Table, an object with the Arrow PyCapsule "
            f"interface, or a list of dicts, received {type(data).__name__}"
        )
    try:
        table = data if isinstance(data, pa.Table) else pa.table(data)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DTypeError(
            f"process: expected a table that Arrow can hold, received {type(data).__name__}: "
            f"{error}. Pass only the columns that the pipeline uses, each with one type"
        ) from error
    table = table.combine_chunks()
    return table.to_batches(), table.schema


def rejects_of(scored: Sequence[Scored]) -> pa.RecordBatch | None:
    """Return the rejected rows of a call; None if there are none."""
    rejects = [item.rejects for item in scored if item.rejects is not None]
    if not rejects:
        return None
    return pa.Table.from_batches(rejects).combine_chunks().to_batches()[0]


_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool, np.bool_), "a boolean"),
    ((int, np.integer), "an integer"),
    ((float, np.floating), "a float"),
    ((str,), "text"),
    ((bytes,), "bytes"),
    ((Decimal,), "a decimal"),
    ((date,), "a date"),
)
_NUMBERS = {"a boolean", "an integer", "a float"}
_MIXED = ({"an integer", "a float"}, {"an integer", "a decimal"})
"""Pairs of kinds that Arrow reads as one type, the second's."""
_DECIMALS = pa.decimal128(38, 18)
"""The type of decimals, with room for more digits in later rows; it is also Spark's."""


def table_of_dicts(
    rows: Sequence[Any],
    loaded: LoadedPipeline,
    types: pa.Schema | None,
    first_row: int,
    *,
    complete: bool = True,
) -> pa.Table:
    """Return a table of N rows with the columns that a pipeline uses, under their new names.

    `types`: the types of earlier rows, None before there are any; `first_row`: the number of the
    first row in messages. A column that a row lacks is null there; one that the pipeline does not
    use is ignored. Numbers become float64 where the model reads them as float32, or earlier rows
    had floats; the first decimals become decimal128(38, 18) if that type can hold them; integers
    beyond int64 are uint64. Times in several zones are converted to the first zone. Raises
    DTypeError if a row is not a dict, or the name of a column is not text; DataError, with row and
    column, for values that Arrow cannot hold in one column, for floats where earlier rows had
    integers, and, if the rows have to be `complete`, for a key column or time that no row has.
    """
    for row, values in enumerate(rows):
        if not isinstance(values, Mapping):
            raise DTypeError(
                f"{BATCH}: row {first_row + row} (from 0): expected a dict, received "
                f"{type(values).__name__}. process takes a RecordBatch, a Table, an object with "
                "the Arrow PyCapsule interface, or a list of dicts"
            )
        for name in values:
            if not isinstance(name, str):
                raise DTypeError(
                    f"{BATCH}: row {first_row + row} (from 0): expected text as the name of each "
                    f"column, received the key {name!r:.80} ({type(name).__name__}). Rename it, or "
                    "remove it"
                )
    present = list(dict.fromkeys(name for values in rows for name in values))
    renamed = new_names(present, loaded.renames, BATCH)
    columns = {renamed.get(name, name): name for name in present}
    contract, names = loaded.contract, loaded.columns
    if names is None:
        before = [] if types is None else types.names
        names = list(dict.fromkeys([*contract.columns(), *before, *columns]))
    for name in (*contract.key, contract.time) if rows and complete else ():
        if name is not None and name not in columns:
            raise DataError(missing_column(BATCH, name, list(columns)))
    numbers = {f.name for f in contract.floats if f.vocabulary is None}
    if types is not None:
        numbers |= {field.name for field in types if pa.types.is_floating(field.type)}
    uncast = contract.features_alone(loaded.config.columns)
    kinds = {} if types is None else {f.name: f.type for f in types if f.name not in uncast}
    arrays = []
    for name in names:
        values = [row.get(columns.get(name, name)) for row in rows]
        column = _Column(name, values, first_row, kinds.get(name))
        array = column.array(numbers=name in numbers)
        if name == contract.reset and pa.types.is_null(array.type):
            array = array.cast(pa.bool_())
        arrays.append(array)
    return pa.Table.from_arrays(arrays, names)


def with_nulls_for_unfit(
    rows: list[Any], check: Callable[[list[Any]], object]
) -> tuple[list[Any], dict[int, str]]:
    """Return rows without the values that `check` refuses, and the reasons, by row number.

    `check` raises DataError or DTypeError for rows with such a value. Of rows that fit alone, but
    not together, the later ones are refused.
    """
    rows, alone = _with_nulls(rows, [], lambda _, part: check(part))
    rows, together = _with_nulls(rows, [], lambda before, part: check(before + part))
    return rows, together | alone


def _with_nulls(
    rows: list[Any], before: list[Any], check: Callable[[list[Any], list[Any]], object]
) -> tuple[list[Any], dict[int, str]]:
    try:
        check(before, rows)
    except (DataError, DTypeError) as error:
        if half := len(rows) // 2:
            first, reasons = _with_nulls(rows[:half], before, check)
            rest, others = _with_nulls(rows[half:], before + first, check)
            return first + rest, reasons | {half + row: why for row, why in others.items()}
        if not isinstance(rows[0], Mapping):
            raise
        nulls = dict.fromkeys(rows[0])
        kept = {n: v for n, v in rows[0].items() if _fits({**nulls, n: v}, before, check)}
        why = str(error).removeprefix(f"{BATCH}: ").rpartition("(from 0): ")[2]
        return [{**nulls, **kept}], {0: why}
    return rows, {}


def _fits(
    row: Mapping[str, Any], before: list[Any], check: Callable[[list[Any], list[Any]], object]
) -> bool:
    try:
        check(before, [row])
    except (DataError, DTypeError):
        return False
    return True


class _Column(NamedTuple):
    """The values of a column, the number of its first row in messages, and the type to cast to."""

    name: str
    values: list[Any]
    first_row: int
    expected: pa.DataType | None

    def array(self, *, numbers: bool) -> pa.Array:
        """Return the values in one type; with `numbers`, all numbers are float64."""
        first: dict[str, int] = {}
        for row, value in enumerate(self.values):
            if value is not None:
                first.setdefault(_kind(value), row)
        kinds = set(first)
        if numbers and kinds <= _NUMBERS:
            return self._floats()
        if len(kinds) > 1 and kinds not in _MIXED:
            (kind, before), (other, row) = list(first.items())[:2]
            as_before = f"expected {kind} as in row {self.first_row + before}"
            raise self._refused(row, as_before, f"{other}: {self._shown(row)}")
        expected = self.expected
        if "a float" in kinds and expected is not None and pa.types.is_integer(expected):
            for row, value in enumerate(self.values):
                if value is not None and value % 1:  # also NaN and infinity, whose rest is NaN
                    raise self._refused(
                        row,
                        f"expected {expected} as in earlier rows",
                        f"a float: {self._shown(row)}. The first rows gave the column its type: "
                        "start with floats (1.0, not 1), or with Arrow data that has float64 there",
                    )
            whole = [None if value is None else int(value) for value in self.values]
            return self._replace(values=whole).array(numbers=False)
        try:
            return self._converted(self.values, kinds)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            row = self._first_unfit(kinds)
            raise self._refused(
                row, "expected a value that Arrow can hold", f"{self._shown(row)}: {error}"
            ) from error

    def _converted(self, values: list[Any], kinds: set[str]) -> pa.Array:
        """Return values in the type of earlier rows if they fit, else in Arrow's choice of type."""
        expected = self.expected
        if (expected is None or pa.types.is_null(expected)) and "a decimal" in kinds:
            expected = _DECIMALS
        choices: list[pa.DataType | None] = [None]
        if expected is not None and (
            (pa.types.is_decimal(expected) and kinds <= {"an integer", "a decimal"})
            or (pa.types.is_integer(expected) and kinds == {"an integer"})
        ):
            choices.insert(0, expected)
        if kinds == {"an integer"}:
            choices.append(pa.uint64())
        for choice in choices[:-1]:
            with suppress(pa.ArrowException, OverflowError):
                return pa.array(values, choice)
        return pa.array(values, choices[-1])

    def _floats(self) -> pa.Array:
        floats: list[float | None] = []
        for row, value in enumerate(self.values):
            try:
                floats.append(None if value is None else float(value))
                exact = value is None or value != value or float(value) == value
            except OverflowError:
                exact = False
            if not exact:
                expected = "expected a number that float64 can hold"
                raise self._refused(row, expected, self._shown(row))
        return pa.array(floats, pa.float64())

    def _first_unfit(self, kinds: set[str]) -> int:
        low, high = 0, len(self.values)  # the first unfit value is in [low, high)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self._converted(self.values[:middle], kinds)
                low = middle
            except (pa.ArrowException, ValueError, TypeError, OverflowError):
                high = middle
        return low

    def _shown(self, row: int) -> str:
        return f"{self.values[row]!r:.80}"

    def _refused(self, row: int, expected: str, received: str) -> DataError:
        return DataError(
            f"{BATCH}: row {self.first_row + row} (from 0): column {self.name!r}: {expected}, "
            f"received {received}"
        )


def _kind(value: object) -> str:
    """Describe a value's kind in the words of messages."""
    if isinstance(value, datetime):  # Arrow reads times without a zone as UTC if others have one
        return "a time without a zone" if value.tzinfo is None else "a time with a zone"
    return next((name for types, name in _KINDS if isinstance(value, types)), type(value).__name__)
