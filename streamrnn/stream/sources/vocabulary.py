"""Vocabularies: the id of each value of a column, for a model that does not look values up itself.

The rules are as in the layers StringLookup and IntegerLookup: the special token for unknown
values may be listed at its own place and nowhere else, and no value is listed twice.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streamrnn.errors import ConfigError, DataError, DTypeError
from streamrnn.stream.sources.casts import decoded, is_text, numpy_type, shown
from streamrnn.stream.sources.columns import Faults
from streamrnn.stream.sources.files import resolve

_SPECIAL: dict[type, str | int] = {str: "[UNK]", int: -1}
"""The tokens of Keras for unknown values."""

UNKNOWN_IN = "unknown in "
"""Prefix of a column's name, in the name of the count of values that its vocabulary lacks."""
_FEW = 100
"""Smallest number of values for which it is an error if all are unknown."""
_SHOWN = 5
_COMPARED = 50


@dataclass
class LookedUp:
    """How many values of a column were looked up, how many are unknown, and examples of these."""

    values: int = 0
    unknown: int = 0
    examples: list[str | int] = field(default_factory=list)

    def add(self, other: LookedUp) -> None:
        """Add the values of other rows."""
        self.values += other.values
        self.unknown += other.unknown
        new = [value for value in other.examples if value not in self.examples]
        self.examples = [*self.examples, *new][:_COMPARED]


def add_looked_up(total: dict[str, LookedUp], rows: Mapping[str, LookedUp]) -> None:
    """Add the look-ups of other rows, by column, to a total."""
    for column, seen in rows.items():
        total.setdefault(column, LookedUp()).add(seen)


