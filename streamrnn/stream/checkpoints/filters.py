"""Filters of output rows as pyarrow expressions: columns and types are checked before any row.

A comparison with null is neither true nor false, as in SQL. A literal has the type of the column
that it is compared with: `p = 0.9` is true for the float32 that is nearest to 0.9. Integers are
compared with any number by order, and by = with one that they can be. Two columns of numbers are
compared as float64, unless both are integers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import ConfigError
from streamrnn.stream.config import did_you_mean
from streamrnn.stream.config.filters import (
    Comparison,
    Filter,
    FilterColumn,
    FilterLiteral,
    Junction,
    Membership,
    Negation,
    NullTest,
    parse_filter,
    pointed,
)

_COMPARE: dict[str, Callable[[Any, Any], pc.Expression]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}  # with the sides exchanged
_NULL = pa.scalar(None, pa.bool_())
_WANTED = {"number": "a number", "text": "'text'", "bool": "true or false", "time": "a 'time'"}


def row_filter(text: str, schema: pa.Schema) -> pc.Expression:
    """Return the expression of a filter on rows of this schema.

    Raises ConfigError that points to a mistake, a column that is missing, or a literal of another
    type than its column.
    """
    try:
        found = _Binder(text, schema).of(parse_filter(text))
        schema.empty_table().filter(found)
    except pa.ArrowException as error:
        raise ConfigError(f"[alerts] where: {text}: pyarrow cannot compare this: {error}") from None
    except ValueError as error:
        raise ConfigError(f"[alerts] where: {error}") from None
    return found


class _Binder:
    def __init__(self, text: str, schema: pa.Schema) -> None:
        self._text = text
        self._schema = schema

    def of(self, item: Filter) -> pc.Expression:
        match item:
            case Junction(word, items):
                join = operator.and_ if word == "and" else operator.or_
                return _joined(join, list(map(self.of, items)))
            case Negation(inner):
                return ~self.of(inner)
            case NullTest(column):
                self._field(column)
                return pc.field(column.name).is_null()
            case Membership():
                return self._member(item)
            case Comparison():
                return self._compared(item)

    def _compared(self, item: Comparison) -> pc.Expression:
        left, right, sign = item.left, item.right, item.operator
        if isinstance(left, FilterLiteral):
            left, right, sign = right, left, _TURNED.get(sign, sign)
        assert isinstance(left, FilterColumn)
        kind = self._type(left)
        if isinstance(right, FilterColumn):
            return self._both(left, sign, right)
        if pa.types.is_boolean(kind) and sign not in ("=", "!="):
            raise self._fail(left.at, "true and false are not in an order: compare by = or !=")
        if pa.types.is_integer(kind) and type(right.value) in (int, float):
            sign, right = _within(sign, right, kind)
        return _COMPARE[sign](self._column(left), self._literal(right, left))

    def _column(self, column: FilterColumn) -> pc.Expression:
        """Return a column as it is compared: pyarrow cannot compare float16."""
        found = pc.field(column.name)
        return found.cast(pa.float32()) if pa.types.is_float16(self._type(column)) else found

    def _member(self, item: Membership) -> pc.Expression:
        """Return a test by one set of values; null is in none, and not outside any either."""
        values = [self._literal(value, item.column) for value in item.values]
        if pa.types.is_floating(values[0].type):  # equal by their bits, as -0.0 and 0.0 are not
            values += [pc.negate(value) for value in values if value.as_py() == 0]
        column = self._column(item.column)
        found = column.isin(pa.array(values, values[0].type))
        return pc.if_else(column.is_null(), _NULL, found)

    def _both(self, left: FilterColumn, sign: str, right: FilterColumn) -> pc.Expression:
        types = [self._type(left), self._type(right)]
        columns = [self._column(left), self._column(right)]
        kinds = [_kind(kind) for kind in types]
        compare = _COMPARE[sign]
        if kinds[0] == kinds[1] == "bool" and sign not in ("=", "!="):
            raise self._fail(left.at, "true and false are not in an order: compare by = or !=")
        if kinds[0] == kinds[1] and (types[0] == types[1] or kinds[0] == "text"):
            return compare(*columns)
        if kinds[0] == kinds[1] == "number":
            if not all(map(pa.types.is_integer, types)):
                return compare(*(column.cast(pa.float64(), safe=False) for column in columns))
            signed = [pa.types.is_signed_integer(kind) for kind in types]
            if pa.uint64() not in types or signed[0] == signed[1]:
                return compare(*columns)
            if signed[0]:
                return _signed_beside_uint64(columns[0], sign, columns[1])
            return _signed_beside_uint64(columns[1], _TURNED.get(sign, sign), columns[0])
        if unit := _common_unit(*types):
            zone = types[0].tz and "UTC"
            return compare(*(column.cast(pa.timestamp(unit, zone)) for column in columns))
        raise self._fail(right.at, f"`{right.name}` is {types[1]}, and `{left.name}` is {types[0]}")

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
                found = pc.cast(pa.scalar(float(value)), kind, safe=False)
                return found.cast(pa.float32()) if pa.types.is_float16(kind) else found
            if wanted == "number":
                return pa.scalar(value, kind)
            if wanted == "time" and pa.types.is_timestamp(kind) and kind.tz:
                return self._time(literal, kind)
            return pc.cast(pa.scalar(value), kind)
        except (pa.ArrowException, OverflowError):
            message = f"{value!r} is no value of `{column.name}`, which is {kind}"
            raise self._fail(literal.at, message) from None

    def _time(self, literal: FilterLiteral, kind: pa.TimestampType) -> pa.Scalar:
        """Return a time: one without a zone is in that of its column."""
        text = pa.scalar(str(literal.value))
        local = None
        with suppress(pa.ArrowException):
            local = text.cast(pa.timestamp(kind.unit))
        if local is None:
            return text.cast(kind)
        try:
            return pc.assume_timezone(local, kind.tz)
        except pa.ArrowInvalid:
            raise self._fail(
                literal.at,
                f"{literal.value!r} is not one time in {kind.tz}, where the clock is changed: add "
                "the offset, as in '2024-10-27T02:30+01:00'",
            ) from None

    def _field(self, column: FilterColumn) -> pa.DataType:
        names = self._schema.names
        if column.name not in names:
            raise self._fail(
                column.at,
                f"`{column.name}` is not a column of the output"
                f"{did_you_mean(column.name, names)} (they are {', '.join(names)}); text stands "
                "in single quotes",
            )
        return self._schema.field(column.name).type

    def _type(self, column: FilterColumn) -> pa.DataType:
        kind = self._field(column)
        if not _kind(kind):
            raise self._fail(
                column.at,
                f"`{column.name}` is {kind}, which is not compared here (`is null` is known)",
            )
        return kind

    def _fail(self, at: int, message: str) -> ValueError:
        return ValueError(pointed(self._text, at, message))


def _joined(
    join: Callable[[Any, Any], pc.Expression], items: Sequence[pc.Expression]
) -> pc.Expression:
    """Join expressions in a balanced tree: pyarrow walks trees on its stack."""
    if len(items) == 1:
        return items[0]
    half = len(items) // 2
    return join(_joined(join, items[:half]), _joined(join, items[half:]))


def _within(sign: str, literal: FilterLiteral, kind: pa.DataType) -> tuple[str, FilterLiteral]:
    """Return a comparison of integers by order with a literal of their type that is as true.

    A fraction is rounded to the side that no integer crosses, and a value that the type has not to
    its least or greatest one.
    """
    value: Any = literal.value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if sign in _TURNED:
        if isinstance(value, float):
            upwards = sign in ("<", ">=")
            value = int(math.copysign(2**65, value)) if math.isinf(value) else math.floor(value)
            value += upwards
        signed = pa.types.is_signed_integer(kind)
        low = -(1 << kind.bit_width - 1) if signed else 0
        high = (1 << kind.bit_width - signed) - 1
        if value > high:
            sign, value = ("<=" if "<" in sign else ">"), high
        elif value < low:
            sign, value = (">=" if ">" in sign else "<"), low
    return sign, literal._replace(value=value)


def _signed_beside_uint64(signed: pc.Expression, sign: str, other: pc.Expression) -> pc.Expression:
    """Compare a signed column with one of uint64, which has values that int64 has not."""
    below = pc.if_else(other.is_null(), _NULL, pa.scalar(sign in ("<", "<=", "!=")))
    above = _COMPARE[sign](signed.cast(pa.uint64(), safe=False), other)
    return pc.if_else(signed < 0, below, above)


def _common_unit(one: pa.DataType, other: pa.DataType) -> str:
    """Return the unit in which two types of times are compared; "" if they are not."""
    if not (pa.types.is_timestamp(one) and pa.types.is_timestamp(other)):
        return ""
    units = {one.unit, other.unit}
    if bool(one.tz) != bool(other.tz) or ("ns" in units and len(units) > 1):
        return ""  # dates far away do not fit into nanoseconds
    finest: str = max(units, key=["s", "ms", "us", "ns"].index)
    return finest


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "time" if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else ""
