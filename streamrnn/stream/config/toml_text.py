"""The TOML text of a pipeline file: its sample, the lines of its keys, overrides, variables."""

import json
import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from streamrnn.base.display import location
from streamrnn.errors import ConfigError
from streamrnn.stream.config.problems import Path, Problem
from streamrnn.stream.config.schema import TABLES

# The keys that are set: all that a run needs, and source.time. The others are comments.
_ACTIVE = {"source.path", "source.key", "source.time", "source.features", "model.path", "sink.path"}

_HEAD = """\
# A streamrnn pipeline. Check it with `streamrnn validate`, run it with `streamrnn run`.
# The comment above a key describes it. A key that is commented out shows its default, or an example
# if it has none. In strings, ${VAR} and ${VAR:-default} are replaced from the environment.
# More: `streamrnn guide`, with a page for each task; `streamrnn guide messy-log` is about [source].
"""


@dataclass(frozen=True)
class Filled:
    """The value of a key in a sample (None: the key stays a comment), and lines of comment."""

    value: Any
    notes: tuple[str, ...] = ()


def sample(filled: Mapping[str, Filled] | None = None) -> str:
    """Return a pipeline file with every key: what a simple run needs is set, the rest are comments.

    `filled` sets other keys and values instead, by dotted name.
    """
    lines = [_HEAD]
    for name, kind in TABLES.items():
        lines.append(f"# {kind.__doc__}\n[{name}]")
        for key, spec in kind.by_key().items():
            path = f"{name}.{key}"
            if filled is None:
                entry = Filled(_shown(spec) if path in _ACTIVE else None)
            else:
                entry = filled.get(path, Filled(None))
            value = _shown(spec) if entry.value is None else entry.value
            if isinstance(value, list) and value and isinstance(value[0], dict):
                body = [f"[[{path}]]", *(f"{k} = {toml(item)}" for k, item in value[0].items())]
            else:
                body = [f"{key} = {toml(value)}"]
            lines += (f"# {text}" for text in (spec.description, *entry.notes))
            lines += (f"#{line}" if entry.value is None else line for line in body)
        lines.append("")
    return "\n".join(lines)


def _shown(field: FieldInfo) -> Any:
    value = field.examples[0] if field.examples else field.get_default()
    assert value is not PydanticUndefined
    return value


def toml(value: Any) -> str:
    """Format a value as TOML on one line.

    >>> toml(["a", {"name": "b", "valid": [0, 9.5]}])
    '["a", { name = "b", valid = [0, 9.5] }]'
    """
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list() | tuple():
            return f"[{', '.join(toml(item) for item in value)}]"
        case dict():
            return f"{{ {', '.join(f'{key} = {toml(item)}' for key, item in value.items())} }}"
        case _:
            return str(value)


_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_SCALAR = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}'
    r'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|[^,\]}\s#](?:[^,\]}\n#]*[^,\]}\s#])?',
    re.DOTALL,
)


def key_lines(text: str) -> dict[Path, int]:
    """Return the lines, from 1, of the tables, keys and array elements of a valid TOML document.

    tomllib does not keep lines. The number in a path is the index of an array element: ("source",
    "features", 2, "valid").
    """
    return _Scanner(text).scan()


