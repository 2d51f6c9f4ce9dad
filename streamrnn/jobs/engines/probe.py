"""Check each node of a cluster before a run: its version, and that source and sink are in reach."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from streamrnn import __version__
from streamrnn.errors import ConfigError, StreamRNNError
from streamrnn.jobs.engines.shard import OutputPlace
from streamrnn.stream.checkpoints import read_token
from streamrnn.stream.scoring import LoadedPipeline, compile_kernels
from streamrnn.stream.sources import SourceFile


@dataclass(frozen=True)
class FolderToken:
    """A file that the driver wrote into the folder of the output: its name, and its content."""

    name: str
    content: str


class Probe(NamedTuple):
    """The name of a node, and what is wrong with it, "" if nothing is."""

    node: str
    problem: str


def probe(
    loaded: LoadedPipeline,
    version: str,
    place: OutputPlace,
    token: FolderToken,
    file: SourceFile | None,
) -> Probe:
    """Check this node, and compile the kernels for all workers on it."""
    node = socket.gethostname()
    if version != __version__:
        versions = f"it has streamrnn {__version__}, the driver has {version}"
        return Probe(node, f"{versions}. Install the same version")
    if file is not None:
        try:
            file.anywhere().open().close()
        except OSError as error:
            return Probe(node, f"it cannot read the source {file.path}: {_shared(error)}")
    try:
        content = read_token(place.path, token.name)
    except (OSError, StreamRNNError) as error:
        return Probe(node, f"it does not see the output {place.path}: {_shared(error)}")
    if content != token.content:
        return Probe(node, f"its {place.path} is not the driver's: {_shared(None)}")
    warm_up(loaded)
    return Probe(node, "")


def warm_up(loaded: LoadedPipeline) -> None:
    """Load the kernels of this process; the first process on a node compiles them for all."""
    with suppress(ConfigError):  # without a cache folder each worker compiles for itself
        compile_kernels(loaded)


def _shared(error: Exception | None) -> str:
    cause = "" if error is None else f"{getattr(error, 'strerror', None) or error}. "
    return f"{cause}Use a folder that all nodes share, or the URI of an object store"
