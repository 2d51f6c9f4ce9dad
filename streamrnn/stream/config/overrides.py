"""`--set window.lanes=32`: overrides of single keys on the command line."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from streamrnn.base.display import location
from streamrnn.errors import ConfigError
from streamrnn.stream.config.problems import Path, Problem
from streamrnn.stream.config.schema import TABLES


def listed_overrides(overrides: object) -> list[str]:
    """Return the overrides as a list. Raises ConfigError for anything but texts in a list."""
    expected = 'overrides: expected a list of strings such as ["window.lanes=32"], received '
    if isinstance(overrides, Mapping):
        raise ConfigError(
            f"{expected}{type(overrides).__name__}. Pipeline.from_dict takes the tables of a "
            "pipeline file as dicts"
        )
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise ConfigError(f"{expected}{overrides!r:.80}")
    listed = list(overrides)
    for override in listed:
        if not isinstance(override, str):
            raise ConfigError(f"{expected}{type(override).__name__} {override!r:.80}")
    return listed


def apply_overrides(
    data: dict[str, Any], overrides: Iterable[str]
) -> tuple[dict[Path, str], list[Problem]]:
    """Write each `dotted.key=value` into `data`, in place; later ones win.

    A value is parsed as TOML, and is a string if that fails or the key accepts nothing else.
    Returns which override set which path, for messages, and a problem for every override that
    cannot be applied.
    """
    origins: dict[Path, str] = {}
    problems: list[Problem] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        path = _parse_key(key.strip())
        shown = location(override) if path is None else location(key) + equals + location(text)
        origin = f"--set {shown}"
        if not equals or path is None:
            problems.append(
                Problem((), "expected KEY=VALUE, such as window.lanes=32", origin=origin)
            )
            continue
        fault = _write(data, path, _value_of(text.strip(), path))
        if fault:
            problems.append(Problem(path, fault, origin=origin))
        else:
            origins[path] = origin
    return origins, problems


def _parse_key(text: str) -> Path | None:
    """Return the parts of a dotted key, whose parts may be quoted; None if it is not a key."""
    if "\n" in text or "#" in text:
        return None
    try:
        node: Any = tomllib.loads(f"{text} = 0")
    except ValueError:
        return None
    path: list[str] = []
    while isinstance(node, dict):
        if len(node) != 1:
            return None
        (part, node), *_ = node.items()
        path.append(part)
    return tuple(path)


def _value_of(text: str, path: Path) -> Any:
    """Return the value of an override, or its text if the key accepts only text.

    So a path may be 2013-01-01, 2013, nan or true.
    """
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # Text with line breaks could set further keys: then the whole text is a string.
    value = document["value"] if len(document) == 1 else text
    section = TABLES.get(str(path[0]))
    if isinstance(value, str | list | dict) or section is None or len(path) < 2:
        return value
    field = section.model_fields.get(str(path[1]))
    kinds = set() if field is None else _scalars(field.annotation, len(path) - 2)
    return text if str in kinds and kinds <= {str, type(None)} else value


def _scalars(kind: Any, depth: int) -> set[Any]:
    """Return the scalar types of a key, or of the values `depth` tables below it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _scalars(arguments[0], depth)
    if origin is dict:
        return _scalars(arguments[1], depth - 1) if depth else {dict}
    if origin is tuple:  # a single name is allowed for a list of names
        return _scalars(arguments[0], depth)
    if origin in (Union, UnionType):
        return set().union(*(_scalars(argument, depth) for argument in arguments))
    return {kind}


def _write(data: dict[str, Any], path: Path, value: Any) -> str | None:
    """Set `path` in `data`, adding tables as needed; return what is wrong if that is impossible."""
    table = data
    for depth, part in enumerate(path[:-1], start=1):
        table = table.setdefault(str(part), {})
        if not isinstance(table, dict):
            parent = ".".join(str(name) for name in path[:depth])
            return f"{parent} is not a table; set it as a whole: --set '{parent}=…'"
    table[str(path[-1])] = value
    return None


# `$${` is a literal `${`; any other `${` must begin a variable.
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\})?")


def interpolate(
    data: dict[str, Any], environment: Mapping[str, str]
) -> tuple[dict[str, Any], list[Problem]]:
    """Return a copy of `data` with `${VAR}` and `${VAR:-default}` replaced in all string values.

    As in a shell, a default also replaces a variable that is set and empty. Keys, numbers and the
    text of a variable's value are not changed. A variable that is unset and has no default is a
    problem, and its text is kept.
    """
    problems: list[Problem] = []

    def replacement(match: re.Match[str], path: Path) -> str:
        name, default = match["name"], match["default"]
        value, fault = environment.get(name or "", ""), ""
        if match[0] == "$${":
            return "${"
        if name is None:
            fault = (
                f'invalid variable in "{match.string}": write ${{NAME}} or ${{NAME:-default}}, '
                f"or $${{ for a literal ${{"
            )
        elif default is None and name not in environment:
            fault = (
                f"environment variable {name} is not set; set it, or add a default: "
                f"${{{name}:-default}}"
            )
        elif "://" in match.string and value != value.strip():
            fault = (
                f"environment variable {name} begins or ends with white space, which no part of a "
                "URI can have; remove it (a secret that echo wrote ends in a line break)"
            )
        if fault:
            problems.append(Problem(path, fault))
        if name is None or (default is None and name not in environment):
            return match[0]
        return value or default or ""

    def visit(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: visit(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [visit(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, str):
            return _REFERENCE.sub(lambda match: replacement(match, path), value)
        return value

    return {key: visit(value, (key,)) for key, value in data.items()}, problems
