"""Convert a layer's states, by key, to and from the initial states of layers of frameworks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Bools, Floats, Ints
from streamrnn.errors import ConfigError, DTypeError, ShapeError, StateError
from streamrnn.stream.sources.casts import nulls_of
from streamrnn.stream.states.files import as_table
from streamrnn.stream.states.incoming import Incoming, UnfitValueError, converted, key_names
from streamrnn.stream.states.layout import Layout
from streamrnn.stream.states.table import StateTable, from_arrow

Groups = Sequence[Mapping[str, Floats]]
StateNames = Sequence[Sequence[str]]

_FEEDS = {"h": "initial_h", "c": "initial_c"}


class Framework(NamedTuple):
    """The form in which a framework takes and returns the states of a layer.

    The states are groups, one per cell (one for a layer without stacked cells): name ("h", "c",
    "s0") -> array (B, size), in order. `arrange` makes an initial state from groups, `flatten`
    returns the arrays of states in this form, group by group. Both raise ConfigError, with the
    owner, for states that the framework cannot express; `flatten` also raises ShapeError for other
    shapes. `with_output`: the states are followed by the output that some cells hold for masked
    steps.
    """

    arrange: Callable[[Groups, str], Any]
    flatten: Callable[[Any, StateNames, str], list[Any]]
    with_output: bool = False


def _to_keras(groups: Groups, owner: str) -> list[Any]:
    nested = [list(group.values()) for group in groups]
    return nested[0] if len(nested) == 1 else nested


def _from_keras(states: Any, names: StateNames, owner: str) -> list[Any]:
    if isinstance(states, tuple | list):
        return [leaf for item in states for leaf in _from_keras(item, names, owner)]
    return [states]


def _to_torch(groups: Groups, owner: str) -> Any:
    _check_names([list(group) for group in groups], owner, "PyTorch")
    stacked = []
    for name in groups[0]:
        arrays = [group[name] for group in groups]
        if len({array.shape for array in arrays}) > 1:
            raise ConfigError(
                f"{owner}: expected states of one size in a PyTorch module, received "
                + ", ".join(str(array.shape[1]) for array in arrays)
            )
        stacked.append(np.stack(arrays))
    return stacked[0] if len(stacked) == 1 else tuple(stacked)


def _from_torch(states: Any, names: StateNames, owner: str) -> list[Any]:
    _check_names(names, owner, "PyTorch")
    stacked = list(states) if isinstance(states, tuple | list) else [states]
    if len(stacked) != len(names[0]):
        raise ShapeError(
            f"{owner}: expected {' and '.join(names[0])} of shape (num_layers, batch, size), "
            f"received {len(stacked)} arrays"
        )
    layers = [_split(array, len(names), f"{owner}: PyTorch's num_layers") for array in stacked]
    return [layer for group in zip(*layers, strict=True) for layer in group]


def _to_onnx(groups: Groups, owner: str) -> dict[str, Floats]:
    _check_names([list(group) for group in groups], owner, "ONNX")
    return {_FEEDS[name]: array[np.newaxis] for name, array in groups[0].items()}


def _from_onnx(states: Any, names: StateNames, owner: str) -> list[Any]:
    _check_names(names, owner, "ONNX")
    expected = [_FEEDS[name] for name in names[0]]
    if not isinstance(states, Mapping) or sorted(states) != sorted(expected):
        received = ", ".join(states) if isinstance(states, Mapping) else type(states).__name__
        raise ConfigError(
            f"{owner}: expected a mapping with {' and '.join(expected)}, received {received}"
        )
    return [_split(states[name], 1, f"{owner}: {name}: num_directions")[0] for name in expected]


FRAMEWORKS = {
    "keras": Framework(_to_keras, _from_keras),
    "streamrnn": Framework(_to_keras, _from_keras, with_output=True),
    "torch": Framework(_to_torch, _from_torch),
    "onnx": Framework(_to_onnx, _from_onnx),
}
"""Name of the framework -> its form, which `to_layer` describes."""


def as_floats(states: Any, owner: str) -> Floats:
    """Return float32 or float16 states as float32. Raises DTypeError for other types."""
    array = np.asarray(states)
    if array.dtype not in (np.float32, np.float16):
        raise DTypeError(
            f"{owner}: expected states in float32, received {array.dtype}. Cast them "
            "yourself, as casting may round"
        )
    return array.astype(np.float32)


def _check_names(names: StateNames, owner: str, framework: str) -> None:
    if {tuple(group) for group in names} not in ({("h",)}, {("h", "c")}):
        received = "; ".join(", ".join(group) for group in names)
        raise ConfigError(
            f"{owner}: expected the states h, or h and c, for {framework}, received {received}"
        )
    if framework == "ONNX" and len(names) > 1:
        raise ConfigError(
            f"{owner}: expected one layer for an ONNX node, received {len(names)}. "
            "Call once per layer"
        )


def _split(array: Any, layers: int, what: str) -> list[Any]:
    """Split an array (layers, B, H) into arrays (B, H)."""
    whole = np.asarray(array)
    if whole.ndim != 3 or len(whole) != layers:
        raise ShapeError(f"{what}: expected shape ({layers}, batch, size), received {whole.shape}")
    return list(whole)


_HELD = "y"
_FIRST = {"h": 0, "c": 1}
_MISSING = ("error", "initial", "zeros")


def to_layer(
    table: Any,
    layer: str | Sequence[str],
    keys: Any,
    *,
    framework: str = "keras",
    missing: str = "error",
) -> Any:
    """Return the state of B streams as the initial state of a layer; row b belongs to key b.

    `table`: a StateTable (such as the `state` of a Pipeline), or its Arrow table. `layer`: the
    name of a layer in the table, or the names of layers that form one module elsewhere, from the
    first to the last. `keys`: B values (tuples for several key columns), an Arrow array, or an
    Arrow table, record batch or DataFrame with the key columns.

    Returns float32 NumPy arrays, copies with the same bits; a state with several axes is flat.
    `framework`:

    - "keras": [h, c], each (B, units), as initial_state= of a layer here or in Keras; [h] for a
      layer with one state, [[h, c], …] for stacked cells.
    - "torch": (h, c), each (num_layers, B, H), or h alone. `torch.from_numpy` shares the memory.
    - "onnx": {"initial_h": …, "initial_c": …}, each (1, B, H), or "initial_h" alone: inputs of a
      node with layout 0. The graph may use other names.
    - "streamrnn": as "keras", followed by the output that custom cells hold for masked steps, if it
      is in the table: the argument of `set_state` of a layer.

    The order of gates does not matter, as states have none. `missing` is the state of a null key,
    and of a stream that is not in the table: "error" raises StateError, "initial" is the initial
    state of the model (StateError for an Arrow table, which does not have it), "zeros" is zeros.

    >>> import numpy as np, pyarrow as pa
    >>> from streamrnn.states import Layout
    >>> table = StateTable(Layout((pa.field("id", pa.string()),), None, {"gru/h": 2}))
    >>> slots = table.find([pa.array(["a", "b"])])
    >>> table.scatter(slots, {"gru/h": np.array([[1, 2], [3, 4]], np.float32)})
    >>> (h,) = to_layer(table, "gru", ["b", "a"])
    >>> h.tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    >>> to_layer(table, "gru", ["b"], framework="torch").shape  # (num_layers, batch, units)
    (1, 1, 2)
    >>> feed = to_layer(table, "gru", ["b", "new"], framework="onnx", missing="zeros")
    >>> feed["initial_h"].tolist()
    [[[3.0, 4.0], [0.0, 0.0]]]

    Raises StateError for a layer that is not in the table, DTypeError for keys of another type, and
    ConfigError for unknown arguments and for states that the framework cannot express.
    """
    chosen = _framework(framework, missing)
    states = table if isinstance(table, StateTable) else _part(table, _names(layer))
    groups = _groups(states.layout, _names(layer), chosen)
    named = _incoming(keys, states.layout, null_keys=True)
    slots = _slots(named, states)
    _refuse_missing(named, slots < 0, missing)
    columns = [column for group in groups for column in group.columns]
    values = _gather(states, slots, columns, missing)
    arranged = [
        {name: values[column] for name, column in zip(group.names, group.columns, strict=True)}
        for group in groups
        if group.names != [_HELD]
    ]
    initial = chosen.arrange(arranged, f"layer {layer!r}")
    held = [values[group.columns[0]] for group in groups if group.names == [_HELD]]
    return [*initial, *held] if held else initial


def from_layer(
    table: Any,
    layer: str | Sequence[str],
    keys: Any,
    states: Any,
    *,
    framework: str = "keras",
    missing: str = "error",
) -> pa.Table:
    """Return an Arrow copy of a state table in which B streams have these states of a layer.

    Arguments are as in `to_layer`. `states` has the form of what `to_layer` returns, in arrays or
    anything that `numpy.asarray` takes: the final states of a layer (for ONNX: Y_h as "initial_h",
    Y_c as "initial_c"), in float32 or float16, so that nothing is rounded. All else is copied from
    `table`, which is not changed. Set steps and last times too if the layer has seen rows. The
    output that a custom cell holds for masked steps becomes zeros unless `states` has it, as with
    initial_state=.

    `missing`: a stream that is not in the table is refused ("error"), or added with 0 steps and no
    last time, its other layers in the initial state of the model ("initial") or zeros ("zeros").

    Raises StateError as `to_layer` does, and for states that are not finite, with the stream;
    ShapeError and DTypeError for arrays of another shape or type; ConfigError as `to_layer` does.
    """
    chosen = _framework(framework, missing)
    if isinstance(table, StateTable):
        initial = table.initial_states() if table.knows_initial else None
        whole = table.to_arrow()
        target = from_arrow(whole, table.layout, initial, "the table", same_pipeline=True)
    else:
        target = StateTable.from_arrow(table)
    groups = _groups(target.layout, _names(layer), chosen)
    named = _incoming(keys, target.layout, null_keys=False)
    values = _flattened(states, groups, target.layout, chosen, named, f"layer {layer!r}")
    _refuse_missing(named, _slots(named, target) < 0, missing)
    before = len(target)
    slots = named.slots(target.find)
    new = np.arange(before, len(target))
    others = {name: n for name, n in target.layout.states.items() if name not in values}
    if len(new) and missing == "zeros":
        zeros = {name: np.zeros((len(new), size), np.float32) for name, size in others.items()}
        target.scatter(new, zeros)
    elif len(new) and others:
        target.initial_states()  # raises if the initial state is unknown; `find` has set it
    target.scatter(slots, values)
    return target.to_arrow()


def _incoming(keys: Any, layout: Layout, *, null_keys: bool) -> Incoming:
    """Return the keys of B streams as a table, from what callers pass (see `to_layer`).

    Raises DTypeError for keys in any other form, and for values whose type is not the column's.
    """
    arrays = []
    for values, field in zip(_columns(keys, layout.keys), layout.keys, strict=True):
        try:
            whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
            if isinstance(whole, pa.Array):
                arrays.append(converted(whole, field.type))
            else:
                plain = whole if isinstance(whole, np.ndarray) else list(whole)
                arrays.append(pa.array(plain, field.type))
        except (UnfitValueError, TypeError, pa.ArrowException) as error:
            message = f"keys: column {field.name!r}: expected {field.type}: {error}"
            raise DTypeError(message) from error
    table = pa.Table.from_arrays(arrays, schema=pa.schema(layout.keys))
    return Incoming(table, layout.keys, "keys", null_keys=null_keys)


def _slots(keys: Incoming, table: StateTable) -> Ints:
    """Return the slot (B,) of each key in a table, -1 if it is missing or null."""
    slots = np.full(len(keys), -1)
    index = np.flatnonzero(~np.any([nulls_of(array) for array in keys.keys], axis=0))
    slots[index] = table.lookup([array.take(pa.array(index)) for array in keys.keys])
    return slots


def _columns(keys: Any, fields: Sequence[pa.Field]) -> list[Any]:
    names = [field.name for field in fields]
    if hasattr(keys, "__arrow_c_stream__") and len(getattr(keys, "shape", ())) == 2:
        keys = as_table(keys, "keys")  # a DataFrame, over whose columns Python would iterate
    if isinstance(keys, pa.Table | pa.RecordBatch):
        if missing := [name for name in names if keys.schema.names.count(name) != 1]:
            raise StateError(
                f"keys: expected one column {missing[0]!r}, received {', '.join(keys.schema.names)}"
            )
        return [keys.column(name) for name in names]
    unordered = isinstance(keys, str | bytes | Mapping | set | frozenset)
    if unordered or not hasattr(keys, "__len__"):
        raise DTypeError(
            f"keys: expected a list of keys, an array or a table, received {type(keys).__name__}"
        )
    if len(fields) == 1:
        return [keys]
    rows = list(keys)
    for row, key in enumerate(rows):
        if not isinstance(key, tuple | list) or len(key) != len(fields):
            raise DTypeError(
                f"keys: row {row} (from 0): expected a tuple ({', '.join(names)}), received {key!r}"
            )
    return [[key[i] for key in rows] for i in range(len(fields))]


class _Group(NamedTuple):
    """The states of one cell: their names, in the order of the layer, and their columns."""

    names: list[str]
    columns: list[str]


def _framework(framework: str, missing: str) -> Framework:
    if framework not in FRAMEWORKS:
        raise ConfigError(f"framework: expected {_either(FRAMEWORKS)}, received {framework!r}")
    if missing not in _MISSING:
        raise ConfigError(f"missing: expected {_either(_MISSING)}, received {missing!r}")
    return FRAMEWORKS[framework]


def _either(names: Any) -> str:
    *others, last = (f'"{name}"' for name in names)
    return f"{', '.join(others)} or {last}"


def _names(layer: str | Sequence[str]) -> list[str]:
    return [layer] if isinstance(layer, str) else list(layer)


def _groups(layout: Layout, layers: Sequence[str], framework: Framework) -> list[_Group]:
    """Return the cells of these layers, followed by held outputs if the framework takes them."""
    groups: list[_Group] = []
    held: list[_Group] = []
    for layer in layers:
        cells: dict[tuple[int, ...], list[str]] = {}
        for column in layout.states:
            *path, name = column.removeprefix(f"{layer}/").split("/")
            if column == f"{layer}/{_HELD}":
                held.append(_Group([_HELD], [column]))
            elif column.startswith(f"{layer}/") and all(part.isdecimal() for part in path):
                cells.setdefault(tuple(map(int, path)), []).append(name)
        if not cells:
            raise StateError(
                f"the state table has no state of layer {layer!r}. Layers with a state: "
                f"{', '.join(_layers_of(layout)) or 'none'}"
            )
        for numbers, unordered in sorted(cells.items()):
            names = sorted(unordered, key=_order)
            prefix = "/".join([layer, *map(str, numbers)])
            groups.append(_Group(names, [f"{prefix}/{name}" for name in names]))
    return groups + held if framework.with_output else groups


def _order(name: str) -> tuple[int, int, str]:
    """Return a key that sorts h, c, then s0, s1, …: a table may have them in any order."""
    number = name.removeprefix("s")
    return _FIRST.get(name, 2), int(number) if number.isdecimal() else -1, name


def _layers_of(layout: Layout) -> list[str]:
    layers = []
    for column in layout.states:
        parts = column.split("/")[:-1]
        while len(parts) > 1 and parts[-1].isdecimal():
            parts.pop()
        layers.append("/".join(parts))
    return list(dict.fromkeys(layers))


def _part(table: Any, layers: Sequence[str]) -> StateTable:
    """Make a state table from the columns needed to read the states of these layers."""
    whole = as_table(table, "the table")
    keys = key_names(whole)
    needed = tuple(f"{layer}/" for layer in layers)
    columns = dict.fromkeys(
        name for name in whole.column_names if name in (*keys, "steps") or name.startswith(needed)
    )
    lean = StateTable.from_arrow(whole.select(list(columns)))
    # The error message for an unknown layer lists all layers.
    return lean if lean.layout.states else StateTable.from_arrow(whole)


def _gather(
    table: StateTable, slots: Ints, columns: Sequence[str], missing: str
) -> dict[str, Floats]:
    """Return column -> (B, size); rows without a slot get the initial state, or zeros."""
    present = slots >= 0
    rows = table.to_arrow(slots[present])
    initial = table.initial_states() if missing == "initial" and not present.all() else {}
    values = {}
    for column in columns:
        size = table.layout.states[column]
        state = np.zeros((len(slots), size), np.float32)
        state[~present] = initial.get(column, 0)
        flat = rows.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        state[present] = flat.reshape(-1, size)
        values[column] = state
    return values


def _refuse_missing(keys: Incoming, unknown: Bools, missing: str) -> None:
    if missing == "error" and unknown.any():
        raise StateError(
            f"{keys.place(int(np.argmax(unknown)))}: not in the state table "
            f"({int(unknown.sum())} of {len(keys)} streams). For new streams, set "
            'missing="initial" or missing="zeros"'
        )


def _flattened(
    states: Any,
    groups: Sequence[_Group],
    layout: Layout,
    framework: Framework,
    keys: Incoming,
    owner: str,
) -> dict[str, Floats]:
    """Check states in a framework's form, and return them as column -> (B, size)."""
    cells = [group for group in groups if group.names != [_HELD]]
    arrays = framework.flatten(states, [group.names for group in cells], owner)
    columns = [column for group in groups for column in group.columns]
    without = sum(len(group.columns) for group in cells)
    if len(arrays) not in (without, len(columns)):
        raise ShapeError(
            f"{owner}: the number of states must be {without} ({', '.join(columns[:without])}), "
            f"received {len(arrays)}"
        )
    values: dict[str, Floats] = {}
    for column, state in zip(columns, arrays, strict=False):
        array = as_floats(state, f"{owner}: {column}")
        size = layout.states[column]
        if array.ndim < 2 or len(array) != len(keys) or array.size != len(keys) * size:
            raise ShapeError(
                f"{owner}: {column}: expected shape ({len(keys)}, {size}), one row per key, "
                f"received {array.shape}"
            )
        values[column] = array.reshape(len(keys), size)
        finite = np.isfinite(values[column]).all(axis=1)
        if not finite.all():
            place = keys.place(int(np.argmin(finite)))
            raise StateError(
                f"{owner}: {place}: {column}: expected finite numbers, received NaN or infinity"
            )
    for column in layout.states:
        prefix, _, name = column.rpartition("/")
        of_layer = any(other.startswith(f"{prefix}/") for other in values)
        if name == _HELD and column not in values and of_layer:
            values[column] = np.zeros((len(keys), layout.states[column]), np.float32)
    return values
