"""The layout of a state table that stands alone, from its columns and metadata."""

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import StateError
from streamrnn.stream.states.incoming import json_object, key_names, meta
from streamrnn.stream.states.layout import MATRIX, Layout
from streamrnn.stream.states.lossless import is_list


def inferred_layout(table: pa.Table, label: str) -> Layout:
    """Infer the layout of `table`, whose types may be those of another library (see `lossless`).

    The window size is not in the table: any number of rows may wait. Raises StateError, with
    `label`, for a table without streamrnn's metadata and for a column that no state table has.
    """
    keys = key_names(table, label)
    states: dict[str, int] = {}
    previous: dict[str, pa.DataType] = {}
    waiting: dict[str, pa.DataType] = {}
    time: pa.DataType | None = None
    pending: tuple[pa.Field, ...] = ()
    most = 0
    for field in table.schema:
        name, kind = field.name, field.type
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
            most = max(most, _longest(table, name))
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
    )


def _list_size(column: pa.ChunkedArray, name: str, label: str) -> int:
    """Return the size of the lists of a column, by its type or else by its first list."""
    if pa.types.is_fixed_size_list(column.type):
        return int(column.type.list_size)
    sizes = pc.list_value_length(column).drop_null()
    if not len(sizes):
        raise StateError(
            f"{label}: column {name!r}: expected lists of a fixed size, received {column.type} "
            "without values, whose size is unknown. Cast it"
        )
    return int(sizes[0].as_py())


def _waiting_type(table: pa.Table, name: str, feature: str, label: str) -> pa.DataType:
    """Return the type of one waiting value."""
    kind = table.schema.field(name).type
    if not is_list(kind):
        raise StateError(f"{label}: column {name!r}: expected lists, received {kind}")
    if feature != MATRIX:
        return _value_type(kind.value_type)
    if not is_list(kind.value_type):
        raise StateError(f"{label}: column {name!r}: expected lists of lists, received {kind}")
    return pa.list_(pa.float32(), _list_size(pc.list_flatten(table.column(name)), name, label))


def _longest(table: pa.Table, name: str) -> int:
    return int(pc.max(pc.list_value_length(table.column(name))).as_py() or 0)


def _value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which a value of a feature is kept."""
    if pa.types.is_floating(kind):
        return pa.float32()
    return pa.int64() if pa.types.is_integer(kind) else pa.string()
