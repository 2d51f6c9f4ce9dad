"""Problems of a pipeline file, collected so that all are reported at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, TypeVar

from streamrnn.base.display import closest, location
from streamrnn.errors import ConfigError

_Location = TypeVar("_Location")

Path = tuple[str | int, ...]
"""A location in a parsed TOML document: ("source", "features", 2, "valid")."""


@dataclass(frozen=True)
class Problem:
    """One problem: where it is, a message about it, and the override that caused it, if known."""

    path: Path
    message: str
    origin: str | None = None


def dotted(path: Path) -> str:
    """Return the path as a dotted key.

    >>> dotted(("source", "features", 2, "valid"))
    'source.features[2].valid'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def received(value: Any) -> str:
    """Describe a value and its TOML type, cut to a readable length."""
    match value:
        case bool():
            return f"the boolean {str(value).lower()}"
        case int():
            return f"the integer {_cut(str(value))}"
        case float():
            return f"the number {value}"
        case str():
            shown = _cut(location(value))
            return f'the string "{shown}"' if value else "an empty string"
        case list() | tuple():
            items = [location(item) if isinstance(item, str) else item for item in value]
            return f"the list {_cut(str(items))}" if value else "an empty list"
        case dict():
            return "a table"
        case datetime() | date() | time():
            return f"the date or time {value.isoformat()}"
        case None:
            return "nothing"
        case _:
            return f"a {type(value).__name__}"


def unexpected(expected: str, value: Any, hint: str = "") -> ValueError:
    """Return the error for a value of a key, for pydantic to collect."""
    return ValueError(f"expected {expected}, received {received(value)}{hint}")


def choices(options: Sequence[str]) -> str:
    """Join options into a phrase: `"a", "b" or "c"`."""
    quoted = [f'"{option}"' for option in options]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return a hint to append to a message; "" if no option is similar."""
    near = closest(word, options)
    return f'; did you mean "{near}"?' if near else ""


def config_error(
    problems: Sequence[Problem],
    *,
    file: str | None = None,
    lines: Mapping[Path, int] | None = None,
    origins: Mapping[Path, str] | None = None,
) -> ConfigError:
    """Return one error that lists all problems, in the order of the file's lines.

    `file` is None for a config from a dict. `origins`: path -> the override that set it.
    """
    located = []
    for problem in problems:
        origin = problem.origin or _nearest(problem.path, origins or {})
        line = None if origin else _nearest(problem.path, lines or {})
        location = origin or (f"{file}:{line}" if file and line else file)
        texts = (location, dotted(problem.path), problem.message)
        # Problems without a line come last: missing tables, then overrides.
        rank = (origin is not None, line is None, line or 0)
        located.append((rank, ": ".join(text for text in texts if text)))
    located.sort(key=lambda item: item[0])
    messages = list(dict.fromkeys(text for _, text in located))
    if len(messages) == 1:
        return ConfigError(messages[0])
    head = f"{file or 'the pipeline config'} has {len(messages)} problems:"
    indented = [text.replace("\n", "\n  ") for text in messages]
    return ConfigError("\n  ".join([head, *indented]))


def _nearest(path: Path, locations: Mapping[Path, _Location]) -> _Location | None:
    """Return the location of the path, else of the closest table around it; None without one."""
    for length in range(len(path), 0, -1):
        if path[:length] in locations:
            return locations[path[:length]]
    return None


def _cut(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
