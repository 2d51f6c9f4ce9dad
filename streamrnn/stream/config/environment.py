"""Environment variables in the string values of a parsed pipeline file."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from streamrnn.stream.config.problems import Path, Problem

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

    def visit(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: visit(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [visit(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, str):
            problems.extend(Problem(path, fault) for fault in _faults(value, environment))
            return _REFERENCE.sub(lambda match: _replacement(match, environment), value)
        return value

    return {key: visit(value, (key,)) for key, value in data.items()}, problems


def _faults(text: str, environment: Mapping[str, str]) -> Iterator[str]:
    for match in _REFERENCE.finditer(text):
        name = match["name"]
        if match[0] == "$${":
            continue
        if name is None:
            yield (
                f'invalid variable in "{text}": write ${{NAME}} or ${{NAME:-default}}, '
                f"or $${{ for a literal ${{"
            )
        elif match["default"] is None and name not in environment:
            yield (
                f"environment variable {name} is not set; set it, or add a default: "
                f"${{{name}:-default}}"
            )
        elif "://" in text and (value := environment.get(name, "")) != value.strip():
            yield (
                f"environment variable {name} begins or ends with white space, which no part of a "
                "URI can have; remove it (a secret that echo wrote ends in a line break)"
            )


def _replacement(match: re.Match[str], environment: Mapping[str, str]) -> str:
    if match[0] == "$${":
        return "${"
    name, default = match["name"], match["default"]
    if name is None:
        return match[0]
    if default is not None:
        return environment.get(name) or default
    return environment.get(name, match[0])
