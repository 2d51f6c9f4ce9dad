"""The columns of `[target]`, which a run does not read, beside those of a source."""

from __future__ import annotations

from streamrnn.stream.scoring import BoundPipeline, BoundTarget, target_columns
from streamrnn.stream.sources import Source, SourceOfFiles


def with_target(
    bound: BoundPipeline, source: SourceOfFiles
) -> tuple[SourceOfFiles, BoundTarget | None]:
    """Return the source with the columns of `[target]`, and what is read of them; None if not set.

    Raises DataError for a missing column, DTypeError for one of a type that cannot be used.
    """
    columns = target_columns(bound.loaded)
    if columns is None:
        return source, None
    wide = source.with_columns(columns.names)
    return wide, BoundTarget.of(bound, wide.schema)


def bound_target(bound: BoundPipeline, source: Source) -> BoundTarget | None:
    """Return what is read of a stream with the columns of `[target]`; None if that is not set."""
    return None if target_columns(bound.loaded) is None else BoundTarget.of(bound, source.schema)
