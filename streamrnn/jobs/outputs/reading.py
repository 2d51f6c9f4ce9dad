"""The committed rows of an output, part by part."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.base.storage import open_files
from streamrnn.errors import CheckpointError
from streamrnn.stream.checkpoints import Manifest, partitioning_of, row_directory
from streamrnn.stream.checkpoints.directory import PartDirectory
from streamrnn.stream.sinks import Part

_BATCH_ROWS = 131072


def part_batches(
    path: str,
    manifest: Manifest,
    columns: Sequence[str] | None = None,
    parts: Sequence[Part] | None = None,
) -> Iterator[tuple[Part, pa.RecordBatch]]:
    """Read the parts of a folder in order, of `columns` those that a part or its folders have.

    `parts` defaults to those of the output; others, such as rejects, lie in no partitions. Raises
    CheckpointError for a missing or damaged part.
    """
    files = open_files(path)
    partitioning = partitioning_of(manifest) if parts is None else None
    directory = row_directory(manifest, files) if parts is None else PartDirectory(files)
    wanted = manifest.parts if parts is None else parts
    stored = columns
    if partitioning is not None and columns is not None:
        names = partitioning.file_schema.names
        stored = [name for name in columns if name in names] or names[:1]  # else no rows are read
    locations = directory.locate(wanted)
    for part in wanted:
        if part.name not in locations:
            raise CheckpointError(directory.lost(part))
        try:
            with directory.files.open(locations[part.name]) as source:
                for batch in part.format.batches(source, _BATCH_ROWS, stored):
                    if partitioning is not None:
                        batch = partitioning.complete(batch, part.name)
                    yield part, batch
        except (pa.ArrowException, FileNotFoundError) as error:
            raise CheckpointError(
                f"{directory.files.show(part.name)} cannot be read: {error}. "
                f"Run `streamrnn verify {location(path)}`."
            ) from error
