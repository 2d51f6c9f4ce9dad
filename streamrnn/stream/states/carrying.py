"""Which states of a new model continue which states of the old one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from streamrnn.base.display import closest
from streamrnn.errors import StateError
from streamrnn.stream.states.incoming import json_object
from streamrnn.stream.states.layout import Layout


class CarryAdvice(NamedTuple):
    """What a message advises where states cannot be carried.

    `map`: how to pass a map of layers; `otherwise`: what to do without one.
    """

    map: Callable[[dict[str, str]], str]
    otherwise: str


def _toml_map(layers: dict[str, str]) -> str:
    pairs = ", ".join(f'"{layer}" = "{origin}"' for layer, origin in layers.items())
    return f"set [state] map = {{ {pairs} }}"


FOR_RUNS = CarryAdvice(_toml_map, "start over with --full-refresh.")


def carried_states(
    table: pa.Table,
    layout: Layout,
    mapping: Mapping[str, str],
    owner: str,
    advice: CarryAdvice = FOR_RUNS,
) -> dict[str, str]:
    """Find the column of another model's table for each state of `layout`: name -> column.

    `mapping` is layer -> layer, as in `[state] map`. A state that it leaves out keeps its name. So
    does one whose origin the table lacks, if the table has its name: the map was for an earlier
    change.

    Raises StateError that lists only the differences if a state has no column of its size and
    class or, without `mapping`, if there is a column that no state takes.
    """
    available = state_sizes(table.schema)
    origins = {name: name for name in layout.states}
    for name in layout.states:
        origin = origin_of(name, mapping)
        if origin is not None and (origin in available or name not in available):
            origins[name] = origin
    lines = differing_classes(table, layout, origins, owner)
    lines += [
        f"  {name}: {layout.states[name]} values in the new model, "
        + (
            f"{available[origin]} in {origin!r} of the old one"
            if origin in available
            else f"but the old model has no state {origin!r}"
        )
        for name, origin in origins.items()
        if available.get(origin) != layout.states[name]
    ]
    left = [name for name in available if name not in origins.values()]
    if not mapping:
        lines += [
            f"  {name}: {available[name]} values in the old model, not in the new one"
            for name in left
        ]
    if lines:
        raise StateError(
            f"{owner}: the states of the new model differ:\n"
            + "\n".join(lines)
            + f"\n{_proposal(layout, table, owner, advice)}, or {advice.otherwise}"
        )
    return origins


def differing_classes(
    table: pa.Table, layout: Layout, origins: Mapping[str, str], owner: str
) -> list[str]:
    """Return a line for each state that would continue a state of another class of layer.

    States whose class is unknown pass.
    """
    classes = json_object(table, "classes", owner)
    return [
        f"  {name}: a state of {layout.classes[name]} in the new model, of {classes[origin]} in "
        f"{origin!r} of the old one"
        for name, origin in origins.items()
        if layout.classes.get(name, "") != classes.get(origin, "")
        if name in layout.classes and origin in classes
    ]


def check_origins(mapping: Mapping[str, str], schema: pa.Schema, owner: str) -> None:
    """Raise StateError if an origin in `mapping` (layer -> layer) has no state in a table.

    `schema` is the schema of the table that `owner` names. A table without states of layers passes.
    """
    states = state_sizes(schema)
    layers = sorted({name.rpartition("/")[0] or name for name in states})
    for layer, origin in mapping.items():
        if layers and not has_states(origin, states):
            near = closest(origin, layers)
            hint = f" Did you mean {near!r}?" if near else ""
            raise StateError(
                f"{owner}: [state] map: {layer!r} from {origin!r}: the old model has no layer "
                f"{origin!r} with a state.{hint} Expected one of {', '.join(layers)}"
            )


def has_states(layer: str, states: Iterable[str]) -> bool:
    """Return whether a layer, or a layer inside it, has one of these states."""
    return any(name == layer or name.startswith(f"{layer}/") for name in states)


def state_sizes(schema: pa.Schema) -> dict[str, int]:
    """Return the states that a table holds: column -> size."""
    return {f.name: f.type.list_size for f in schema if pa.types.is_fixed_size_list(f.type)}


def origin_of(name: str, mapping: Mapping[str, str]) -> str | None:
    """Return the origin of a state by `mapping` (layer -> layer); None if it has none."""
    layers = [layer for layer in mapping if has_states(layer, [name])]
    if not layers:
        return None
    nearest = max(layers, key=len)
    return mapping[nearest] + name[len(nearest) :]


def _proposal(layout: Layout, table: pa.Table, owner: str, advice: CarryAdvice) -> str:
    """Propose a map of layers, if the states of both models match layer by layer."""
    classes = json_object(table, "classes", owner)
    both = layout.classes and classes  # older tables have no classes
    new = _layers(layout.states, layout.classes if both else {})
    old = _layers(state_sizes(table.schema), classes if both else {})
    if list(new.values()) != list(old.values()) or not new:
        return "Use a model whose states have the same names, sizes and classes"
    pairs = {layer: origin for layer, origin in zip(new, old, strict=True) if layer != origin}
    if not pairs:
        return "Remove [state] map"
    return f"If only the layers' names differ, {advice.map(pairs)}"


def _layers(
    states: Mapping[str, int], classes: Mapping[str, str]
) -> dict[str, Sequence[tuple[str, int, str]]]:
    """Group states by layer: layer -> (name within it, size, class)."""
    layers: dict[str, list[tuple[str, int, str]]] = {}
    for name, size in states.items():
        layer, _, state = name.rpartition("/")
        layers.setdefault(layer, []).append((state, size, classes.get(name, "")))
    return dict(layers)
