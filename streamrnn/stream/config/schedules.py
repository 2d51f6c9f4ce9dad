"""The key [train] schedule: a name, or a table with a name and the numbers of that schedule."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from streamrnn.stream.config.problems import did_you_mean, received


def _share(value: Any) -> bool:
    return type(value) is float and 0 < value < 1


def _shares(value: Any) -> bool:
    listed = isinstance(value, list | tuple) and len(value) > 0 and all(map(_share, value))
    return listed and sorted(set(value)) == list(value)


def _factor(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= 1


def _rate(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _count(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**31


_NUMBER = {"type": "number"}
_KEYS: dict[str, tuple[Callable[[Any], bool], str, dict[str, Any]]] = {
    "warmup": (_share, "a share of the training, between 0 and 1", _NUMBER),
    "factor": (_factor, "a number above 0, at most 1", _NUMBER),
    "at": (
        _shares,
        "shares of the training between 0 and 1, in rising order, such as [0.5, 0.75]",
        {"type": "array", "items": _NUMBER},
    ),
    "patience": (_count, "a number of epochs from 1", {"type": "integer", "minimum": 1}),
    "min_rate": (_rate, "a number from 0", _NUMBER),
}
SCHEDULE_KEYS: dict[str, Mapping[str, Any]] = {
    "constant": {},
    "cosine": {},
    "exponential": {"factor": 0.01},
    "step": {"at": (0.5, 0.75), "factor": 0.1},
    "plateau": {"factor": 0.5, "patience": 3, "min_rate": 0.0},
}
"""The keys of each schedule and their defaults; each may have warmup, too."""


def _schedule(value: Any) -> Any:
    table = {"name": value} if isinstance(value, str) else value
    name = table.get("name") if isinstance(table, Mapping) else None
    if not isinstance(name, str) or name not in SCHEDULE_KEYS:
        found = value if name is None else name
        hint = did_you_mean(name, SCHEDULE_KEYS) if isinstance(name, str) else ""
        raise ValueError(
            f"expected one of {', '.join(SCHEDULE_KEYS)}, or a table such as "
            f'{{ name = "cosine", warmup = 0.1 }}, received {received(found)}{hint}'
        )
    known = ["name", *SCHEDULE_KEYS[name], "warmup"]
    for key, given in table.items():
        if key not in known:
            raise ValueError(
                f"{key}: unknown key of schedule {name}{did_you_mean(key, known)} (known here: "
                f"{', '.join(known[1:])})"
            )
        if key != "name" and not _KEYS[key][0](given):
            raise ValueError(f"{key}: expected {_KEYS[key][1]}, received {received(given)}")
    listed = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    return name if list(listed) == ["name"] else listed


Schedule = Annotated[
    str | dict[str, Any],
    BeforeValidator(_schedule),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(SCHEDULE_KEYS)},
                {
                    "type": "object",
                    "properties": {
                        "name": {"enum": list(SCHEDULE_KEYS)},
                        **{key: schema for key, (_, _, schema) in _KEYS.items()},
                    },
                    "required": ["name"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""A name, or a table with a name and at least one other key."""


def whole_schedule(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a schedule as a table with all its keys.

    >>> whole_schedule("exponential")
    {'name': 'exponential', 'warmup': 0.0, 'factor': 0.01}
    """
    table = {"name": value} if isinstance(value, str) else dict(value)
    return {"name": table["name"], "warmup": 0.0, **SCHEDULE_KEYS[table["name"]], **table}
