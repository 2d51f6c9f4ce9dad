"""A model file in memory, as a checkpoint includes it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streamrnn.base.display import location
from streamrnn.errors import MissingFileError, UnsupportedError
from streamrnn.nn.formats import file_name, on_disk
from streamrnn.stream.scoring.bind import LoadedPipeline


@dataclass(frozen=True)
class ModelFile:
    """A model file in memory: its name and its bytes."""

    name: str
    content: bytes

    @classmethod
    def read(cls, path: str) -> "ModelFile":
        """Read a model file, or the object of a URI. Raises MissingFileError."""
        try:
            with on_disk(path) as file:
                return cls(file_name(path), file.read_bytes())
        except FileNotFoundError as error:
            raise MissingFileError(f"[model] path: {location(path)}: no such file") from error

    @contextmanager
    def on_disk(self) -> Iterator[str]:
        """Write the file to a temporary folder; its path, which is removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="streamrnn-") as folder:
            path = Path(folder) / self.name
            path.write_bytes(self.content)
            yield str(path)


def included_model(loaded: LoadedPipeline, folder: str) -> ModelFile:
    """Read the model file of a loaded pipeline, whose relative path is resolved from `folder`.

    Raises MissingFileError; UnsupportedError if the file has another model now.
    """
    path = loaded.config.model.path
    if "://" not in path:
        path = os.path.join(folder, path)
    found = ModelFile.read(path)
    with found.on_disk() as copy:
        if LoadedPipeline(loaded.config, model_path=copy).fingerprint != loaded.fingerprint:
            raise UnsupportedError(
                f"[model] path: {location(path)}: the file is not the model that was loaded. "
                "Load the pipeline again, or leave out include_model."
            )
    return found
