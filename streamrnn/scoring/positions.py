"""Positions that callers give with their batches, so that none is scored twice."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from streamrnn.errors import AlreadyProcessed, ConfigError, DTypeError

Item = int | str | bytes
CallPosition = Item | Sequence[Item]
"""An integer, a string, bytes, or a list of these, which is compared item by item."""


def next_position(position: CallPosition | None, last: CallPosition | None) -> CallPosition | None:
    """Check the position of a batch against that of the last one; return a copy of it.

    Raises AlreadyProcessed unless it is greater; DTypeError if it is of another type than before,
    or no position; ConfigError if there is none although earlier batches had one.
    """
    if position is None:
        if last is not None:
            raise ConfigError(
                f"process: expected a position, as in earlier calls (the last one: {last!r}); "
                "without one, a batch that is sent again would be scored twice"
            )
        return None
    items = _items(position)
    copy = position if isinstance(position, Item) else list(items)
    if last is None:
        return copy
    before = _items(last)
    if isinstance(position, Item) != isinstance(last, Item) or _types(items) != _types(before):
        raise DTypeError(
            f"process: expected a position like {last!r}, as in earlier calls, received "
            f"{position!r}"
        )
    if not items > before:
        raise AlreadyProcessed(position, last)
    return copy


def _items(position: object) -> tuple[Item, ...]:
    """Return the items of a position, one unless it is a list. Raises DTypeError."""
    items = tuple(position) if isinstance(position, list | tuple) else (position,)
    if not items or not all(isinstance(i, Item) and not isinstance(i, bool) for i in items):
        raise DTypeError(
            "process: expected a position that is an integer, a string, bytes, or a list of these, "
            f"received {position!r:.80}"
        )
    return items


def _types(items: tuple[Item, ...]) -> list[type]:
    return [next(kind for kind in (int, str, bytes) if isinstance(i, kind)) for i in items]


def to_json(position: CallPosition | None) -> object:
    """Encode a position for `from_json`."""
    if position is None or isinstance(position, int | str):
        return position
    if isinstance(position, bytes):
        return {"bytes": base64.b64encode(position).decode()}
    return [to_json(item) for item in position]


def from_json(found: object) -> CallPosition | None:
    """Decode what `to_json` encoded; raises ValueError, LookupError or TypeError otherwise."""
    if isinstance(found, list):
        return [_item(item) for item in found]
    return None if found is None else _item(found)


def _item(found: object) -> Item:
    if isinstance(found, dict):
        return base64.b64decode(found["bytes"], validate=True)
    if isinstance(found, int | str) and not isinstance(found, bool):
        return found
    raise TypeError(f"expected a position, received {found!r:.80}")
