"""`--set window.lanes=32`: overrides of single keys on the command line."""

import tomllib
from collections.abc import Iterable
from typing import Any

from streamrnn.config.problems import Path, Problem


def apply_overrides(
    data: dict[str, Any], overrides: Iterable[str]
) -> tuple[dict[Path, str], list[Problem]]:
    """Write each `dotted.key=value` into `data`, in place; later ones win.

    A value is parsed as TOML, and is a string if that fails. Returns which override set which path,
    for messages, and a problem for every override that cannot be applied.
    """
    origins: dict[Path, str] = {}
    problems: list[Problem] = []
    for override in overrides:
        origin = f"--set {override}"
        key, equals, text = override.partition("=")
        path = _parse_key(key.strip())
        if not equals or path is None:
            problems.append(
                Problem((), "expected KEY=VALUE, such as window.lanes=32", origin=origin)
            )
            continue
        fault = _write(data, path, _parse_value(text.strip()))
        if fault:
            problems.append(Problem(path, fault, origin=origin))
        else:
            origins[path] = origin
    return origins, problems


def _parse_key(text: str) -> Path | None:
    """Return the parts of a dotted key, whose parts may be quoted; None if it is no key."""
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


def _parse_value(text: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # Text with line breaks could set further keys: then the whole text is a string.
    return document["value"] if len(document) == 1 else text


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
