"""The columns of a state table, and which of them continue states of another model."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Array, Ints
from streamrnn.base.display import closest
from streamrnn.errors import ConfigError, StateError
from streamrnn.stream.sources.casts import numpy_type
from streamrnn.stream.states.incoming import is_list, json_object, key_names, meta

FORMAT_VERSION = "1"
MATRIX = "features"


@dataclass(frozen=True)
class Layout:
    """The columns stored for each stream.

    `states` maps a state's name (`lstm/h`) to its size; `previous` maps a feature, if its last
    value is kept, to the Arrow type of the value; `waiting` maps an input that waits for its window
    (kind independent) to the type of one row: at most `waiting_rows` rows wait, for windows every
    `stride` rows (`stride` 0: any number up to `waiting_rows` may wait); `pending` are the fields
    of the final row, which is not written yet; `classes` maps a state's name to the class of its
    cell or layer, if it is known, and `types` maps it to the type of its numbers, if that is not
    float32. `moments`: the fingerprint of the model without [output] quantiles; "" if these are not
    set.
    """

    keys: tuple[pa.Field, ...]
    time: pa.DataType | None
    states: Mapping[str, int]
    previous: Mapping[str, pa.DataType] = field(default_factory=dict)
    waiting: Mapping[str, pa.DataType] = field(default_factory=dict)
    waiting_rows: int = 0
    stride: int = 0
    pending: tuple[pa.Field, ...] = ()
    fingerprint: str = ""
    layers: Mapping[str, object] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    moments: str = ""

    def __post_init__(self) -> None:
        names = [f.name for f in self._state_fields()]
        if duplicates := [name for name, times in Counter(names).items() if times > 1]:
            raise ConfigError(
                f"a state of the model has the name of a column of the state table: "
                f"{duplicates[0]!r}. Rename the layer"
            )
        if clash := [f.name for f in self.keys if f.name in names]:
            raise ConfigError(
                f"[source] key: column {clash[0]!r} has the name of a column of the state table "
                f"({', '.join(names[:4])}, …). Rename it in the source"
            )

    @classmethod
    def of(cls, schema: pa.Schema, waiting_rows: int, stride: int) -> "Layout":
        """Return the layout with this `schema`."""
        layout = inferred_layout(schema.empty_table(), "the schema")
        kinds = {name: schema.field(name).type.value_type for name in layout.states}
        types = {name: kind for name, kind in kinds.items() if kind != pa.float32()}
        return replace(layout, waiting_rows=waiting_rows, stride=stride, types=types)

    def state_type(self, name: str) -> pa.FixedSizeListType:
        """Return the type of the column of a state: a list of `states[name]` numbers."""
        return pa.list_(self.types.get(name, pa.float32()), self.states[name])

    def empty_states(self, rows: int) -> dict[str, Array]:
        """Allocate states of `rows` streams: name -> (rows, size), with undefined values."""
        return {
            name: np.empty((rows, size), numpy_type(self.state_type(name).value_type))
            for name, size in self.states.items()
        }

    def schema(self) -> pa.Schema:
        """Return the Arrow schema of the table."""
        metadata = {
            b"streamrnn.format_version": FORMAT_VERSION,
            b"streamrnn.fingerprint": self.fingerprint,
            b"streamrnn.layers": json.dumps(self.layers, sort_keys=True),
            b"streamrnn.keys": json.dumps([f.name for f in self.keys]),
        }
        if self.classes:
            metadata[b"streamrnn.classes"] = json.dumps(self.classes, sort_keys=True)
        if self.moments:
            metadata[b"streamrnn.moments"] = self.moments
        keys = [pa.field(f.name, f.type) for f in self.keys]
        return pa.schema([*keys, *self._state_fields()], metadata)

    def _state_fields(self) -> list[pa.Field]:
        fields = [pa.field("steps", pa.int64())]
        if self.time is not None:
            fields.append(pa.field("last_time", self.time))
        fields += [pa.field(name, self.state_type(name)) for name in self.states]
        fields += [pa.field(f"previous/{n}", kind) for n, kind in self.previous.items()]
        fields += [pa.field(f"waiting/{n}", pa.list_(kind)) for n, kind in self.waiting.items()]
        if self.pending:
            fields.append(pa.field("pending", pa.struct(self.pending)))
        return fields


def waiting_after(steps: Ints, window: int, stride: int) -> Ints:
    """Return how many rows (S,) wait after `steps` (S,) steps, for windows of `window` rows."""
    done = np.maximum((steps - window) // stride + 1, 0)
    waiting: Ints = np.maximum(steps - done * stride, 0)
    return waiting


def inferred_layout(table: pa.Table, label: str) -> Layout:
    """Infer the layout of a table that stands alone, from its columns and metadata.

    The table's types may come from another library (see `incoming`). The size of windows is not in
    it: `stride` is 0, and `waiting_rows` is the largest number of rows that wait. Raises
    StateError, with `label`, for a table without streamrnn's metadata and for a column that no
    state table has.
    """
    keys = key_names(table, label)
    states: dict[str, int] = {}
    previous: dict[str, pa.DataType] = {}
    waiting: dict[str, pa.DataType] = {}
    time: pa.DataType | None = None
    pending: tuple[pa.Field, ...] = ()
    most = 0
    for column in table.schema:
        name, kind = column.name, column.type
        if name in keys or name == "steps":
            continue
        if name == "last_time":
            time = kind
        elif name == "pending" and pa.types.is_struct(kind):
            pending = tuple(kind)
        elif name.startswith("previous/") and not is_list(kind):
            previous[name.removeprefix("previous/")] = _value_type(kind)
        elif name.startswith("waiting/") and not pa.types.is_fixed_size_list(kind):
            feature = name.removeprefix("waiting/")
            waiting[feature] = _waiting_type(table, name, feature, label)
            most = max(most, pc.max(pc.list_value_length(table.column(name))).as_py() or 0)
        elif is_list(kind):
            states[name] = _list_size(table.column(name), name, label)
        else:
            raise StateError(
                f"{label}: column {name!r} ({kind}) is not a column of a state table. Drop it"
            )
    return Layout(
        keys=tuple(table.schema.field(name) for name in keys),
        time=time,
        states=states,
        previous=previous,
        waiting=waiting,
        waiting_rows=most,
        pending=pending,
        fingerprint=meta(table, "fingerprint"),
        layers=json_object(table, "layers", label),
        classes=json_object(table, "classes", label),
        moments=meta(table, "moments"),
    )


def _list_size(column: pa.ChunkedArray, name: str, label: str) -> int:
    """Return the size of the lists in a column, from the column's type or else its first list."""
    if pa.types.is_fixed_size_list(column.type):
        return int(column.type.list_size)
    sizes = pc.list_value_length(column).drop_null()
    if not len(sizes):
        raise StateError(
            f"{label}: column {name!r}: expected lists of a fixed size, received {column.type} "
            "without values, whose size is unknown. Cast the column"
        )
    return int(sizes[0].as_py())


