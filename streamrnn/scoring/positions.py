"""Positions that callers give with their batches, so that none is scored twice."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from streamrnn.errors import AlreadyProcessed, ConfigError, DTypeError, PositionError
from streamrnn.storage.natural import natural

Item = int | str | bytes
CallPosition = Item | Sequence[Item] | Mapping[Any, Item]
"""An item, a list of items, or a dict from partition, an item too, to the item it has reached."""


def next_position(
    position: CallPosition | None, last: CallPosition | None, rows: int
) -> CallPosition | None:
    """Return the position after a batch of so many rows: a copy, merged with `last` if a dict.

    Raises AlreadyProcessed if it equals the last one, PositionError unless it is after it, in each
    of its partitions; DTypeError if it is of another type than before, or no position; ConfigError
    if there is none although earlier batches had one.
    """
    if position is None:
        if last is not None:
            raise ConfigError(
                f"process: expected a position, as in earlier calls (the last one: {last!r}); "
                "without one, a batch that is sent again would be scored twice"
            )
        return None
    position = _copy(position)
    if position == {} and rows:
        raise DTypeError("process: expected the position of each partition with rows, received {}")
    if last is None:
        return position
    now, before = _by_partition(position), _by_partition(last)
    if type(position) is not type(last) or not _are_alike(now, before):
        raise DTypeError(
            f"process: expected a position like {last!r}, as in earlier calls, received "
            f"{position!r}"
        )
    steps = {_step(before[name], now[name]) if name in before else 1 for name in now}
    if steps == {0}:
        raise AlreadyProcessed(position, last)
    if not steps <= {1}:
        raise PositionError(position, last)
    if isinstance(position, dict) and isinstance(last, dict):
        return {**last, **position}
    return position


def _copy(position: object) -> CallPosition:
    """Return a position of Python's own types. Raises DTypeError for anything else."""
    try:
        if isinstance(position, Mapping):
            return {_item(name): _item(item) for name, item in position.items()}
        if isinstance(position, list | tuple) and position:
            return [_item(item) for item in position]
        return _item(position)
    except TypeError:
        raise DTypeError(
            "process: expected a position that is an integer, a string, bytes, a list of these, or "
            f"a dict from partition to one of these, received {position!r:.80}"
        ) from None


def _item(item: object) -> Item:
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        return int(item)
    if isinstance(item, str):
        return str.__str__(item)  # of a subclass, too: the text itself
    if isinstance(item, bytes):
        return bytes(item)
    raise TypeError(f"expected a position, received {item!r:.80}")


def _by_partition(position: CallPosition) -> Mapping[Any, Sequence[Item]]:
    """Return the items of each partition; a position that is no dict is that of a single one."""
    if isinstance(position, Mapping):
        return {name: [item] for name, item in position.items()}
    return {None: [position] if isinstance(position, Item) else position}


def _are_alike(now: Mapping[Any, Sequence[Item]], before: Mapping[Any, Sequence[Item]]) -> bool:
    """Whether partitions that are in both have items of the same types.

    JSON makes texts of integers that are partitions: such a one is not taken for a new partition.
    """
    new = {_text(name) for name in now if name not in before}
    return new.isdisjoint(map(_text, before)) and all(
        [type(item) for item in items] == [type(item) for item in before.get(name, items)]
        for name, items in now.items()
    )


def _text(name: Item | None) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _step(before: Sequence[Item], now: Sequence[Item]) -> int:
    """Return 1 if `now` is after `before`, -1 if it comes before it, 0 if they are equal."""
    first, second = (
        [(natural(item), item) if isinstance(item, str) else item for item in items]
        for items in (before, now)
    )
    return (second > first) - (second < first)


def to_json(position: CallPosition | None) -> object:
    """Encode a position for `from_json`."""
    if position is None or isinstance(position, int | str):
        return position
    if isinstance(position, bytes):
        return {"bytes": base64.b64encode(position).decode()}
    if isinstance(position, Mapping):
        pairs = [[to_json(name), to_json(item)] for name, item in position.items()]
        return {"partitions": sorted(pairs, key=str)}
    return [to_json(item) for item in position]


def from_json(value: object) -> CallPosition | None:
    """Decode what `to_json` encoded; raises ValueError, LookupError or TypeError otherwise."""
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict) and "partitions" in value:
        return {_from_json(name): _from_json(item) for name, item in value["partitions"]}
    return None if value is None else _from_json(value)


def _from_json(value: object) -> Item:
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"], validate=True)
    return _item(value)
