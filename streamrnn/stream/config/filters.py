"""Filters of output rows, such as `p > 0.9 and origin in ('JFK', 'LGA')`: text to a tree.

Comparisons (= == != <> < <= > >=) of columns and literals, `in`, `is null`, and, or, not,
parentheses; nothing more. Literals are numbers, 'text' (a quote in it is written twice), true and
false; a column with other signs in its name stands in double quotes. Words are in any case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

_SIGNS = ("=", "==", "!=", "<>", "<=", ">=", "<", ">")
_SAME = {"==": "=", "<>": "!="}
_WORDS = ("and", "or", "not", "in", "is", "null", "true", "false")
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<text>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")+")
    |(?P<name>[^\W\d]\w*)
    |(?P<sign>==|!=|<>|<=|>=|[=<>(),])
    )""",
    re.VERBOSE,
)
_DEEPEST = 100
_MOST = 1000  # comparisons


class FilterColumn(NamedTuple):
    """A column, and where its name begins in the text."""

    name: str
    at: int


class FilterLiteral(NamedTuple):
    """A literal, and where it begins."""

    value: bool | int | float | str
    at: int


FilterOperand = FilterColumn | FilterLiteral


@dataclass(frozen=True)
class Comparison:
    """`left operator right`; the operator is one of = != < <= > >=."""

    operator: str
    left: FilterOperand
    right: FilterOperand


@dataclass(frozen=True)
class Membership:
    """`column in (values)`."""

    column: FilterColumn
    values: tuple[FilterLiteral, ...]


@dataclass(frozen=True)
class NullTest:
    """`column is null`."""

    column: FilterColumn


@dataclass(frozen=True)
class Negation:
    """`not inner`."""

    inner: Filter


@dataclass(frozen=True)
class Junction:
    """Filters joined by `word`: and, or."""

    word: str
    items: tuple[Filter, ...]


Filter = Comparison | Membership | NullTest | Negation | Junction


def parse_filter(text: str) -> Filter:
    """Parse a filter. Raises ValueError that points to the place of a mistake.

    >>> parse_filter("p is null")
    NullTest(column=FilterColumn(name='p', at=0))
    """
    return _Parser(text).whole()


def pointed(text: str, at: int, message: str) -> str:
    """Return a message with the text of a filter and a caret below the place that it is about."""
    start = text.rfind("\n", 0, at) + 1
    line = text[start:].split("\n", 1)[0]
    return f"character {at + 1}: {message}\n  {line}\n  {' ' * (at - start)}^"


class _Token(NamedTuple):
    kind: str  # number, text, column, word, sign, end
    text: str
    at: int

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else f"`{self.text}`"


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._read())
        self._next = 0
        self._depth = 0
        self._comparisons = 0

    def _read(self) -> list[_Token]:
        found, at = [], 0
        end = len(self._text.rstrip())
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None:
                start = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                raise self._fail(start, self._unreadable(start))
            kind = str(match.lastgroup)
            text, at = match[kind], match.end()
            start = match.start(kind)
            if kind == "name":
                kind = "word" if text.lower() in _WORDS else "column"
                text = text.lower() if kind == "word" else text
            elif kind == "quoted":
                kind, text = "column", text[1:-1].replace('""', '"')
            found.append(_Token(kind, text, start))
        found.append(_Token("end", "", end))
        return found

    def _unreadable(self, at: int) -> str:
        sign = self._text[at]
        if sign in "'\"":
            return f"the quote {sign} is not closed"
        if sign in "+-*/%":
            return f"`{sign}` is not known: columns are compared as they are"
        return f"`{sign}` is not known here"

    def _fail(self, at: int, message: str) -> ValueError:
        return ValueError(pointed(self._text, at, message))

    def _expected(self, what: str) -> ValueError:
        token = self._tokens[self._next]
        return self._fail(token.at, f"expected {what}, received {token.shown}")

    def _take(self, kind: str, *texts: str) -> _Token | None:
        token = self._tokens[self._next]
        if token.kind != kind or (texts and token.text not in texts):
            return None
        self._next += 1
        return token

    def whole(self) -> Filter:
        found = self._junction("or")
        if self._tokens[self._next].kind != "end":
            raise self._expected("`and`, `or` or the end")
        return found

    def _junction(self, word: str) -> Filter:
        inner = self._negation if word == "and" else lambda: self._junction("and")
        items = [inner()]
        while self._take("word", word):
            items.append(inner())
        return items[0] if len(items) == 1 else Junction(word, tuple(items))

    def _negation(self) -> Filter:
        token = self._tokens[self._next]
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._fail(token.at, f"nested deeper than {_DEEPEST}")
        try:
            if self._take("word", "not"):
                return Negation(self._negation())
            if self._take("sign", "("):
                found = self._junction("or")
                if not self._take("sign", ")"):
                    raise self._expected("`)`")
                return found
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Filter:
        self._comparisons += 1
        if self._comparisons > _MOST:
            at = self._tokens[self._next].at
            message = f"more than {_MOST:,} comparisons: compare with a list by `in` (…)"
            raise self._fail(at, message)
        left = self._operand("a column")
        operator = self._take("sign", *_SIGNS)
        if operator is not None:
            name = _SAME.get(operator.text, operator.text)
            right = self._operand("a column or a literal")
            if isinstance(left, FilterLiteral) and isinstance(right, FilterLiteral):
                raise self._fail(
                    left.at, "expected a column in the comparison, received two literals"
                )
            return Comparison(name, left, right)
        if isinstance(left, FilterLiteral):
            raise self._expected("a comparison")
        if self._take("word", "is"):
            negated = self._take("word", "not")
            if not self._take("word", "null"):
                raise self._expected("`null`" if negated else "`null` or `not null`")
            return Negation(NullTest(left)) if negated else NullTest(left)
        negated = self._take("word", "not")
        if self._take("word", "in"):
            found = Membership(left, self._values())
            return Negation(found) if negated else found
        raise self._expected("`in`" if negated else "a comparison, `in` or `is`")

    def _values(self) -> tuple[FilterLiteral, ...]:
        if not self._take("sign", "("):
            raise self._expected("`(`")
        values = [self._literal()]
        while self._take("sign", ","):
            values.append(self._literal())
        if not self._take("sign", ")"):
            raise self._expected("`,` or `)`")
        return tuple(values)

    def _literal(self) -> FilterLiteral:
        found = self._operand("a literal")
        if isinstance(found, FilterColumn):
            raise self._fail(found.at, f"expected a literal, received the column `{found.name}`")
        return found

    def _operand(self, what: str) -> FilterOperand:
        if token := self._take("column"):
            return FilterColumn(token.text, token.at)
        if token := self._take("number"):
            integer = token.text.lstrip("+-").isdigit()
            return FilterLiteral(int(token.text) if integer else float(token.text), token.at)
        if token := self._take("text"):
            return FilterLiteral(token.text[1:-1].replace("''", "'"), token.at)
        if token := self._take("word", "true", "false"):
            return FilterLiteral(token.text == "true", token.at)
        if self._tokens[self._next].text == "null":
            raise self._fail(self._tokens[self._next].at, "nothing equals null: write `is null`")
        raise self._expected(what)