def _waiting_type(table: pa.Table, name: str, feature: str, label: str) -> pa.DataType:
    kind = table.schema.field(name).type
    if not is_list(kind):
        raise StateError(f"{label}: column {name!r}: expected lists, received {kind}")
    if feature != MATRIX:
        return _value_type(kind.value_type)
    if not is_list(kind.value_type):
        raise StateError(f"{label}: column {name!r}: expected lists of lists, received {kind}")
    return pa.list_(pa.float32(), _list_size(pc.list_flatten(table.column(name)), name, label))


def _value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which a value of a feature is kept."""
    if pa.types.is_floating(kind):
        return pa.float32()
    return pa.int64() if pa.types.is_integer(kind) else pa.string()


class Held(NamedTuple):
    """Rows to write at the end of the run (None: there are none); row i belongs to `slots[i]`."""

    slots: Ints
    rows: pa.RecordBatch | None

    def taken(self, slots: Ints) -> "Held":
        """Return the rows of `slots` (ascending); each gets its index in `slots` as its slot."""
        chosen = np.flatnonzero(np.isin(self.slots, slots))
        rows = None if self.rows is None else self.rows.take(pa.array(chosen))
        return Held(np.searchsorted(slots, self.slots[chosen]), rows)


class CarryAdvice(NamedTuple):
    """Advice if states cannot be carried: how to pass a map of layers, and what else to do."""

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

    `mapping` is layer -> layer, as in `[state] map`. A state that `mapping` leaves out keeps its
    name; so does a state whose origin the table lacks, if the table has a state of that name: the
    map was for an earlier change. Raises StateError, with the differences, if a state has no column
    of its size and class or, without `mapping`, if the table has a state that would be left over.
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
    if not mapping:
        lines += [
            f"  {name}: {size} values in the old model, not in the new one"
            for name, size in available.items()
            if name not in origins.values()
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
    """Return a line for each state that would continue a state of a layer of another class.

    States of unknown class are left out.
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
    """Raise StateError if an origin in `mapping` (layer -> layer) has no state in the table.

    A table without states of layers passes.
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
    """Propose a map of layers if the states of both models match layer by layer, else a change."""
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
) -> Mapping[str, Sequence[tuple[str, int, str]]]:
    """Group states by layer: layer -> (name within it, size, class)."""
    layers: dict[str, list[tuple[str, int, str]]] = {}
    for name, size in states.items():
        layer, _, state = name.rpartition("/")
        layers.setdefault(layer, []).append((state, size, classes.get(name, "")))
    return layers
