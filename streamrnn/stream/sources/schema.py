"""The columns that a pipeline uses, and the names and types that files may have for them."""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Bools, Doubles, Ints
from streamrnn.base.display import closest, first_of
from streamrnn.errors import DataError, DTypeError
from streamrnn.stream.sources.casts import (
    decoded,
    is_number,
    is_real,
    may_cast,
    nulls_of,
    type_named,
    value_type,
)
from streamrnn.stream.sources.contract import Feature, Rows, check_feature

NamesInFiles = Mapping[str, Sequence[str]]
"""The name of a column -> its old names."""


def new_names(names: Sequence[str], renames: NamesInFiles, path: str) -> dict[str, str]:
    """Return old name -> new name, for the columns that have an old name in `names`.

    Raises DataError if a column is present under two names.

    >>> new_names(["id", "temp_f"], {"temp": ["temp_c", "temp_f"]}, "a.parquet")
    {'temp_f': 'temp'}
    """
    renamed = {}
    for new, olds in renames.items():
        present = [name for name in (new, *olds) if name in names]
        if len(present) > 1:
            raise DataError(
                f"{path}: column {new!r}: expected one column, found {', '.join(present)}, which "
                "[source] rename (or `from` of the feature) declares to be the same. Remove one."
            )
        renamed.update({name: new for name in present if name != new})
    return renamed


def joined_renames(renames: NamesInFiles, others: NamesInFiles) -> dict[str, tuple[str, ...]]:
    """Return the old names of columns from both mappings."""
    return {
        name: tuple(dict.fromkeys([*renames.get(name, ()), *others.get(name, ())]))
        for name in dict.fromkeys([*renames, *others])
    }


def with_new_names(schema: pa.Schema, names: Mapping[str, str]) -> pa.Schema:
    """Return a schema with new names: `names` has old name -> new name."""
    return pa.schema([field.with_name(names.get(field.name, field.name)) for field in schema])


