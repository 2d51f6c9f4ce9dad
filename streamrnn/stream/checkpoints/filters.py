"""Filters of output rows as pyarrow expressions, checked against the schema before any row.

A comparison with null is neither true nor false, as in SQL. A literal gets the type of the column
that it is compared with: `p = 0.9` is true for the float32 that is nearest to 0.9. Integers can be
compared with any number by <, <=, > and >=, but by = and != only with a number that an integer can
equal, and by `in` only with integers. Two columns of numbers of different types are compared as
float64, unless both are integers.
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
from streamrnn.stream.config.notations import FilterToken, mistake, parse_filter

_Operator = Callable[[Any, Any], pc.Expression]
# The operator of each comparison, and the one that stands for it if the sides are exchanged.
_COMPARE: dict[type[ast.cmpop], tuple[_Operator, _Operator]] = {
    ast.Eq: (operator.eq, operator.eq),
    ast.NotEq: (operator.ne, operator.ne),
    ast.Lt: (operator.lt, operator.gt),
    ast.LtE: (operator.le, operator.ge),
    ast.Gt: (operator.gt, operator.lt),
    ast.GtE: (operator.ge, operator.le),
}
_INTEGERS = pa.decimal128(20, 0)  # has all values of int64 and uint64, and some beyond
_BEYOND = 1 << 65
_NUMBER, _TEXT, _BOOL, _TIME = "a number", "'text'", "true or false", "a 'time'"
_INTEGER = "an integer"
_ACCEPTED = {_NUMBER: (int, float), _INTEGER: (int,), _TEXT: (str,), _BOOL: (bool,), _TIME: (str,)}


def row_filters(texts: Mapping[str, str], schema: pa.Schema) -> dict[str, pc.Expression]:
    """Return the expressions for the filters of side outputs; `texts` is name -> filter.

    Raises what `row_filter` raises.
    """
    return {
        name: row_filter(text, schema, title(SIDE_OUTPUTS[name].where))
        for name, text in texts.items()
    }


def row_filter(text: str, schema: pa.Schema, key: str = "[alerts] where") -> pc.Expression:
    """Return the expression for a filter on rows of this schema; `key` names it in messages.

    Raises ConfigError, which points to the mistake, such as a missing column or a literal of
    another type.
    """
    try:
        tree, operands = parse_filter(text)
        return _Binder(text, schema, operands).bind(tree)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None


class _Binder:
    def __init__(self, text: str, schema: pa.Schema, operands: Mapping[str, FilterToken]) -> None:
        self._text = text
        self._schema = schema
        self._operands = operands

    def bind(self, node: ast.AST) -> pc.Expression:
        match node:
            case ast.BoolOp(word, items):
                join = operator.and_ if isinstance(word, ast.And) else operator.or_
                return _joined(join, [self.bind(item) for item in items])
            case ast.UnaryOp(ast.Not(), inner):
                return ~self.bind(inner)
            case ast.Compare(ast.Name(left), [test], [right]):
                names = [name.id for name in ast.walk(right) if isinstance(name, ast.Name)]
                return self._tested(self._operands[left], test, [self._operands[n] for n in names])
        raise AssertionError(ast.dump(node))

    def _tested(
        self, left: FilterToken, test: ast.cmpop, others: Sequence[FilterToken]
    ) -> pc.Expression:
        match test:
            case ast.IsNot():
                return ~self._tested(left, ast.Is(), others)
            case ast.NotIn():
                return ~self._tested(left, ast.In(), others)
            case ast.Is():
                self._any_type(left)
                return pc.field(left.value).is_null()
            case ast.In():
                return self._member(left, others)
        return self._compared(left, *_COMPARE[type(test)], others[0])

    def _compared(
        self, left: FilterToken, compare: _Operator, turned: _Operator, right: FilterToken
    ) -> pc.Expression:
        if left.kind == "literal":
            return self._compared(right, turned, compare, left)
        kind = self._type(left)
        common = kind if right.kind == "literal" else self._common_type(left, right)
        by_order = compare is not turned
        if by_order and types.is_boolean(kind):
            raise self._mistake(left, "true and false have no order: compare by = or !=")
        if right.kind == "column":
            safe = not types.is_floating(common)
            columns = (pc.field(column.value).cast(common, safe=safe) for column in (left, right))
            return compare(*columns)
        column = _comparable(pc.field(left.value), kind)
        if types.is_integer(kind) and type(right.value) in (int, float):
            if by_order:
                return compare(column, _limit(compare, right.value, kind))
            if right.value % 1 == 0:
                right = right._replace(value=int(right.value))
        return compare(column, self._literal(right, left, kind))

    def _member(self, column: FilterToken, literals: Sequence[FilterToken]) -> pc.Expression:
        """Return a test for membership in a set, which for null is neither true nor false."""
        kind = self._type(column)
        values = [self._literal(literal, column, kind) for literal in literals]
        if types.is_floating(kind):  # compared by their bits, which differ for -0.0 and 0.0
            values += [pc.negate(value) for value in values if value.as_py() == 0]
        tested = _comparable(pc.field(column.value), kind)
        is_in = tested.isin(pa.array(values, values[0].type))
        return pc.if_else(tested.is_null(), pa.scalar(None, pa.bool_()), is_in)

    def _literal(self, literal: FilterToken, column: FilterToken, kind: pa.DataType) -> pa.Scalar:
        """Return a literal in the form in which it is compared with a column of this type."""
        value, expected = literal.value, _literals(kind)
        if types.is_integer(kind) and isinstance(value, float):
            expected = _INTEGER
        if type(value) not in _ACCEPTED[expected]:
            raise self._mistake(literal, f"expected {expected}, as `{column.value}` is {kind}")
        try:
            if types.is_floating(kind):
                return _comparable(pa.scalar(float(value)).cast(kind, safe=False), kind)
            if types.is_integer(kind):
                return pa.scalar(value, kind)
            if types.is_timestamp(kind) and kind.tz:
                return self._time(literal, kind)
            return pa.scalar(value).cast(kind)
        except (pa.ArrowException, OverflowError):
            message = f"{value!r} is not a value of `{column.value}`, which is {kind}"
            raise self._mistake(literal, message) from None

    def _time(self, literal: FilterToken, kind: pa.TimestampType) -> pa.Scalar:
        """Return the time that a text means; without an offset, it is in the zone of the column."""
        text = pa.scalar(literal.value)
        try:
            local = text.cast(pa.timestamp(kind.unit))
        except pa.ArrowException:
            return text.cast(kind)
        try:
            return pc.assume_timezone(local, kind.tz)
        except pa.ArrowInvalid:
            message = (
                f"{literal.value!r} is not exactly one time in {kind.tz}, as the clock changes "
                "then: add the offset, as in '2024-10-27T02:30+01:00'"
            )
            raise self._mistake(literal, message) from None

    def _common_type(self, left: FilterToken, right: FilterToken) -> pa.DataType:
        """Return the type in which two columns are compared."""
        one, other = self._type(left), self._type(right)
        if one == other:
            return pa.float32() if types.is_float16(one) else one
        if _literals(one) == _literals(other) == _TEXT:
            return pa.large_string()
        if _literals(one) == _literals(other) == _NUMBER:
            if types.is_floating(one) or types.is_floating(other):
                return pa.float64()
            return _INTEGERS if pa.uint64() in (one, other) else pa.int64()
        if types.is_timestamp(one) and types.is_timestamp(other) and bool(one.tz) == bool(other.tz):
            finest = max(one.unit, other.unit, key=["s", "ms", "us", "ns"].index)
            if finest != "ns" or one.unit == other.unit:  # far dates do not fit into nanoseconds
                return pa.timestamp(finest, one.tz and "UTC")
        raise self._mistake(
            right,
            f"cannot compare `{right.value}`, which is {other}, with `{left.value}`, "
            f"which is {one}",
        )

    def _type(self, column: FilterToken) -> pa.DataType:
        kind = self._any_type(column)
        if not _literals(kind):
            message = f"`{column.value}` is {kind}, which filters cannot compare (`is null` works)"
            raise self._mistake(column, message)
        return kind

    def _any_type(self, column: FilterToken) -> pa.DataType:
        names = self._schema.names
        if column.value not in names:
            message = (
                f"`{column.value}` is not a column of the output"
                f"{did_you_mean(column.value, names)} (columns: {', '.join(names)}); text needs "
                "single quotes"
            )
            raise self._mistake(column, message)
        return self._schema.field(column.value).type

    def _mistake(self, token: FilterToken, message: str) -> ValueError:
        return mistake(self._text, token.at, message)


def _joined(join: _Operator, items: Sequence[pc.Expression]) -> pc.Expression:
    """Join expressions in a balanced tree: pyarrow walks trees recursively; deep ones crash it."""
    if len(items) == 1:
        return items[0]
    half = len(items) // 2
    return join(_joined(join, items[:half]), _joined(join, items[half:]))


def _comparable(values: Any, kind: pa.DataType) -> Any:
    """Return a column or literal in a type that pyarrow can compare: float16 becomes float32."""
    return values.cast(pa.float32()) if types.is_float16(kind) else values


def _limit(compare: _Operator, value: float, kind: pa.DataType) -> pa.Scalar:
    """Return the integer that replaces a number in a comparison (<, >, …) with integers."""
    whole = math.ceil if compare in (operator.lt, operator.ge) else math.floor
    limit = whole(max(-_BEYOND, min(value, _BEYOND)))
    try:
        return pa.scalar(limit, kind)
    except (pa.ArrowInvalid, OverflowError):
        return pa.scalar(Decimal(limit), _INTEGERS)


def _literals(kind: pa.DataType) -> str:
    """Describe the literals that a column of this type can be compared with; "" for none."""
    if types.is_boolean(kind):
        return _BOOL
    if types.is_integer(kind) or types.is_floating(kind):
        return _NUMBER
    if types.is_string(kind) or types.is_large_string(kind):
        return _TEXT
    return _TIME if types.is_timestamp(kind) or types.is_date(kind) else ""
