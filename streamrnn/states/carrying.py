"""The states of one model that the states of another continue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from streamrnn.errors import StateError
from streamrnn.states.layout import Layout


def carried_states(
    table: pa.Table, layout: Layout, mapping: Mapping[str, str], where: str
) -> dict[str, str]:
    """Find the column of another model's table for each state of `layout`: name -> column.

    `mapping` is layer -> layer, as in `[state] map`; a state that it leaves out keeps its name.
    Raises StateError, with what differs alone, where a state has no column of its size, or (without
    `mapping`) a column is taken by no state.
    """
    there = state_sizes(table.schema)
    origins = {name: origin_of(name, mapping) or name for name in layout.states}
    lines = [
        f"  {name}: {layout.states[name]} values in the new model, "
        + (f"{there[origin]} in {origin!r}" if origin in there else f"no state {origin!r} before")
        for name, origin in origins.items()
        if there.get(origin) != layout.states[name]
    ]
    left = [name for name in there if name not in origins.values()]
    if not mapping:
        lines += [f"  {name}: {there[name]} values before, no such state now" for name in left]
    if lines:
        raise StateError(
            f"{where}: the new model has other states:\n"
            + "\n".join(lines)
            + f"\n{_advice(layout.states, there)}start over with --full-refresh."
        )
    return origins


def state_sizes(schema: pa.Schema) -> dict[str, int]:
    """Return the states that a table holds: column -> size."""
    return {f.name: f.type.list_size for f in schema if pa.types.is_fixed_size_list(f.type)}


def origin_of(name: str, mapping: Mapping[str, str]) -> str | None:
    """Return the state that `mapping` (layer -> layer) gives a state; None if it has none."""
    ours = [layer for layer in mapping if name == layer or name.startswith(f"{layer}/")]
    if not ours:
        return None
    nearest = max(ours, key=len)
    return mapping[nearest] + name[len(nearest) :]


def _advice(now: Mapping[str, int], before: Mapping[str, int]) -> str:
    """Propose a map of layers, if their states are alike one by one."""
    ours, theirs = _layers(now), _layers(before)
    if list(ours.values()) != list(theirs.values()) or not ours:
        return "Use a model of the same sizes, or "
    pairs = ", ".join(
        f'"{mine}" = "{other}"' for mine, other in zip(ours, theirs, strict=True) if mine != other
    )
    return f"If only the layers' names differ, set [state] map = {{ {pairs} }}, or "


def _layers(states: Mapping[str, int]) -> dict[str, Sequence[tuple[str, int]]]:
    """Group states by layer: layer -> (name within it, size)."""
    found: dict[str, list[tuple[str, int]]] = {}
    for name, size in states.items():
        layer, _, state = name.rpartition("/")
        found.setdefault(layer, []).append((state, size))
    return dict(found)
