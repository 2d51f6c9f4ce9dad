"""The lists and objects in the JSON of a manifest."""

from collections.abc import Mapping
from typing import Any

from streamrnn.stream.config import SIDE_OUTPUTS

_Nested = list[Any] | dict[str, Any]
"""The shape of a value: [the shape of each item] for a list ([]: any items), {key: the shape of its
value} for an object, whose other keys may have any value."""

_LONGEST = 60
_SHARD: _Nested = {"files": [{}]}
_COMMIT: dict[str, _Nested] = {
    "position": {},
    "positions": [],
    "shards": [_SHARD],
    "counters": {},
    "outputs": {},
}


def check_shape(manifest: Mapping[str, Any]) -> None:
    """Raise TypeError, naming the key, if a value should be a list or an object and is not."""
    outputs = ("rows", *SIDE_OUTPUTS)
    shape: dict[str, _Nested] = {
        **_COMMIT,
        "config": {},
        "sources": [{"content": {}}],
        "outputs": {name: {"parts": [{}]} for name in outputs},
        "kept": [_COMMIT],
        "segments": {name: [{}] for name in ("sources", *outputs)},
    }
    _check(manifest, shape, "")


def mistyped(key: str, expected: str, value: object) -> str:
    """Return the message for a value of another type; `value` is cut to a readable length.

    >>> mistyped("commit", "int", "two")
    "commit: expected int, received 'two' (str)"
    """
    shown = repr(value)
    if len(shown) > _LONGEST:
        shown = f"{shown[: _LONGEST - 1]}…"
    shown = "null" if value is None else f"{shown} ({type(value).__name__})"
    return f"{key}: expected {expected}, received {shown}"


def _check(value: Any, shape: _Nested, key: str) -> None:
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise TypeError(mistyped(key, "a list", value))
        for inner in shape:
            for index, item in enumerate(value):
                _check(item, inner, f"{key}[{index}]")
        return
    if not isinstance(value, Mapping):
        raise TypeError(mistyped(key, "an object", value))
    for name, inner in shape.items():
        if name in value:
            _check(value[name], inner, f"{key}.{name}" if key else name)
