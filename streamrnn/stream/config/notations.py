"""Values with a notation of their own: durations, levels of folders, and filters."""

import ast
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from streamrnn.stream.config.problems import choices, did_you_mean, received, unexpected

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}
_PART = r"(\d{1,15})(ms|us|[wdhms])"
PATTERN = rf"^({_PART})+$"


def parse_duration(text: str) -> timedelta:
    """Parse a duration.

    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)

    Raises ValueError for any other text, for zero and for more than a timedelta can hold.
    """
    compact = "".join(text.split())
    if not re.fullmatch(PATTERN, compact):
        raise ValueError(
            f'expected a duration such as "6h", "90s", "1d" or "1h30m" '
            f'(units w, d, h, m, s, ms, us), received "{text}"'
        )
    try:
        length = sum(
            (int(count) * _UNITS[unit] for count, unit in re.findall(_PART, compact)), timedelta()
        )
    except OverflowError:
        raise ValueError(f'"{text}" is longer than 999999999 days') from None
    if not length:
        raise ValueError(f'expected a duration above zero, received "{text}"')
    return length


def format_duration(length: timedelta) -> str:
    """Return a duration, zero or more, as text in days down to microseconds; "" for zero.

    For a duration above zero, `parse_duration` reads the text back as `length`.

    >>> format_duration(timedelta(hours=30))
    '1d6h'
    """
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, length = divmod(length, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


_FUNCTIONS = ("year", "month", "day", "hour")
_LEVEL = re.compile(r"(?P<name>[^=]+?) *= *(?P<rule>.+)")
_CALL = re.compile(r"(\w+) *\( *(.+?) *\)")
_SPECIAL = set('/=%\\:*?"<>|')


class PartitionLevel(NamedTuple):
    """A folder level `name=value`: the value of `column`, or a `function` of that value, if set."""

    name: str
    column: str
    function: str = ""

    def __str__(self) -> str:
        """Return the form that an output records."""
        return f"{self.name} = {self.function}({self.column})" if self.function else self.name


def partition_levels(texts: Iterable[str]) -> tuple[PartitionLevel, ...]:
    """Read levels in the form that an output records.

    Raises ValueError for a text with "=" that does not end in a known function of a column.

    >>> [str(level) for level in partition_levels(["origin", "date = day(time)"])]
    ['origin', 'date = day(time)']
    """
    return tuple(map(_level, texts))


def partition_texts(value: Any) -> tuple[str, ...]:
    """Return the value of `[sink] partition_by` in the form that an output records.

    The value is a column, a table of name = "function(column)", or a list of columns and tables, in
    the order of the folders. Raises ValueError.
    """
    items = value if isinstance(value, list | tuple) else [value]
    levels: list[PartitionLevel] = []
    for item in items:
        if isinstance(item, dict):
            levels += (_rule(name, rule) for name, rule in item.items())
        elif isinstance(item, str):
            levels.append(_level(item))
        else:
            raise unexpected('a column, or a table such as { date = "day(time)" }', item)
    seen: dict[str, str] = {}
    for level in levels:
        name = level.name
        if not name:
            raise ValueError("expected non-empty names, received an empty one")
        if name[0] in "._":
            raise ValueError(
                f'"{name}": readers skip folders whose names begin with "{name[0]}"; choose '
                "another name"
            )
        if wrong := sorted(_SPECIAL & set(name)) + [c for c in name if c < " "]:
            raise ValueError(
                f'"{name}": {wrong[0]!r} cannot be in the name of a folder level; choose another '
                "name"
            )
        if (other := seen.get(name.lower())) is not None:
            raise ValueError(
                f'"{name}" is given more than once; use each name once'
                if other == name
                else f'"{other}" and "{name}" differ only in case, which readers ignore; rename one'
            )
        seen[name.lower()] = name
    return tuple(map(str, levels))


def _level(text: str) -> PartitionLevel:
    level = _LEVEL.fullmatch(text)
    return _rule(level["name"], level["rule"]) if level else PartitionLevel(text, text)


def _rule(name: str, rule: Any) -> PartitionLevel:
    call = _CALL.fullmatch(rule) if isinstance(rule, str) else None
    if call is None:
        raise ValueError(
            f"{name}: expected {', '.join(_FUNCTIONS[:-1])} or {_FUNCTIONS[-1]} of a column, "
            f'such as "day(time)", received {received(rule)}'
        )
    if call[1] not in _FUNCTIONS:
        hint = did_you_mean(call[1], _FUNCTIONS)
        raise ValueError(f"{name}: expected {choices(_FUNCTIONS)}, received {call[1]!r}{hint}")
    return PartitionLevel(name, call[2], call[1])


# A filter of output rows, such as `p > 0.9 and origin in ('JFK', 'LGA')`, has comparisons
# (= == != <> < <= > >=) of columns and literals, `in`, `is null`, and, or, not, and parentheses;
# nothing more. Literals are numbers, 'text' (a quote in it is written twice), true and false; a
# column whose name is not a word (of letters, digits and _) stands in double quotes. Keywords are
# case-insensitive. A table says which token may follow which. Python's `ast` then parses the
# filter, in which operators and keywords are spelled as in Python, and a name stands for each
# column and literal: Python itself would read 'O''Hare' as OHare, and refuse a column `from`.
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
    """Return a filter as a Python syntax tree, and name in the tree -> column or literal.

    Raises ValueError, which points to the mistake.

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
    """Return an error that shows the line of a filter, with a caret below the mistake."""
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
            if shown in "'\"":
                raise mistake(text, at, f"the quote {shown} is not closed")
            reason = ": columns are compared as they are" if shown in "+-*/%" else " in a filter"
            raise mistake(text, at, f"`{shown}` is not supported{reason}")
        else:
            yield FilterToken(kind, shown, shown, at)


def _check(text: str, tokens: Sequence[FilterToken]) -> None:
    """Raise ValueError if tokens break `_GRAMMAR`, compare two literals, or exceed a limit."""
    expected, comparisons, depth = _START, 0, 0
    opened = [0]  # the depth at the beginning, and after each open parenthesis
    for index, token in enumerate(tokens):
        if expected == _START:
            comparisons += token.kind not in ("not", "(")
            depth += 1
            if depth > _DEEPEST:
                raise mistake(text, token.at, f"the filter is nested deeper than {_DEEPEST} levels")
            if comparisons > _MOST:
                message = f"more than {_MOST:,} comparisons in the filter: use `in` (…) for lists"
                raise mistake(text, token.at, message)
            if token.kind == "(":
                opened.append(depth)
        if expected == _END and len(opened) > 1:
            expected = _CLOSE
        if token.kind not in _GRAMMAR[expected]:
            if token.kind == "null" and expected in (_START, _OTHER, _VALUE):
                message = "nothing equals null: write `is null`"
            elif token.kind == "column" and expected == _VALUE:
                message = f"expected a literal, received the column `{token.value}`"
            else:
                shown = f"`{token.shown}`" if token.shown else "the end"
                message = f"expected {expected}, received {shown}"
            raise mistake(text, token.at, message)
        if expected == _OTHER and token.kind == tokens[index - 2].kind == "literal":
            message = "expected a column in the comparison, received two literals"
            raise mistake(text, tokens[index - 2].at, message)
        if expected == _CLOSE and token.kind == ")":
            opened.pop()
        if token.kind in ("and", "or"):
            depth = opened[-1]
        expected = _GRAMMAR[expected][token.kind]
