"""Publish what is committed, without a run."""

from __future__ import annotations

from streamrnn.errors import ConfigError
from streamrnn.jobs.outputs.publishing.publisher import Published, Publisher
from streamrnn.stream.checkpoints import OutputFolder, read_manifest


def publish(path: str, *, rejects: str | None = None) -> list[Published]:
    """Make the tables of [publish] equal to the parts of an output, and return what was changed.

    The tables are those of the last commit. A table that does not exist is made; what others have
    done to one is undone, as far as it names parts of the output. `rejects` is the folder of
    rejected rows, if it was moved. Raises ConfigError if the output has no table, or its library is
    missing; CheckpointError if the folder is in use or damaged; PublishError.
    """
    with OutputFolder.reopen(path, rejects=rejects) as folder:
        manifest = folder.manifest or read_manifest(path)
        publisher = Publisher.of(manifest.config, path)
        if not publisher.tables:
            raise ConfigError(
                f"{path}: the last commit names no table. Set [publish] delta or iceberg in the "
                "pipeline file and run it: it publishes, even if it has nothing new to score."
            )
        return publisher.publish(manifest)