class _Scanner:
    """Scans a document that tomllib has accepted, and therefore checks nothing."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.offset = 0
        self.lines: dict[Path, int] = {}
        self.array_tables: dict[Path, int] = {}
        self.breaks = [match.start() for match in re.finditer("\n", text)]

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self.skip(_BLANK) < len(self.text):
            if self.text.startswith("[", self.offset):
                table = self.header()
            else:
                self.pair(table)
        return self.lines

    def header(self) -> Path:
        array = self.text.startswith("[[", self.offset)
        start = self.offset
        self.offset += 2 if array else 1
        path = self.resolve(self.dotted_key())
        if array:
            index = self.array_tables[path] = self.array_tables.get(path, -1) + 1
            path = (*path, index)
        self.mark(path, start)
        self.offset += 2 if array else 1
        return path

    def resolve(self, parts: tuple[str, ...]) -> Path:
        """Return the path of a header; below an array of tables, in the array's last table."""
        path: Path = ()
        for depth, part in enumerate(parts, start=1):
            path = (*path, part)
            self.mark(path, self.offset)
            if depth < len(parts) and path in self.array_tables:
                path = (*path, self.array_tables[path])
        return path

    def pair(self, table: Path) -> None:
        start = self.offset
        path = table
        for part in self.dotted_key():
            path = (*path, part)
            self.mark(path, start)
        self.offset += 1  # the equals sign
        self.skip(_SPACE)
        self.value(path)

    def value(self, path: Path) -> None:
        self.mark(path, self.offset)
        opening = self.text[self.offset]
        if opening == "[":
            self.items("]", lambda index: self.value((*path, index)))
        elif opening == "{":
            self.items("}", lambda _: self.pair(path))
        else:
            self.skip(_SCALAR)

    def items(self, closing: str, item: Callable[[int], None]) -> None:
        self.offset += 1
        index = 0
        while not self.text.startswith(closing, self.skip(_BLANK)):
            item(index)
            index += 1
            if self.text.startswith(",", self.skip(_BLANK)):
                self.offset += 1
        self.offset += 1

    def dotted_key(self) -> tuple[str, ...]:
        parts = []
        while True:
            self.skip(_SPACE)
            start = self.offset
            part = self.text[start : self.skip(_KEY_PART)]
            if part[:1] in ('"', "'"):
                part = tomllib.loads(f"value = {part}")["value"]
            parts.append(part)
            if not self.text.startswith(".", self.skip(_SPACE)):
                return tuple(parts)
            self.offset += 1

    def skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.offset)
        if match:
            self.offset = match.end()
        return self.offset

    def mark(self, path: Path, offset: int) -> None:
        self.lines.setdefault(path, bisect_left(self.breaks, offset) + 1)


def listed_overrides(overrides: object) -> list[str]:
    """Return the overrides as a list.

    Raises ConfigError unless they are an iterable of strings; a string and a mapping are refused.
    """
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

    A value is parsed as TOML; it is a string if that fails, or if the key accepts nothing else.
    Returns path -> the override that set it, for messages, and a problem for each override that
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
            path, fault = (), "expected KEY=VALUE, such as window.lanes=32"
        else:
            fault = _write(data, path, _value_of(text.strip(), path))
        if fault:
            problems.append(Problem(path, fault, origin))
        else:
            origins[path] = origin
    return origins, problems


def _parse_key(text: str) -> Path | None:
    """Return the parts of a dotted key, which may be quoted; None for a text that is not a key."""
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
    """Return the value of an override; its text if that is not a TOML value.

    A number, date or boolean for a key that accepts only text stays text, too: a path may be
    2013-01-01, 2013, nan or true.
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
    field = section.by_key().get(str(path[1]))
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


def _write(data: dict[str, Any], path: Path, value: Any) -> str:
    """Set `path` in `data`, adding tables as needed; return what is wrong, "" if nothing is."""
    table = data
    for depth, part in enumerate(path[:-1], start=1):
        table = table.setdefault(str(part), {})
        if not isinstance(table, dict):
            parent = ".".join(str(name) for name in path[:depth])
            return f"{parent} is not a table; set it as a whole: --set '{parent}=…'"
    table[str(path[-1])] = value
    return ""


# `$${` is a literal `${`; any other `${` must begin a variable.
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\})?")


def interpolate(
    data: dict[str, Any], environment: Mapping[str, str]
) -> tuple[dict[str, Any], list[Problem]]:
    """Return a copy of `data` with `${VAR}` and `${VAR:-default}` replaced in all string values.

    As in a shell, a default also replaces a variable that is set but empty. `${…}` in the value of
    a variable is not replaced. Returns problems, too; an unset variable without a default is one,
    and its `${VAR}` stays.
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

    return visit(data, ()), problems
