"""The position of the last batch that a state has, in JSON: in checkpoints and manifests."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streamrnn.errors import StateError
from streamrnn.states.incoming import meta

Item = int | str | bytes
CallPosition = Item | Sequence[Item] | Mapping[Any, Item]
"""An item, a list of items, or a dict from partition, an item too, to the item it has reached."""


def last_position(table: pa.Table, label: str) -> CallPosition | None:
    """Return the position in a checkpoint of `process`; None if it has none, or is none.

    Raises StateError if it is damaged; `label` names it.
    """
    try:
        return from_json(json.loads(meta(table, "session") or "{}").get("position"))
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
    return plain_item(value)
