"""The columns of a state table."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Ints
from streamrnn.errors import ConfigError

FORMAT_VERSION = "1"
MATRIX = "features"


@dataclass(frozen=True)
class Layout:
    """The columns stored for each stream.

    `states` maps a state's name (`lstm/h`) to its size; `previous` maps a feature whose last value
    is carried to its Arrow type; `waiting` maps an input that waits for its window (kind
    independent) to the type of one row, with at most `waiting_rows` rows, for windows every
    `stride` rows (0: any number may wait); `pending` are the fields of the final row that has not
    been written; `classes` maps a state's name to the class of its cell or layer, if it is known.
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
        metadata = schema.metadata
        keys = json.loads(metadata[b"streamrnn.keys"])
        types = {f.name: f.type for f in schema if f.name not in keys}
        pending = types.get("pending")
        return cls(
            keys=tuple(schema.field(name) for name in keys),
            time=types.get("last_time"),
            states={n: t.list_size for n, t in types.items() if pa.types.is_fixed_size_list(t)},
            previous=_below("previous/", types),
            waiting={n: t.value_type for n, t in _below("waiting/", types).items()},
            waiting_rows=waiting_rows,
            stride=stride,
            pending=tuple(pending) if pending is not None else (),
            fingerprint=metadata[b"streamrnn.fingerprint"].decode(),
            layers=json.loads(metadata[b"streamrnn.layers"]),
            classes=json.loads(metadata.get(b"streamrnn.classes", b"{}")),
        )

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
        keys = [pa.field(f.name, f.type) for f in self.keys]
        return pa.schema([*keys, *self._state_fields()], metadata)

    def _state_fields(self) -> list[pa.Field]:
        fields = [pa.field("steps", pa.int64())]
        if self.time is not None:
            fields.append(pa.field("last_time", self.time))
        for name, size in self.states.items():
            fields.append(pa.field(name, pa.list_(pa.float32(), size)))
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


def _below(prefix: str, fields: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """Return the fields with a prefix, without it. Fixed-size lists are states, of any name."""
    return {
        name.removeprefix(prefix): kind
        for name, kind in fields.items()
        if name.startswith(prefix) and not pa.types.is_fixed_size_list(kind)
    }
