"""The scores of an output, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Floats, Ints
from streamrnn.base.display import location
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.jobs.evaluation.matching import ScoreRows
from streamrnn.jobs.outputs import part_batches
from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.checkpoints.manifest import decode_schema
from streamrnn.stream.sources import ticks


class ScoreColumns(NamedTuple):
    """The columns of an output that are read; `time` has the type of the source's."""

    keys: tuple[str, ...]
    time: pa.Field
    scores: tuple[str, ...]


def score_rows(
    path: str,
    manifest: Manifest,
    wanted: ScoreColumns,
    find: Callable[[Sequence[pa.Array]], Ints],
) -> Iterator[ScoreRows]:
    """Read key, time and scores of the committed parts, in order (within each partition).

    Raises CheckpointError for a missing or damaged part, ConfigError for a missing column.
    """
    written = decode_schema(manifest.schema).names
    columns = [*wanted.keys, wanted.time.name, *wanted.scores]
    for part, batch in part_batches(path, manifest, columns):
        _check_columns(batch.schema, wanted, path, written)
        try:
            time = batch.column(wanted.time.name).cast(wanted.time.type)
        except pa.ArrowException as error:
            raise CheckpointError(
                f"{location(path)}: {part.name} cannot be read: {error}"
            ) from error
        keys = [batch.column(name) for name in wanted.keys]
        score = [_floats(batch.column(name)) for name in wanted.scores]
        yield ScoreRows(find(keys), ticks(time), np.stack(score, axis=1))


def _check_columns(
    schema: pa.Schema, wanted: ScoreColumns, path: str, written: Sequence[str]
) -> None:
    present = f"(columns: {', '.join(written)})"
    if missing := [name for name in (*wanted.keys, wanted.time.name) if name not in schema.names]:
        raise ConfigError(
            f"{location(path)} has no column {missing[0]!r} {present}. Scores are joined with "
            f"labels by key and time: add {', '.join(map(repr, missing))} to [output] columns, and "
            "score again with --full-refresh"
        )
    for name in wanted.scores:
        if name not in schema.names:
            raise ConfigError(
                f"[output] names: {location(path)} has no column {name!r} {present}. Set the names "
                "that it was written with"
            )


def _floats(column: pa.Array) -> Floats:
    """Return values (N,) float32, NaN for null."""
    values: Floats = column.to_numpy(zero_copy_only=False).astype(np.float32)
    return values