def select(
    batch: pa.RecordBatch, schema: pa.Schema, constants: Mapping[str, pa.Scalar] | None = None
) -> pa.RecordBatch:
    """Return the columns of the schema in its order and types; `constants` fill missing columns."""
    stored = batch.schema
    if stored.equals(schema):
        return pa.RecordBatch.from_arrays(batch.columns, schema=schema)
    arrays, present = [], set(stored.names)
    for field in schema:
        if field.name in present:
            array = decoded(batch.column(field.name))
        else:
            array = pa.repeat((constants or {})[field.name], batch.num_rows)
        arrays.append(array.cast(field.type) if array.type != field.type else array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def used_schema(schema: pa.Schema, columns: Sequence[str] | None, path: str) -> pa.Schema:
    """Return the fields of the columns in use, with their `value_type`; None means all columns.

    Raises DataError for a missing or duplicate column, DTypeError for a type of which Arrow cannot
    `take` rows.
    """
    counts = Counter(schema.names)
    names = list(schema.names) if columns is None else list(columns)
    for name in names:
        if counts[name] == 0:
            raise DataError(missing_column(path, name, schema.names))
        if counts[name] > 1:
            raise DataError(
                f"{path}: column {name!r}: expected once, found {counts[name]} times. "
                "Rename all but one."
            )
    fields = [pa.field(name, value_type(schema.field(name).type)) for name in names]
    for field in fields:
        if not _has_take(field.type):
            raise DTypeError(
                f"{path}: column {field.name!r}: Arrow cannot select rows of {field.type}. "
                "Cast it, or remove it from [output] columns."
            )
    return pa.schema(fields)


@functools.lru_cache(maxsize=256)
def _has_take(kind: pa.DataType) -> bool:
    # Cached, as it takes 10 µs per column of each record batch, which may have only three rows.
    try:
        pa.nulls(0, kind).take(pa.nulls(0, pa.int64()))  # pa.array imports pandas
    except pa.ArrowNotImplementedError:
        return False
    return True


def missing_column(path: str, name: str, names: Sequence[str]) -> str:
    """Return the message for a column that a file lacks."""
    near = closest(name, names)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"{path}: column {name!r} not found.{hint} Available columns: {first_of(names, 50)}"


def refuse_unknown_types(
    declared: Iterable[str], names: Sequence[str], columns: Sequence[str] | None, path: str
) -> None:
    """Raise DataError if [source] types names a column that is neither in the file nor in use."""
    for name in declared:
        if name not in names and name not in (columns or ()):
            raise DataError(f"[source] types: {missing_column(path, name, names)}")


def in_earlier_types(
    schema: pa.Schema, earlier: Mapping[str, str], declared: Mapping[str, pa.DataType] | None = None
) -> pa.Schema:
    """Return the schema with types that are declared, or that its columns had in earlier runs.

    If the names of the columns are the same as in earlier runs, the order is the same, too.
    """
    names = list(earlier) if sorted(earlier) == sorted(schema.names) else schema.names
    fields = []
    for field in map(schema.field, names):
        kind = (declared or {}).get(field.name) or type_named(earlier.get(field.name, ""))
        fields.append(field if kind is None or pa.types.is_null(kind) else field.with_type(kind))
    return pa.schema(fields)


def with_values(schema: pa.Schema, later: pa.Schema) -> pa.Schema:
    """Return the schema with types from `later` for the columns of type null."""
    return pa.schema(
        later.field(field.name)
        if pa.types.is_null(field.type) and field.name in later.names
        else field
        for field in schema
    )


def check_present(expected: pa.Schema, received: pa.Schema, path: str, origin: str) -> None:
    """Raise DataError if a file lacks a column of `expected`, the schema of `origin`."""
    present = set(received.names)
    name = next((name for name in expected.names if name not in present), None)
    if name is not None:
        old = closest(name, received.names) or "its name here"
        raise DataError(
            f"{missing_column(path, name, received.names)}. Expected the columns of {origin}. If "
            f'the column has another name here, set [source] rename = {{ {name} = "{old}" }}.'
        )


def common_schema(
    expected: pa.Schema,
    received: pa.Schema,
    path: str,
    origin: str,
    features: Mapping[str, Feature],
) -> tuple[pa.Schema, pa.Schema]:
    """Return a file's columns in use, first in its own types, then in the types to cast them to.

    Both are in the order of `expected`, the schema of `origin`. Raises DataError for a missing or
    an additional column, or one whose type cannot be cast; DTypeError if the type of one of the
    `features`, which are not cast, cannot be read.
    """
    check_present(expected, received, path, origin)
    own, target = [], []
    for field in expected:
        other = received.field(field.name)
        own.append(other)
        if field.name in features:
            check_feature(other.type, features[field.name], path)
        elif not may_cast(other.type, field.type):
            advice = "Cast one of the two columns."
            if pa.types.is_null(field.type):
                advice = (
                    "It had no values there, so the output has no type for them. Start over with "
                    "--full-refresh (and, for text files, [source] types)."
                )
            raise DataError(
                f"{path}: column {field.name!r}: expected {field.type} as in {origin}, "
                f"received {other.type}. {advice}"
            )
        target.append(other if field.name in features else field)
    present = set(expected.names)
    if extra := [name for name in received.names if name not in present]:
        raise DataError(
            f'{path}: column {extra[0]!r} is not in {origin}: [output] columns = "*" requires the '
            "same columns in all files. List the columns to copy instead."
        )
    return pa.schema(own), pa.schema(target)


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
        """Raise DataError if a column is missing, DTypeError if it has no numbers or booleans."""
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

    def read(self, batch: pa.RecordBatch) -> tuple[Doubles, Doubles]:
        """Return values (N, K) float64, NaN for null, and weights (N,) float64, 0 for null.

        Values are converted without checks, including those in invalid rows: `refuse` checks them.
        """
        values = np.empty((batch.num_rows, len(self.values)))
        for k, name in enumerate(self.values):
            values[:, k] = _numbers(batch.column(name))
        if self.weight is None:
            return values, np.ones(batch.num_rows)
        column = batch.column(self.weight)
        weight = _numbers(column)
        if column.null_count:
            weight[nulls_of(column)] = 0
        return values, weight

    def refuse(self, rows: Rows, values: Doubles, weight: Doubles, valid: Ints) -> None:
        """Raise DataError for an infinite value, or a weight that is negative, infinite or NaN.

        `valid` are the rows to check, in order.
        """
        for k, name in enumerate(self.values):
            _refuse(rows, np.isinf(values[:, k]), valid, "column", name, "a finite number or null")
        if self.weight is not None:
            wrong = ~((weight >= 0) & (weight < np.inf))
            _refuse(rows, wrong, valid, "weight", self.weight, "a finite number, 0 or more")


def _refuse(rows: Rows, wrong: Bools, valid: Ints, key: str, name: str, expected: str) -> None:
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
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if not is_real(array.type):  # a decimal, or null
        array = array.cast(pa.float64())
    values: Doubles = array.to_numpy(zero_copy_only=False).astype(np.float64)
    return values
