"""The columns of an output as readers of a table find them: those of its folders are not in files.

`Part.partition` has their values in a part, as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from streamrnn.stream.checkpoints import Manifest, partitioning_in
from streamrnn.stream.checkpoints.manifest import decode_schema


def partition_fields(config: Mapping[str, Any], schema: pa.Schema) -> tuple[pa.Field, ...]:
    """Return the columns of the folders, outermost first, for rows of `schema`.

    `config`: dotted key -> value.
    """
    found = partitioning_in(config, schema)
    return () if found is None else tuple(found.fields)


def with_partitions(config: Mapping[str, Any], schema: pa.Schema) -> pa.Schema:
    """Add the columns of the folders that rows of `schema` lack."""
    fields = partition_fields(config, schema)
    return pa.schema([*schema, *(field for field in fields if field.name not in schema.names)])


def columns_of(manifest: Manifest) -> pa.Schema:
    """Return the columns that readers of the output find."""
    return with_partitions(manifest.config, decode_schema(manifest.schema))


def partitions_of(manifest: Manifest) -> tuple[pa.Field, ...]:
    """Return the columns of the folders of an output, outermost first."""
    return partition_fields(manifest.config, decode_schema(manifest.schema))
