"""The partitions of an output, as its config and the schema of its rows define them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from streamrnn.base.storage.files import Files
from streamrnn.errors import ConfigError
from streamrnn.stream.checkpoints.directory import PartDirectory
from streamrnn.stream.checkpoints.manifest import Manifest, decode_schema
from streamrnn.stream.config import PartitionLevel, did_you_mean, partition_levels, value_of
from streamrnn.stream.sinks import PartitionColumn, Partitioning

_KEY = "sink.partition_by"
_DERIVED = {"year": pa.int32(), "month": pa.int32(), "day": pa.date32(), "hour": pa.int32()}


def layout_in(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of an output's partition columns; `config` is dotted key -> value."""
    return tuple(level.name for level in partition_levels(value_of(_KEY, config)))


def partitioning_in(config: Mapping[str, Any], schema: pa.Schema) -> Partitioning | None:
    """Return how rows of this schema are partitioned; None if they are not.

    `config`: dotted key -> value. Raises ConfigError if a column is missing, if folders cannot be
    named after values of its type, or if a name is taken.
    """
    levels = partition_levels(value_of(_KEY, config))
    if not levels:
        return None
    zone = value_of("source.time_zone", config)
    return Partitioning(tuple(_column(level, schema, zone) for level in levels), schema)


def partitioning_of(manifest: Manifest) -> Partitioning | None:
    """Return how the rows of an output are partitioned; None if they are not."""
    return partitioning_in(manifest.config, decode_schema(manifest.schema))


def row_directory(manifest: Manifest, files: Files) -> PartDirectory:
    """Return the directory of the rows of an output."""
    return PartDirectory(files, layout_in(manifest.config))


def _column(level: PartitionLevel, schema: pa.Schema, zone: str) -> PartitionColumn:
    names: Sequence[str] = schema.names
    if level.column not in names:
        raise ConfigError(
            f"[sink] partition_by: {level.column!r} is not a column of the output"
            f"{did_you_mean(level.column, names)} (columns: {', '.join(names)}). Add it to "
            "[output] columns"
        )
    kind = schema.field(level.column).type
    if not level.function:
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not (text or pa.types.is_integer(kind) or pa.types.is_date32(kind)):
            advice = "choose another column"
            if pa.types.is_timestamp(kind):
                advice = f'name a function of it, such as {{ date = "day({level.column})" }}'
            raise ConfigError(
                "[sink] partition_by: expected a column of text, integers or dates, but "
                f"{level.column!r} is {kind}; {advice}"
            )
        return PartitionColumn(schema.field(level.name), level.column)
    taken = [name for name in names if name.lower() == level.name.lower()]
    if taken:
        raise ConfigError(
            f"[sink] partition_by: {level.name!r} is also a column of the output ({taken[0]}); "
            "choose another name for the folders"
        )
    is_date = pa.types.is_date32(kind) and level.function != "hour"
    if not is_date and not pa.types.is_timestamp(kind):
        raise ConfigError(
            f"[sink] partition_by: {level}: expected a timestamp"
            f"{'' if level.function == 'hour' else ' or a date'}, but {level.column!r} is {kind}"
        )
    clock = pa.timestamp(kind.unit, zone) if zone and pa.types.is_timestamp(kind) else None
    return PartitionColumn(
        pa.field(level.name, _DERIVED[level.function]), level.column, level.function, clock
    )
