"""Filters of output rows as pyarrow expressions: columns and types are checked before any row.

A comparison with null is neither true nor false, as in SQL. A literal has the type of the column
that it is compared with: `p = 0.9` is true for the float32 that is nearest to 0.9. Two columns of
numbers are compared as float64, unless both are integers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.config import did_you_mean
from streamrnn.config.filters import (
    Comparison,
    Filter,
    FilterColumn,
    FilterLiteral,
    FilterOperand,
    Junction,
    Membership,
    Negation,
    NullTest,
    parse_filter,
    pointed,
)
from streamrnn.errors import ConfigError

_COMPARE: dict[str, Callable[[Any, Any], pc.Expression]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WANTED = {"number": "a number", "text": "'text'", "bool": "true or false", "time": "a 'time'"}


def row_filter(text: str, schema: pa.Schema) -> pc.Expression:
    """Return the expression of a filter on rows of this schema.

    Raises ConfigError that points to a mistake, a column that is missing, or a literal of another
    type than its column.
    """
    try:
        return _Binder(text, schema).of(parse_filter(text))
    except ValueError as error:
        raise ConfigError(f"[alerts] where: {error}") from None


class _Binder:
    def __init__(self, text: str, schema: pa.Schema) -> None:
        self._text = text
        self._schema = schema

    def of(self, item: Filter) -> pc.Expression:
        match item:
            case Junction(word, items):
                join = operator.and_ if word == "and" else operator.or_
                return reduce(join, map(self.of, items))
            case Negation(inner):
                return ~self.of(inner)
            case NullTest(column):
                self._type(column)
                return pc.field(column.name).is_null()
            case Membership(column, values):
                equal = (Comparison("=", column, value) for value in values)
                return reduce(operator.or_, map(self._compared, equal))
            case Comparison():
                return self._compared(item)

    def _compared(self, item: Comparison) -> pc.Expression:
        left, right = item.left, item.right
        kinds = [self._kind_beside(left, right), self._kind_beside(right, left)]
        if isinstance(left, FilterColumn) and isinstance(right, FilterColumn):
            return _COMPARE[item.operator](*self._both(left, right))
        if kinds[0] == "bool" and item.operator not in ("=", "!="):
            raise self._fail(left.at, "true and false are not in an order: compare by = or !=")
        values = (self._value(left, right), self._value(right, left))
        return _COMPARE[item.operator](*values)

    def _both(self, left: FilterColumn, right: FilterColumn) -> list[pc.Expression]:
        columns = [pc.field(left.name), pc.field(right.name)]
        types = [self._type(left), self._type(right)]
        kinds = [_kind(kind) for kind in types]
        if kinds[0] != kinds[1]:
            raise self._fail(
                right.at, f"`{right.name}` is {types[1]}, and `{left.name}` is {types[0]}"
            )
        if types[0] == types[1] or kinds[0] == "text":
            return columns
        if kinds[0] == "number":
            if all(map(pa.types.is_integer, types)):
                return columns
            return [column.cast(pa.float64(), safe=False) for column in columns]
        raise self._fail(right.at, f"`{right.name}` is {types[1]}, and `{left.name}` is {types[0]}")

    def _kind_beside(self, item: FilterOperand, other: FilterOperand) -> str:
        column = item if isinstance(item, FilterColumn) else other
        assert isinstance(column, FilterColumn)
        return _kind(self._type(column))

    def _value(self, item: FilterOperand, other: FilterOperand) -> pc.Expression:
        if isinstance(item, FilterColumn):
            return pc.field(item.name)
        assert isinstance(other, FilterColumn)
        return pc.scalar(self._literal(item, other))

    def _literal(self, literal: FilterLiteral, column: FilterColumn) -> pa.Scalar:
        """Return a literal with the type of its column."""
        kind, value = self._type(column), literal.value
        wanted = _kind(kind)
        given = {bool: "bool", str: "text"}.get(type(value), "number")
        shown = f"`{column.name}` is {kind}"
        if given != wanted and (given, wanted) != ("text", "time"):
            raise self._fail(literal.at, f"expected {_WANTED[wanted]}, as {shown}")
        if pa.types.is_integer(kind) and not isinstance(value, int):
            raise self._fail(literal.at, f"expected an integer, as {shown}")
        try:
            if wanted == "number" and pa.types.is_floating(kind):
                return pc.cast(pa.scalar(float(value)), kind, safe=False)
            if wanted == "time" and pa.types.is_timestamp(kind) and kind.tz:
                return _time(str(value), kind)
            return pc.cast(pa.scalar(value), kind)
        except (pa.ArrowException, OverflowError):
            message = f"{value!r} is no value of `{column.name}`, which is {kind}"
            raise self._fail(literal.at, message) from None

    def _type(self, column: FilterColumn) -> pa.DataType:
        names = self._schema.names
        if column.name not in names:
            raise self._fail(
                column.at,
                f"`{column.name}` is not a column of the output"
                f"{did_you_mean(column.name, names)} (they are {', '.join(names)}); text stands "
                "in single quotes",
            )
        kind = self._schema.field(column.name).type
        if not _kind(kind):
            raise self._fail(column.at, f"`{column.name}` is {kind}, which is not compared here")
        return kind

    def _fail(self, at: int, message: str) -> ValueError:
        return ValueError(pointed(self._text, at, message))


def _time(text: str, kind: pa.DataType) -> pa.Scalar:
    """Return a time: one without a zone is in that of its column."""
    with suppress(pa.ArrowException):
        local = pa.scalar(text).cast(pa.timestamp(kind.unit))
        return pc.assume_timezone(local, kind.tz)
    return pa.scalar(text).cast(kind)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "time" if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else ""
