"""The scores of an output, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.arrays import Floats, Ints
from streamrnn.checkpoints import Manifest, partitioning_of, row_directory
from streamrnn.display import location
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.outputs.matching import ScoreRows
from streamrnn.sources import ticks
from streamrnn.storage import open_files

_BATCH_ROWS = 131072


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
    directory = row_directory(manifest, open_files(path))
    partitioning = partitioning_of(manifest)
    locations = directory.locate(manifest.parts)
    for part in manifest.parts:
        if part.name not in locations:
            raise CheckpointError(directory.lost(part))
        try:
            with directory.files.open(locations[part.name]) as source:
                for batch in part.format.batches(source, _BATCH_ROWS):
                    if partitioning is not None:
                        batch = partitioning.complete(batch, part.name)
                    _check_columns(batch.schema, wanted, path)
                    keys = [batch.column(name) for name in wanted.keys]
                    time = batch.column(wanted.time.name).cast(wanted.time.type)
                    score = [_floats(batch.column(name)) for name in wanted.scores]
                    yield ScoreRows(find(keys), ticks(time), np.stack(score, axis=1))
        except (pa.ArrowException, FileNotFoundError) as error:
            raise CheckpointError(
                f"{directory.files.show(part.name)} cannot be read: {error}. "
                f"Run `streamrnn verify {location(path)}`."
            ) from error


def _check_columns(schema: pa.Schema, wanted: ScoreColumns, path: str) -> None:
    present = f"(columns: {', '.join(schema.names)})"
    for name in (*wanted.keys, wanted.time.name):
        if name not in schema.names:
            raise ConfigError(
                f"{location(path)} has no column {name!r} {present}. Scores are joined with labels "
                "by key and time: add it to [output] columns, and score again with --full-refresh"
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
