"""Positions that callers pass with their batches, so that no batch is scored twice.

Checkpoints and manifests store, in JSON, the position of the last batch that is in the state.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streamrnn.base.storage.store import natural
from streamrnn.errors import AlreadyProcessed, ConfigError, DTypeError, PositionError, StateError
from streamrnn.stream.states.incoming import meta

Item = int | str | bytes
CallPosition = Item | Sequence[Item] | Mapping[Any, Item]
"""An item, a list of items, or a dict: partition (an item) -> the item that it has reached."""
PositionPairs = tuple[tuple[object, object], ...]
"""A position for JSON: pairs of a partition (null: there are none) and the position there."""


def last_position(table: pa.Table, label: str) -> CallPosition | None:
    """Return the position in a checkpoint of `process`, None without one. Raises StateError."""
    try:
        return from_json(json.loads(meta(table, "session") or "{}").get("positions", ()))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StateError(
            f"{label}: the position in its metadata is damaged: {error}. Write the checkpoint "
            "again."
        ) from error


def plain_item(item: object) -> Item:
    """Return an item as a plain int, str or bytes.

    Raises TypeError for any other type, including bool.
    """
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        return int(item)
    if isinstance(item, str):
        return str.__str__(item)  # also for a subclass: the plain text
    if isinstance(item, bytes):
        return bytes(item)
    raise TypeError(f"expected a position, received {item!r:.80}")


def to_json(position: CallPosition | None) -> PositionPairs:
    """Encode a position for `from_json`; None has no pairs."""
    if position is None:
        return ()
    if isinstance(position, Mapping):
        pairs = [(_to_json(name), _to_json(item)) for name, item in position.items()]
        return tuple(sorted(pairs, key=str))
    if isinstance(position, int | str | bytes):
        return ((None, _to_json(position)),)
    return ((None, [_to_json(item) for item in position]),)


def from_json(pairs: Iterable[Sequence[object]]) -> CallPosition | None:
    """Decode what `to_json` encoded. Raises ValueError, LookupError, TypeError for other values."""
    positions = {None if name is None else _from_json(name): position for name, position in pairs}
    if None not in positions:
        return {name: _from_json(item) for name, item in positions.items()} or None
    (position,) = positions.values()
    if isinstance(position, list):
        return [_from_json(item) for item in position]
    return _from_json(position)


def _to_json(item: Item) -> object:
    return {"bytes": base64.b64encode(item).decode()} if isinstance(item, bytes) else item


def _from_json(value: object) -> Item:
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"], validate=True)
    return plain_item(value)


def next_position(
    position: CallPosition | None, last: CallPosition | None, rows: int
) -> CallPosition | None:
    """Return the position after a batch: a copy, merged with `last` if it is a dict.

    Raises AlreadyProcessed if `position` equals `last` in each of its partitions, otherwise
    PositionError unless it is after `last` in each; DTypeError if it is not a position, is {} for a
    batch with rows, or has another type than `last`; ConfigError if it is None but `last` is not.
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
    last = _copy(last)  # errors keep this copy
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
    """Return a position with items of Python's own types. Raises DTypeError for anything else."""
    try:
        if isinstance(position, Mapping):
            return {plain_item(name): plain_item(item) for name, item in position.items()}
        if isinstance(position, list | tuple) and position:
            return [plain_item(item) for item in position]
        return plain_item(position)
    except TypeError:
        raise DTypeError(
            "process: expected a position that is an integer, a string, bytes, a list of these, or "
            f"a dict from partition to one of these, received {position!r:.80}"
        ) from None


def _by_partition(position: CallPosition) -> Mapping[Any, Sequence[Item]]:
    """Return the items of each partition; a position that is not a dict has a single one."""
    if isinstance(position, Mapping):
        return {name: [item] for name, item in position.items()}
    return {None: [position] if isinstance(position, Item) else position}


def _are_alike(now: Mapping[Any, Sequence[Item]], before: Mapping[Any, Sequence[Item]]) -> bool:
    """Return whether partitions that are in both have items of the same types.

    A new partition must also differ from all earlier ones as text.
    """
    # JSON turns integers into text.
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
