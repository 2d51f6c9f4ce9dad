"""The sample file of `streamrnn init`, generated from the schema so that it cannot drift."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

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
    """The value of a key in a sample, with lines of comment.

    Without a value, the key stays a comment.
    """

    value: Any
    notes: tuple[str, ...] = ()


def sample(filled: Mapping[str, Filled] | None = None) -> str:
    """Return a pipeline file with every key: keys of a simple run are set, the rest are comments.

    `filled` sets other keys and values instead, by their dotted names.
    """
    lines = [_HEAD]
    for name, kind in TABLES.items():
        lines.append(f"# {kind.__doc__}\n[{name}]")
        for key, spec in kind.model_fields.items():
            path = f"{name}.{key}"
            if filled is None:
                entry = Filled(_shown(spec) if path in _ACTIVE else None)
            else:
                entry = filled.get(path, Filled(None))
            lines += _entry(name, key, spec, entry)
        lines.append("")
    return "\n".join(lines)


def _shown(field: FieldInfo) -> Any:
    """Return the example of a key, else its default."""
    value = field.examples[0] if field.examples else field.get_default()
    assert value is not PydanticUndefined
    return value


def _entry(table: str, key: str, field: FieldInfo, entry: Filled) -> Iterator[str]:
    value = _shown(field) if entry.value is None else entry.value
    if isinstance(value, list) and value and isinstance(value[0], dict):
        body = [
            f"[[{table}.{key}]]",
            *(f"{name} = {toml(item)}" for name, item in value[0].items()),
        ]
    else:
        body = [f"{key} = {toml(value)}"]
    yield f"# {field.description}"
    yield from (f"# {note}" for note in entry.notes)
    yield from (f"#{line}" if entry.value is None else line for line in body)


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
