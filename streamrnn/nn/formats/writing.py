"""Write model files atomically: the file is complete, or does not exist."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from streamrnn.errors import SinkError, UnsupportedError
from streamrnn.nn.formats.guard import refuse_uri
from streamrnn.nn.kernels.integers import FLOAT32
from streamrnn.nn.layers.precision import precision_of
from streamrnn.nn.models import Model

TORCH_SUFFIX = ".torch.safetensors"
"""The ending of a state_dict of PyTorch."""


def checked_target(path: str | Path, suffix: str, form: str) -> Path:
    """Return the path of a model file to write.

    Raises UnsupportedError for a URI or another format's suffix, SinkError where no file can be
    written.
    """
    refuse_uri(path, "a model is written to a file, not to a URI: write it to a disk, and copy it")
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise UnsupportedError(f"{path}: expected the suffix {suffix} of {form}")
    if not path.parent.is_dir():
        raise SinkError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise SinkError(f"{path}: this is a folder, not a file; set another path")
    if path.exists() and not path.is_file():
        raise SinkError(f"{path}: this is a device or pipe, not a file; set another path")
    return path


def refuse_integers(model: Model, form: str) -> None:
    """Raise UnsupportedError for a model of lower precision, which only native files can hold."""
    if (precision := precision_of(model)) != FLOAT32:
        raise UnsupportedError(
            f"{model} has weights in {precision}, and would give other values as {form}: "
            "convert the float32 file that it was made from"
        )


def write_atomically(files: Mapping[Path, bytes]) -> None:
    """Write and sync files next to their places, then move them there. Raises OSError."""
    end = f".{secrets.token_hex(4)}.tmp"
    temporary = {path: path.with_name(f".{path.name}{end}") for path in files}
    try:
        for path, data in files.items():
            with temporary[path].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            temporary[path].replace(path)
    finally:
        for path in files:
            temporary[path].unlink(missing_ok=True)
