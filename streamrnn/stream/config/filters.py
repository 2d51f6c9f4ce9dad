"""Filters of output rows, such as `p > 0.9 and origin in ('JFK', 'LGA')`: text to a tree.

A filter has comparisons (= == != <> < <= > >=) of columns and literals, `in`, `is null`, and, or,
not, and parentheses; nothing more. Literals are numbers, 'text' (a quote in it is written twice),
true and false; a column whose name is not a word (of letters, digits and _) stands in double
quotes. Keywords are case-insensitive. A table says which token may follow which. Python's `ast`
then parses the filter, with Python's keywords, and a name in place of each column and literal:
Python itself would read 'O''Hare' as OHare, and refuse a column `from`.
"""

import ast
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<text>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")+")
    |(?P<name>[^\W\d]\w*)
    |(?P<comparison>==|!=|<>|<=|>=|[=<>])
    |(?P<sign>[(),])
    |(?P<unknown>\S)
    |(?P<end>$)
    )""",
    re.VERBOSE,
)
_WORDS = ("and", "or", "not", "in", "is", "null")
_PYTHON = {"=": "==", "<>": "!=", "null": "None"}
_START, _TEST, _OTHER = "a column", "a comparison, `in` or `is`", "a column or a literal"
_LIST, _VALUE, _MORE = "`(`", "a literal", "`,` or `)`"
_END, _CLOSE = "`and`, `or` or the end", "`)`"
# What may come next -> each token that is allowed there -> what may come after that token.
_GRAMMAR: dict[str, dict[str, str]] = {
    _START: {"column": _TEST, "literal": "a comparison", "not": _START, "(": _START},
    _TEST: {"comparison": _OTHER, "in": _LIST, "not": "`in`", "is": "`null` or `not null`"},
    "a comparison": {"comparison": _OTHER},
    _OTHER: {"column": _END, "literal": _END},
    "`in`": {"in": _LIST},
    _LIST: {"(": _VALUE},
    _VALUE: {"literal": _MORE},
    _MORE: {",": _VALUE, ")": _END},
    "`null` or `not null`": {"not": "`null`", "null": _END},
    "`null`": {"null": _END},
    _END: {"and": _START, "or": _START, "end": ""},
    _CLOSE: {"and": _START, "or": _START, ")": _END},  # as _END, in parentheses
}
_DEEPEST = 100
_MOST = 1000  # comparisons


class FilterToken(NamedTuple):
    """A column, literal, operator or keyword, and where it begins in the text."""

    kind: str
    value: Any
    shown: str
    at: int


@functools.cache
def parse_filter(text: str) -> tuple[ast.expr, Mapping[str, FilterToken]]:
    """Return a filter as a Python syntax tree, and the column or literal behind each of its names.

    Raises ValueError that points to the place of a mistake.

    >>> tree, operands = parse_filter("P is NULL")
    >>> ast.unparse(tree), operands["_0"].value
    ('_0 is None', 'P')
    """
    tokens = {f"_{index}": token for index, token in enumerate(_tokens(text))}
    _check(text, list(tokens.values()))
    python = " ".join(
        name if token.kind in ("column", "literal") else _PYTHON.get(token.value, token.value)
        for name, token in tokens.items()
    )
    return ast.parse(python, mode="eval").body, tokens


def mistake(text: str, at: int, message: str) -> ValueError:
    """Return an error that shows a filter, with a caret below the place of the mistake."""
    start = text.rfind("\n", 0, at) + 1
    line = text[start:].split("\n", 1)[0]
    return ValueError(f"character {at + 1}: {message}\n  {line}\n  {' ' * (at - start)}^")


def _tokens(text: str) -> Iterator[FilterToken]:
    for match in _TOKEN.finditer(text.rstrip()):
        kind = str(match.lastgroup)
        shown, at = match[kind], match.start(kind)
        word = shown.lower()
        if kind == "number":
            integer = shown.lstrip("+-").isdigit()
            yield FilterToken("literal", int(shown) if integer else float(shown), shown, at)
        elif kind == "text":
            yield FilterToken("literal", shown[1:-1].replace("''", "'"), shown, at)
        elif kind == "quoted":
            name = shown[1:-1].replace('""', '"')
            yield FilterToken("column", name, name, at)
        elif word in ("true", "false"):
            yield FilterToken("literal", word == "true", word, at)
        elif kind == "name" and word not in _WORDS:
            yield FilterToken("column", shown, shown, at)
        elif kind in ("name", "sign"):
            yield FilterToken(word, word, word, at)
        elif kind == "unknown":
            raise mistake(text, at, _unknown(shown))
        else:
            yield FilterToken(kind, shown, shown, at)


def _unknown(sign: str) -> str:
    if sign in "'\"":
        return f"the quote {sign} is not closed"
    if sign in "+-*/%":
        return f"`{sign}` is not supported: columns are compared as they are"
    return f"`{sign}` is not supported in a filter"


def _check(text: str, tokens: Sequence[FilterToken]) -> None:
    """Raise ValueError if tokens break `_GRAMMAR`, have too many comparisons or nest too deeply."""
    expected, comparisons, depth = _START, 0, 0
    opened = [0]  # the depth at the beginning, and after each open parenthesis
    for index, token in enumerate(tokens):
        if expected == _START:
            comparisons += token.kind not in ("not", "(")
            depth += 1
            if depth > _DEEPEST:
                raise mistake(text, token.at, f"the filter is nested deeper than {_DEEPEST}")
            if comparisons > _MOST:
                message = f"more than {_MOST:,} comparisons in the filter: use `in` (…) for lists"
                raise mistake(text, token.at, message)
            if token.kind == "(":
                opened.append(depth)
        if expected == _END and len(opened) > 1:
            expected = _CLOSE
        if token.kind not in _GRAMMAR[expected]:
            raise mistake(text, token.at, _unexpected(expected, token))
        if expected == _OTHER and token.kind == tokens[index - 2].kind == "literal":
            message = "expected a column in the comparison, received two literals"
            raise mistake(text, tokens[index - 2].at, message)
        if expected == _CLOSE and token.kind == ")":
            opened.pop()
        if token.kind in ("and", "or"):
            depth = opened[-1]
        expected = _GRAMMAR[expected][token.kind]


def _unexpected(expected: str, token: FilterToken) -> str:
    if token.kind == "null" and expected in (_START, _OTHER, _VALUE):
        return "nothing equals null: write `is null`"
    if token.kind == "column" and expected == _VALUE:
        return f"expected a literal, received the column `{token.value}`"
    return f"expected {expected}, received " + (f"`{token.shown}`" if token.shown else "the end")
