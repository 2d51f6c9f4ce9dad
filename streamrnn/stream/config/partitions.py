"""Levels of `[sink] partition_by`: columns, or the year, month, day or hour of a time column."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from streamrnn.stream.config.problems import choices, did_you_mean, received, unexpected

_FUNCTIONS = ("year", "month", "day", "hour")
_LEVEL = re.compile(r"(?P<name>[^=]+?) *= *(?P<rule>.+)")
_CALL = re.compile(r"(\w+) *\( *(.+?) *\)")
_SPECIAL = set('/=%\\:*?"<>|')


class PartitionLevel(NamedTuple):
    """A folder level `name=value`: the value of `column`, or a `function` of it ("": none)."""

    name: str
    column: str
    function: str = ""

    def __str__(self) -> str:
        """Return the form that an output records.

        >>> str(PartitionLevel("date", "time", "day"))
        'date = day(time)'
        """
        return f"{self.name} = {self.function}({self.column})" if self.function else self.name


def partition_levels(texts: Iterable[str]) -> tuple[PartitionLevel, ...]:
    """Read levels in the form that an output records. Raises ValueError for another form.

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
