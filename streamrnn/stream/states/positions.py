"""The position of the last batch that a state has, in JSON: in checkpoints and manifests."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streamrnn.errors import StateError
from streamrnn.stream.states.incoming import meta

Item = int | str | bytes
CallPosition = Item | Sequence[Item] | Mapping[Any, Item]
"""An item, a list of items, or a dict from partition, an item too, to the item it has reached."""
PositionPairs = tuple[tuple[object, object], ...]
"""A position for JSON: pairs of a partition (null: there are none) and the position there."""


def last_position(table: pa.Table, label: str) -> CallPosition | None:
    """Return the position in a checkpoint of `process`; None if it has none, or is none.

    Raises StateError if it is damaged; `label` names it.
    """
    try:
        return from_json(json.loads(meta(table, "session") or "{}").get("positions", ()))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StateError(
            f"{label}: the position in its metadata is damaged: {error}. Write the checkpoint "
            "again."
        ) from error


def plain_item(item: object) -> Item:
    """Return an item of Python's own types. Raises TypeError for anything else."""
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        return int(item)
    if isinstance(item, str):
        return str.__str__(item)  # of a subclass, too: the text itself
    if isinstance(item, bytes):
        return bytes(item)
    raise TypeError(f"expected a position, received {item!r:.80}")


def to_json(position: CallPosition | None) -> PositionPairs:
    """Encode a position for `from_json`; without one there are no pairs."""
    if position is None:
        return ()
    if isinstance(position, Mapping):
        pairs = [(_to_json(name), _to_json(item)) for name, item in position.items()]
        return tuple(sorted(pairs, key=str))
    if isinstance(position, int | str | bytes):
        return ((None, _to_json(position)),)
    return ((None, [_to_json(item) for item in position]),)


def from_json(pairs: Iterable[Sequence[object]]) -> CallPosition | None:
    """Decode what `to_json` encoded; raises ValueError, LookupError or TypeError otherwise."""
    found = {_partition(name): position for name, position in pairs}
    if None not in found:
        return {name: _from_json(item) for name, item in found.items()} or None
    (position,) = found.values()
    if isinstance(position, list):
        return [_from_json(item) for item in position]
    return _from_json(position)


def _partition(value: object) -> Item | None:
    return None if value is None else _from_json(value)


def _to_json(item: Item) -> object:
    return {"bytes": base64.b64encode(item).decode()} if isinstance(item, bytes) else item


def _from_json(value: object) -> Item:
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"], validate=True)
    return plain_item(value)
