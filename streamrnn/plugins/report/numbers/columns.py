"""The columns of an output, from what its last commit records."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Floats, Ints
from streamrnn.errors import ConfigError
from streamrnn.plugins.report.numbers.timeline import positions
from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.checkpoints.manifest import decode_schema
from streamrnn.stream.config import value_of
from streamrnn.stream.sources import parse_time

MOST_OUTPUTS = 4
"""Outputs that are drawn; of more, the first ones."""


@dataclass(frozen=True)
class OutputColumns:
    """Names of the columns of an output: keys that it has, its time, the outputs of the model.

    `time` is None if it has none. `since` and `until` limit the rows, in ticks of the time: at or
    after, and before.
    """

    keys: tuple[pa.Field, ...]
    time: pa.Field | None
    outputs: tuple[str, ...]
    since: int | None = None
    until: int | None = None

    @classmethod
    def of(
        cls, manifest: Manifest, since: str | None = None, until: str | None = None
    ) -> "OutputColumns":
        """Find them in a manifest. Raises ConfigError for limits without times, or in no order."""
        schema, config = decode_schema(manifest.schema), manifest.config
        present = set(schema.names)
        keys = value_of("source.key", config) or ()
        name = value_of("source.time", config)
        time = schema.field(name) if name in present and _is_axis(schema.field(name).type) else None
        if time is None and (since is not None or until is not None):
            raise ConfigError(
                "since and until need the time of the rows in the output: add [source] time to "
                "[output] columns, and score again with --full-refresh"
            )
        begin = None if time is None or since is None else parse_time(since, time.type, "since")
        end = None if time is None or until is None else parse_time(until, time.type, "until")
        if begin is not None and end is not None and begin >= end:
            raise ConfigError(
                f"since {since} is not before until {until}: no row is drawn. Swap them, or leave "
                "one out"
            )
        return cls(
            tuple(schema.field(key) for key in keys) if present.issuperset(keys) else (),
            time,
            tuple(_outputs(schema, config)),
            begin,
            end,
        )

    @property
    def drawn(self) -> tuple[str, ...]:
        """The outputs that are drawn."""
        return self.outputs[:MOST_OUTPUTS]

    @property
    def clock(self) -> bool:
        """Whether the time is one of a clock, not an integer."""
        return self.time is not None and not pa.types.is_integer(self.time.type)

    def limited(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows from `since` to `until`."""
        for limit, keep in ((self.since, pc.greater_equal), (self.until, pc.less)):
            if limit is not None and self.time is not None:
                time = batch.column(self.time.name)
                bound = pa.array([limit], _integers(time.type)).cast(time.type)[0]
                batch = batch.filter(keep(time, bound))
        return batch

    def places(self, batch: pa.RecordBatch, before: int) -> Ints:
        """Return the place of each row on the axis; without times its number in the output."""
        if self.time is None:
            return np.arange(before, before + batch.num_rows)
        return positions(batch.column(self.time.name))


def floats_of(batch: pa.RecordBatch, names: tuple[str, ...]) -> Floats:
    """Return columns (N, V) as float32, NaN for null or for a column that is missing."""
    found = np.full((batch.num_rows, len(names)), np.nan, np.float32)
    for index, name in enumerate(names):
        if name in batch.schema.names:
            column = batch.column(name)
            if not pa.types.is_floating(column.type):
                column = column.cast(pa.float64(), safe=False)
            found[:, index] = column.to_numpy(zero_copy_only=False)
    return found


def _outputs(schema: pa.Schema, config: object) -> list[str]:
    assert isinstance(config, dict)
    names = value_of("output.names", config)
    if names:
        return [name for name in names if name in schema.names]
    carried = value_of("output.columns", config)
    if carried == "*" or carried is None:
        carried = list(config.get("source.schema", {}))
    other = {*carried, value_of("output.model_column", config)}
    return [field.name for field in schema if field.name not in other and _is_number(field.type)]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_axis(kind: pa.DataType) -> bool:
    axes = (pa.types.is_timestamp, pa.types.is_date, pa.types.is_integer)
    return any(test(kind) for test in axes)


def _integers(kind: pa.DataType) -> pa.DataType:
    return pa.int32() if pa.types.is_date32(kind) else pa.int64()
