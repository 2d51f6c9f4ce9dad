"""Positions that callers give with their batches, so that none is scored twice."""

from collections.abc import Mapping, Sequence
from typing import Any

from streamrnn.base.storage.walking import natural
from streamrnn.errors import AlreadyProcessed, ConfigError, DTypeError, PositionError
from streamrnn.stream.states.positions import CallPosition, Item, plain_item


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
    last = _copy(last)  # errors have it
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
