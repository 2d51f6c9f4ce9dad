"""Dataclasses as JSON, without fields that have their defaults; and back, with checks of types."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_LONGEST = 60


@cache
def _defaults(kind: Any) -> dict[str, Any]:
    return {
        item.name: item.default if item.default_factory is MISSING else item.default_factory()
        for item in fields(kind)
    }


def fields_of(item: Any) -> dict[str, Any]:
    """Return the fields of a dataclass for JSON, without those that have their defaults."""
    kind: Any = type(item)
    return {
        name: value
        for name, default in _defaults(kind).items()
        if (value := getattr(item, name)) != default
    }


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


@cache
def _form(hint: Any) -> tuple[Any, Any, bool]:
    """Return the first type of a hint, what to build from a value, and whether it may be None.

    What to build is tuple, Mapping, or object for a dataclass; None: the value is as in JSON.
    """
    kind, *_ = options = _options(hint)
    origin = object if is_dataclass(kind) else get_origin(kind)
    return kind, origin if origin in (object, tuple, Mapping) else None, NoneType in options


@cache
def _nested(kind: Any) -> dict[str, Any]:
    """Return the hints of the fields of a dataclass whose values are not as in JSON."""
    return {name: hint for name, hint in _hints(kind).items() if _form(hint)[1] is not None}


def built(hint: Any, value: Any, key: str = "") -> Any:
    """Return a value from JSON in the type of a hint: dataclasses from objects, tuples from lists.

    Raises TypeError, naming the key, if a value should be a list or an object and is not, or if a
    field of a dataclass is unknown or missing. Other types are not checked: see `check_fields`.
    """
    kind, form, nullable = _form(hint)
    if form is None or (nullable and value is None):
        return value
    if form is tuple:
        if not isinstance(value, list):
            raise TypeError(mistyped(key, "a list", value))
        inner = get_args(kind)[0]
        return tuple(built(inner, item, f"{key}[{i}]") for i, item in enumerate(value))
    if not isinstance(value, dict):
        raise TypeError(mistyped(key, "an object", value))
    hints = _nested(kind) if form is object else dict.fromkeys(value, get_args(kind)[1])
    prefix = f"{key}." if key else ""
    items = {
        name: built(inner, value[name], prefix + name)
        for name, inner in hints.items()
        if name in value
    }
    return kind(**value | items) if form is object else items


def check_fields(items: Iterable[Any]) -> None:
    """Check the fields of instances of one dataclass, and of the dataclasses in these fields.

    Raises ValueError, naming field and dataclass, for a value whose type its hint does not have.
    """
    items = list(items)
    if not items:
        return
    kind: Any = type(items[0])
    for name, hint in _hints(kind).items():
        key, values = f"{name} of {kind.__name__}", list(map(attrgetter(name), items))
        _check_each(values, _options(hint), key)
        if get_origin(hint) is tuple:
            values, hint = [entry for value in values for entry in value], get_args(hint)[0]
            _check_each(values, (hint,), key)
        if any(map(is_dataclass, _options(hint))):
            check_fields(value for value in values if value is not None)


def _check_each(values: Sequence[object], hints: Sequence[Any], key: str) -> None:
    types = {dict if get_origin(h) is Mapping else get_origin(h) or h for h in hints}
    for wrong in set(map(type, values)) - types:
        value = next(value for value in values if type(value) is wrong)
        names = ("null" if kind is NoneType else kind.__name__ for kind in types)
        raise ValueError(mistyped(key, " or ".join(sorted(names)), value))


def mistyped(key: str, expected: str, value: object) -> str:
    """Return the message for a value of a wrong type; `value` is cut to a readable length.

    >>> mistyped("commit", "int", "two")
    "commit: expected int, received 'two' (str)"
    """
    shown = repr(value)
    if len(shown) > _LONGEST:
        shown = f"{shown[: _LONGEST - 1]}…"
    shown = "null" if value is None else f"{shown} ({type(value).__name__})"
    return f"{key}: expected {expected}, received {shown}"
