"""What is wrong with a pipeline file, gathered so that everything is told at once."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, TypeVar

from streamrnn.errors import ConfigError

_Place = TypeVar("_Place")

Path = tuple[str | int, ...]
"""A place in a parsed TOML document: ("source", "features", 2, "valid")."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, and what to do about it."""

    path: Path
    message: str
    origin: str | None = None


def dotted(path: Path) -> str:
    """The path as people write it.

    >>> dotted(("source", "features", 2, "valid"))
    'source.features[2].valid'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def received(value: Any) -> str:
    """A value in the words of TOML, cut to a readable length."""
    match value:
        case bool():
            return f"the boolean {str(value).lower()}"
        case int():
            return f"the integer {_cut(str(value))}"
        case float():
            return f"the number {value}"
        case str():
            return f'the string "{_cut(value)}"' if value else "an empty string"
        case list() | tuple():
            return f"the list {_cut(str(list(value)))}" if value else "an empty list"
        case dict():
            return "a table"
        case datetime() | date() | time():
            return f"the date or time {value.isoformat()}"
        case None:
            return "nothing"
        case _:
            return f"a {type(value).__name__}"


def choices(options: Sequence[str]) -> str:
    """Options as a phrase: `"a", "b" or "c"`."""
    quoted = [f'"{option}"' for option in options]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that ends a message, or nothing where no known word is near."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f'; did you mean "{by_lower[close[0]]}"?' if close else ""


def config_error(
    problems: Sequence[Problem],
    *,
    file: str | None = None,
    lines: Mapping[Path, int] | None = None,
    origins: Mapping[Path, str] | None = None,
) -> ConfigError:
    """One error that tells all problems, in the order of the file's lines.

    file: the pipeline file, None for a config that was given as a dict.
    lines: line of each path in that file.  origins: the override that set a path, where one did.
    """
    located = []
    for problem in problems:
        origin = problem.origin or _nearest(problem.path, origins or {})
        line = None if origin else _nearest(problem.path, lines or {})
        place = origin or (f"{file}:{line}" if file and line else file)
        texts = (place, dotted(problem.path), problem.message)
        # Whatever has no line of its own comes after the rest: missing tables, then overrides.
        rank = (origin is not None, line is None, line or 0)
        located.append((rank, ": ".join(text for text in texts if text)))
    located.sort(key=lambda item: item[0])
    messages = list(dict.fromkeys(text for _, text in located))
    if len(messages) == 1:
        return ConfigError(messages[0])
    head = f"{file or 'the pipeline config'} has {len(messages)} problems:"
    return ConfigError("\n  ".join([head, *messages]))


def _nearest(path: Path, places: Mapping[Path, _Place]) -> _Place | None:
    """What is known of the path, or else of the closest table around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return places[path[:length]]
    return None


def _cut(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