@dataclass(frozen=True)
class Vocabulary:
    """Values and their ids; with `oov` = 1, all other values have id 0.

    `label` names the vocabulary in messages. If `is_text`, the values are text, which is read as
    integers for a column of integers.

    >>> carriers = Vocabulary.of(["AA", "UA"], oov=1, label="the list")
    >>> values = pa.array(["UA", "XX", None])
    >>> ids, seen = carriers.look_up(values, "carrier", Faults.of_rows(3))
    >>> ids.to_pylist(), seen
    ([2, 0, None], LookedUp(values=2, unknown=1, examples=['XX']))
    """

    values: tuple[str | int, ...]
    ids: tuple[int, ...]
    oov: int
    label: str
    is_text: bool = False
    _tables: dict[pa.DataType, tuple[pa.Array, pa.Array]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @classmethod
    def of(
        cls,
        values: Sequence[str | int],
        oov: int,
        label: str,
        is_text: bool = False,
        ids: Sequence[int] | None = None,
    ) -> Vocabulary:
        """Make a vocabulary; without `ids`, the ids are positions + `oov`. Raises ConfigError.

        If `oov` is 1, the special token may come first or, with `ids`, have id 0, which no other
        value may have.
        """
        if ids is None:
            if oov and values and values[0] == _SPECIAL[type(values[0])]:
                values = values[1:]
            ids = range(oov, oov + len(values))
        elif low := [i for i in ids if i < 0]:
            raise ConfigError(f"{label}: expected ids from 0, received {low[0]}")
        elif oov:
            pairs = list(zip(values, ids, strict=True))
            pairs = [pair for pair in pairs if pair != (_SPECIAL[type(pair[0])], 0)]
            values, ids = [value for value, _ in pairs], [number for _, number in pairs]
            if 0 in ids:
                raise ConfigError(
                    f"{label}: value {values[ids.index(0)]!r} has id 0, which oov = 1 gives to "
                    "unknown values. Number the values from 1, or set oov = 0."
                )
        if not values:
            raise ConfigError(f"{label}: expected at least one value, found none")
        first: dict[str | int, int] = {}
        for position, value in enumerate(values):
            if value in first:
                raise ConfigError(
                    f"{label}: value {value!r} is listed twice, as number {first[value]} and "
                    f"{position} (from 0). Remove one."
                )
            if value == _SPECIAL[type(value)]:
                raise ConfigError(
                    f"{label}: {value!r} is the special token for unknown values, and is listed "
                    f"as number {position} (from 0). With oov = 1 it may come first, with id 0; "
                    "otherwise remove it."
                )
            first[value] = position
        return cls(tuple(values), tuple(ids), oov, label, is_text)

    @property
    def fingerprint(self) -> str:
        """A text that changes with the values or the ids, however they are stored."""
        pairs = sorted(zip(self.ids, map(str, self.values), strict=True))
        text = json.dumps([self.oov, pairs], ensure_ascii=True)
        return f"{len(pairs)} values, sha256 {hashlib.sha256(text.encode()).hexdigest()}"

    def as_table(self) -> dict[str, int]:
        """Return text -> id; `of` with `is_text` makes the same vocabulary from it."""
        return dict(zip(map(str, self.values), self.ids, strict=True))

    def check(self, kind: pa.DataType, column: str, path: str) -> None:
        """Raise DTypeError if a column of this type cannot be looked up."""
        if pa.types.is_null(kind):
            return
        integers, text = pa.types.is_integer(kind), is_text(kind)
        if not (integers or text):
            raise DTypeError(
                f"{path}: [source] features: column {column!r}: expected string or integer, as it "
                f"has a vocabulary, received {kind}"
            )
        holds_text = isinstance(self.values[0], str)
        if text == holds_text or (self.is_text and self._integers() is not None):
            return
        expected = "string" if holds_text else "integer"
        raise DTypeError(
            f"{path}: [source] features: column {column!r}: expected {expected}, as are the values "
            f"of its vocabulary, received {kind}"
        )

    def look_up(self, array: pa.Array, column: str, faults: Faults) -> tuple[pa.Array, LookedUp]:
        """Return the ids (N,) int64 of N values, and how many are unknown; null stays null.

        An unknown value has id 0 and, unless `oov` is 1, is a fault.
        """
        seen = LookedUp(len(array) - array.null_count)
        if pa.types.is_null(array.type):
            return pa.nulls(len(array), pa.int64()), seen
        if array.type not in self._tables:
            self._tables[array.type] = self._table(array.type)
        values, ids = self._tables[array.type]
        ids = ids.take(pc.index_in(array, value_set=values))
        if ids.null_count == array.null_count:
            return ids, seen
        unknown = pc.and_(array.is_valid(), ids.is_null())
        values = array.filter(unknown).dictionary_encode()
        if self.oov:
            seen.unknown = unknown.true_count
            seen.examples = _values(values.dictionary[:_COMPARED])
        else:
            rows = np.flatnonzero(unknown.to_numpy(zero_copy_only=False))
            reasons = [
                f"column {column!r}: value {shown(values.dictionary, i)} is not in the vocabulary "
                f"([source] features: vocabulary of {column!r})"  # clients must not see its path
                for i in range(len(values.dictionary))
            ]
            faults.add_each(rows, values.indices.to_numpy(), reasons, "set oov = 1 for the column")
        return pc.if_else(unknown, pa.scalar(0, pa.int64()), ids), seen

    def _table(self, kind: pa.DataType) -> tuple[pa.Array, pa.Array]:
        """Return the values that a column of this type can have, and their ids."""
        if is_text(kind):
            return pa.array(self.values, kind), pa.array(self.ids, pa.int64())
        limits = np.iinfo(numpy_type(kind))
        pairs = zip(self._integers() or (), self.ids, strict=True)
        fitting = [(value, i) for value, i in pairs if limits.min <= value <= limits.max]
        values, ids = [value for value, _ in fitting], [i for _, i in fitting]
        return pa.array(values, kind), pa.array(ids, pa.int64())

    def _integers(self) -> list[int] | None:
        """Return the values as integers; None if a text is not one, or is written as 007 or +7."""
        try:
            numbers = [int(value) for value in self.values]
        except ValueError:
            return None
        written = [str(number) for number in numbers] == [str(value) for value in self.values]
        return numbers if written else None


def refuse_all_unknown(
    vocabularies: Mapping[str, Vocabulary], looked_up: Mapping[str, LookedUp]
) -> None:
    """Raise DataError for a column that has at least 100 values, all of them unknown."""
    for column, seen in looked_up.items():
        if not seen.unknown == seen.values >= _FEW:
            continue
        vocabulary = vocabularies[column]
        listed = [str(value) for value in vocabulary.values]
        likely = _difference([str(value) for value in seen.examples], listed)
        if blank := [value for value in listed if value != value.strip()]:
            likely += (
                f"The vocabulary has values with blanks at the ends: {len(blank)}, such as "
                f"{blank[0]!r}. "
            )
        raise DataError(
            f"feature {column!r}: none of its {seen.values:,} values so far is in the "
            f"vocabulary ({vocabulary.label}), so all have id 0. Received: {_some(seen.examples)}; "
            f"the vocabulary has: {_some(vocabulary.values)}. {likely}Correct the vocabulary or "
            "the column. If these values are meant to be unknown, pass --force to `streamrnn run`; "
            "for a fit, leave the feature out, as nothing can be learned from it."
        )


def _values(array: pa.Array) -> list[str | int]:
    """Return the values of a column; bytes that are not UTF-8 are replaced."""
    if not is_text(array.type):
        return list(array.to_pylist())
    return [value.decode(errors="replace") for value in array.cast(pa.large_binary()).to_pylist()]


def _some(values: Sequence[str | int]) -> str:
    return ", ".join(map(repr, values[:_SHOWN])) + (", …" if len(values) > _SHOWN else "")


def _difference(received: Sequence[str], listed: Sequence[str]) -> str:
    """Return how a received value differs from a listed one, if only in case or blanks; else ""."""
    forms: dict[str, Callable[[str], str]] = {
        "blanks at the ends": str.strip,
        "case": str.casefold,
        "case and blanks at the ends": lambda value: value.strip().casefold(),
    }
    for what, form in forms.items():
        same = {form(value): value for value in listed}
        for value in received:
            if form(value) in same:
                return f"Received {value!r} differs from {same[form(value)]!r} only in {what}. "
    return ""


def load_vocabulary(
    vocabulary: str | Sequence[str | int] | Mapping[str, int], oov: int, feature: str
) -> Vocabulary:
    """Load the vocabulary of a feature: a list of values, a table of value -> id, or a file.

    A Parquet or CSV file has two columns, values and ids. Any other file has one value per line; as
    in a list, the id is the position + `oov`. Raises ConfigError, which names the file, and the
    line if one line is wrong.
    """
    label = f"[source] features: vocabulary of {feature!r}"
    if isinstance(vocabulary, Mapping):
        return Vocabulary.of(list(vocabulary), oov, label, True, list(vocabulary.values()))
    if not isinstance(vocabulary, str):
        return Vocabulary.of(vocabulary, oov, label)
    path, label = vocabulary, f"{label}: {vocabulary}"
    store, location = resolve(path)
    try:
        with store.open(location) as stream:
            data: bytes = stream.read()
    except (OSError, pa.ArrowException) as error:
        number = getattr(error, "errno", None)
        cause = os.strerror(number) if number else " ".join(str(error).split())
        raise ConfigError(f"{label}: cannot be read: {cause}") from error
    if path.lower().endswith((".parquet", ".pq")):
        values, ids = _parquet(data, label)
        return Vocabulary.of(values, oov, label, ids=ids)
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{label}: expected UTF-8, which byte {error.start} is not. Only files whose names end "
            "in .parquet, .pq or .csv are read as tables."
        ) from error
    if path.lower().endswith(".csv"):
        texts, ids = _csv(text, label)
        return Vocabulary.of(texts, oov, label, True, ids)
    lines = text.removesuffix("\n").split("\n")
    if "" in lines:
        raise ConfigError(
            f"{label}: line {lines.index('') + 1} is empty: expected one value per line. An empty "
            "value needs a list, or a file with ids."
        )
    return Vocabulary.of(lines, oov, label, is_text=True)


