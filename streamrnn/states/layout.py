"""The columns of a state table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from streamrnn.errors import ConfigError

FORMAT_VERSION = "1"
MATRIX = "features"


@dataclass(frozen=True)
class Layout:
    """What is kept of each stream.

    `states` maps a state's name (`lstm/h`) to its size; `previous` maps a feature whose last value
    is carried to its Arrow type; `waiting` maps what waits for its window (kind fixed) to the
    type of one row of it; `pending` are the fields of the final row that is not yet written.
    """

    keys: tuple[pa.Field, ...]
    time: pa.DataType | None
    states: Mapping[str, int]
    previous: Mapping[str, pa.DataType] = field(default_factory=dict)
    waiting: Mapping[str, pa.DataType] = field(default_factory=dict)
    waiting_rows: int = 0
    pending: tuple[pa.Field, ...] = ()
    fingerprint: str = ""
    layers: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ours = [f.name for f in self._own_fields()]
        if clash := [f.name for f in self.keys if f.name in ours]:
            raise ConfigError(
                f"[source] key: column {clash[0]!r} has the name of a column of the state table "
                f"({', '.join(ours[:4])}, …): rename it in the source"
            )

    def schema(self) -> pa.Schema:
        """The Arrow schema of the table as a file."""
        metadata = {
            "streamrnn.format_version": FORMAT_VERSION,
            "streamrnn.fingerprint": self.fingerprint,
            "streamrnn.layers": json.dumps(self.layers, sort_keys=True),
            "streamrnn.keys": json.dumps([f.name for f in self.keys]),
        }
        keys = [pa.field(f.name, f.type) for f in self.keys]
        return pa.schema([*keys, *self._own_fields()], metadata)

    def _own_fields(self) -> list[pa.Field]:
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
