"""Filters of output rows as pyarrow expressions: columns and types are checked before any row.

A comparison with null is neither true nor false, as in SQL. A literal has the type of the column
that it is compared with: `p = 0.9` is true for the float32 that is nearest to 0.9. Integers are
compared with any number by order, and by = with one that they can be. Two columns of numbers are
compared as float64, unless both are integers.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from streamrnn.errors import ConfigError
from streamrnn.stream.config import SIDE_OUTPUTS, did_you_mean, title
from streamrnn.stream.config.filters import FilterToken, mistake, parse_filter

_Operator = Callable[[Any, Any], pc.Expression]
_COMPARE: dict[type[ast.cmpop], _Operator] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_TURNED = {  # comparisons by order, with the sides exchanged
    operator.lt: operator.gt,
    operator.le: operator.ge,
    operator.gt: operator.lt,
    operator.ge: operator.le,
}
_INTEGERS = pa.decimal128(20, 0)  # has all values of int64 and uint64, and some beyond
_NUMBER, _TEXT, _BOOL, _TIME = "a number", "'text'", "true or false", "a 'time'"
_BEYOND = 1 << 65


def row_filters(texts: Mapping[str, str], schema: pa.Schema) -> dict[str, pc.Expression]:
    """Return the filters of side outputs (name -> text); raises what `row_filter` raises."""
    return {
        name: row_filter(text, schema, title(SIDE_OUTPUTS[name].where))
        for name, text in texts.items()
    }


def row_filter(text: str, schema: pa.Schema, key: str = "[alerts] where") -> pc.Expression:
    """Return the expression of a filter on rows of this schema; `key` names it in messages.

    Raises ConfigError that points to a mistake, a column that is missing, or a literal of another
    type than its column.
    """
    try:
        tree, operands = parse_filter(text)
        bound = _Binder(text, schema, operands).of(tree)
        schema.empty_table().filter(bound)
    except pa.ArrowException as error:
        raise ConfigError(f"{key}: {text}: pyarrow cannot compare this: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    return bound


class _Binder:
    def __init__(self, text: str, schema: pa.Schema, operands: Mapping[str, FilterToken]) -> None:
        self._text = text
        self._schema = schema
        self._operands = operands

    def of(self, node: ast.expr) -> pc.Expression:
        match node:
            case ast.BoolOp(word, items):
                join = operator.and_ if isinstance(word, ast.And) else operator.or_
                return _joined(join, [self.of(item) for item in items])
            case ast.UnaryOp(ast.Not(), inner):
                return ~self.of(inner)
            case ast.Compare(left, [ast.IsNot()], others):
                return ~self.of(ast.Compare(left, [ast.Is()], others))
            case ast.Compare(left, [ast.NotIn()], others):
                return ~self.of(ast.Compare(left, [ast.In()], others))
            case ast.Compare(left, [ast.Is()]):
                column = self._operand(left)
                self._any_type(column)
                return pc.field(column.value).is_null()
            case ast.Compare(left, [ast.In()], [values]):
                names = values.elts if isinstance(values, ast.Tuple) else [values]
                return self._member(self._operand(left), list(map(self._operand, names)))
            case ast.Compare(left, [test], [right]):
                compare = _COMPARE[type(test)]
                return self._compared(self._operand(left), compare, self._operand(right))
        raise AssertionError(ast.dump(node))

    def _operand(self, name: Any) -> FilterToken:
        return self._operands[name.id]

    def _compared(self, left: FilterToken, compare: _Operator, right: FilterToken) -> pc.Expression:
        if left.kind == "literal":
            left, compare, right = right, _TURNED.get(compare, compare), left
        if right.kind == "column":
            return self._both(left, compare, right)
        kind = self._type(left)
        self._check_order(left, kind, compare)
        column = _comparable(pc.field(left.value), kind)
        if types.is_integer(kind) and type(right.value) in (int, float):
            if compare in _TURNED:
                return compare(column, _limit(compare, right.value, kind))
            if right.value == right.value // 1:
                right = right._replace(value=int(right.value))
        return compare(column, self._literal(right, left, kind))

    def _both(self, left: FilterToken, compare: _Operator, right: FilterToken) -> pc.Expression:
        one, other = self._type(left), self._type(right)
        common = _common_type(one, other)
        if common is None:
            message = f"`{right.value}` is {other}, and `{left.value}` is {one}"
            raise self._mistake(right, message)
        self._check_order(left, common, compare)
        safe = not types.is_floating(common)
        columns = [pc.field(column.value).cast(common, safe=safe) for column in (left, right)]
        return compare(*columns)

    def _member(self, column: FilterToken, literals: Sequence[FilterToken]) -> pc.Expression:
        """Return a test by one set of values; null is in none, and not outside any either."""
        kind = self._type(column)
        values = [self._literal(literal, column, kind) for literal in literals]
        if types.is_floating(kind):  # equal by their bits, as -0.0 and 0.0 are not
            values += [pc.negate(value) for value in values if value.as_py() == 0]
        tested = _comparable(pc.field(column.value), kind)
        is_in = tested.isin(pa.array(values, values[0].type))
        return pc.if_else(tested.is_null(), pa.scalar(None, pa.bool_()), is_in)

    def _literal(self, literal: FilterToken, column: FilterToken, kind: pa.DataType) -> pa.Scalar:
        """Return a literal as it is compared with a column of this type."""
        value, expected = literal.value, _literals(kind)
        received = {bool: _BOOL, str: _TEXT}.get(type(value), _NUMBER)
        fits = received == expected or (received, expected) == (_TEXT, _TIME)
        if fits and types.is_integer(kind) and isinstance(value, float):
            fits, expected = False, "an integer"
        if not fits:
            message = f"expected {expected}, as `{column.value}` is {kind}"
            raise self._mistake(literal, message)
        try:
            if types.is_floating(kind):
                return _comparable(pa.scalar(float(value)).cast(kind, safe=False), kind)
            if types.is_integer(kind):
                return pa.scalar(value, kind)
            if types.is_timestamp(kind) and kind.tz:
                return self._time(literal, kind)
            return pa.scalar(value).cast(kind)
        except (pa.ArrowException, OverflowError):
            message = f"{value!r} is no value of `{column.value}`, which is {kind}"
            raise self._mistake(literal, message) from None

    def _time(self, literal: FilterToken, kind: pa.TimestampType) -> pa.Scalar:
        """Return a time; without a zone in the text it is in the zone of the column."""
        text = pa.scalar(literal.value)
        try:
            local = text.cast(pa.timestamp(kind.unit))
        except pa.ArrowException:
            return text.cast(kind)
        try:
            return pc.assume_timezone(local, kind.tz)
        except pa.ArrowInvalid:
            message = (
                f"{literal.value!r} is not one time in {kind.tz}, where the clock is changed: add "
                "the offset, as in '2024-10-27T02:30+01:00'"
            )
            raise self._mistake(literal, message) from None

    def _any_type(self, column: FilterToken) -> pa.DataType:
        names = self._schema.names
        if column.value not in names:
            message = (
                f"`{column.value}` is not a column of the output"
                f"{did_you_mean(column.value, names)} (they are {', '.join(names)}); text stands "
                "in single quotes"
            )
            raise self._mistake(column, message)
        return self._schema.field(column.value).type

    def _type(self, column: FilterToken) -> pa.DataType:
        kind = self._any_type(column)
        if not _literals(kind):
            message = f"`{column.value}` is {kind}, which is not compared here (`is null` is known)"
            raise self._mistake(column, message)
        return kind

    def _check_order(self, column: FilterToken, kind: pa.DataType, compare: _Operator) -> None:
        if types.is_boolean(kind) and compare in _TURNED:
            message = "true and false are not in an order: compare by = or !="
            raise self._mistake(column, message)

    def _mistake(self, token: FilterToken, message: str) -> ValueError:
        return mistake(self._text, token.at, message)


def _joined(join: _Operator, items: Sequence[pc.Expression]) -> pc.Expression:
    """Join expressions in a balanced tree: pyarrow walks trees on its stack."""
    if len(items) == 1:
        return items[0]
    half = len(items) // 2
    return join(_joined(join, items[:half]), _joined(join, items[half:]))


def _comparable(values: Any, kind: pa.DataType) -> Any:
    """Return a column or a literal as it is compared: pyarrow cannot compare float16."""
    return values.cast(pa.float32()) if types.is_float16(kind) else values


def _limit(compare: _Operator, value: float, kind: pa.DataType) -> pa.Scalar:
    """Return the integer that stands for a number in a comparison by order with integers."""
    whole = math.ceil if compare in (operator.lt, operator.ge) else math.floor
    limit = whole(max(-_BEYOND, min(value, _BEYOND)))
    try:
        return pa.scalar(limit, kind)
    except (pa.ArrowInvalid, OverflowError):
        return pa.scalar(Decimal(limit), _INTEGERS)


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type as which two columns are compared; None if they are not."""
    if one == other:
        return pa.float32() if types.is_float16(one) else one
    if _literals(one) == _literals(other) == _TEXT:
        return pa.large_string()
    if _literals(one) == _literals(other) == _NUMBER:
        if types.is_floating(one) or types.is_floating(other):
            return pa.float64()
        if pa.uint64() not in (one, other):
            return pa.int64()
        signed = types.is_signed_integer(one) or types.is_signed_integer(other)
        return _INTEGERS if signed else pa.uint64()
    if types.is_timestamp(one) and types.is_timestamp(other) and bool(one.tz) == bool(other.tz):
        finest = max(one.unit, other.unit, key=["s", "ms", "us", "ns"].index)
        if finest != "ns" or one.unit == other.unit:  # dates far away do not fit into nanoseconds
            return pa.timestamp(finest, one.tz and "UTC")
    return None


def _literals(kind: pa.DataType) -> str:
    """Return what a literal beside a column of this type must be; "" if none is compared."""
    if types.is_boolean(kind):
        return _BOOL
    if types.is_integer(kind) or types.is_floating(kind):
        return _NUMBER
    if types.is_string(kind) or types.is_large_string(kind):
        return _TEXT
    return _TIME if types.is_timestamp(kind) or types.is_date(kind) else ""