def _csv(text: str, label: str) -> tuple[list[str], list[int]]:
    """Return values and ids; the first row may be a header."""
    values, ids = [], []
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise ConfigError(f"{label}: line {reader.line_num}: invalid CSV: {error}") from error
    for line, row in rows:
        if len(row) != 2:
            raise ConfigError(f"{label}: line {line}: {_expected_two(len(row))}")
        try:
            number = int(row[1])
        except ValueError:
            if line == rows[0][0]:
                continue
            raise ConfigError(
                f"{label}: line {line}: expected an integer id, received {row[1]!r}"
            ) from None
        values.append(row[0])
        ids.append(number)
    return values, ids


def _parquet(data: bytes, label: str) -> tuple[list[str | int], list[int]]:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{label}: not a readable Parquet file: {error}") from error
    if table.num_columns != 2:
        raise ConfigError(f"{label}: {_expected_two(table.num_columns)}")
    values, ids = (decoded(column.combine_chunks()) for column in table.columns)
    is_integer = pa.types.is_integer
    if not (is_text(values.type) or is_integer(values.type)) or not is_integer(ids.type):
        raise ConfigError(
            f"{label}: expected values (string or integer) and ids (integer), received "
            f"{values.type} and {ids.type}"
        )
    if values.null_count or ids.null_count:
        raise ConfigError(f"{label}: expected values and ids without nulls, received a null")
    return values.to_pylist(), ids.to_pylist()


def _expected_two(columns: int) -> str:
    return f"expected two columns, values and ids, received {columns}"
