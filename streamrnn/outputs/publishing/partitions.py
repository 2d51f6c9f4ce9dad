"""The partition columns of an output, and their values in a part: the only place that knows."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streamrnn.checkpoints import Manifest
from streamrnn.checkpoints.manifest import decode_schema
from streamrnn.sinks import Part


def columns_of(manifest: Manifest) -> pa.Schema:
    """Return the columns that readers of the output find, those of its paths included."""
    return decode_schema(manifest.schema)


def partition_columns(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the columns that the paths of the parts hold, outermost first."""
    return ()


def partition_values(part: Part) -> Mapping[str, str | None]:
    """Return column -> value as text, None for null, of the partition of a part."""
    return {}
