"""Choose a format by the file's suffix; files in object stores are read from a copy on a disk."""

import inspect
import json
import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from streamrnn.base.display import location, uri_fault
from streamrnn.base.plugin import HOW_TO_INSTALL, load_plugin, plugin_names
from streamrnn.errors import (
    ConfigError,
    DTypeError,
    ModelFileError,
    StreamRNNError,
    UnsupportedError,
)
from streamrnn.nn.formats.guard import Loaded, ModelFormat, reading, require_file
from streamrnn.nn.layers.registry import counted_from_the_start
from streamrnn.nn.models import Model

_MEANT_FOR = {
    "layers": "are for weights without an architecture",
    "node": "is for ONNX graphs",
    "state": "is for ONNX graphs",
}
"""Option of `load_model` -> what it is for."""
_SUFFIXES = (".safetensors", ".keras", ".h5", ".hdf5")
"""The suffixes of the formats in this folder; other formats are plug-ins, named by suffix."""
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")
_CONVERT = """a pickle can run code and is never opened. Convert it once in PyTorch:
    import torch
    from safetensors.torch import save_file
    weights = torch.load({source}, map_location="cpu", weights_only=True)
    weights = {{name: tensor.float().contiguous().clone() for name, tensor in weights.items()}}
    save_file(weights, {target})
This is for a state_dict. In a checkpoint it is weights["model_state_dict"], or under another key.
A whole module needs weights_only=False, which runs code of the file: set it only if you trust the
file, and save weights.state_dict(). TorchScript: torch.jit.load({source}).state_dict(). Then load
the result: the message lists the layers that its names and shapes suggest."""


def read(path: str | Path, *, strict: bool = False, **options: object) -> Loaded:
    """Read a model, and the sources of its weights, from a file. Arguments: see load_model."""
    with on_disk(path) as file:
        format = _format_of(file)
        takes = [name for name in inspect.signature(format.read).parameters if name in _MEANT_FOR]
        for name, value in options.items():
            if name not in takes and value not in (None, "", {}):
                raise ConfigError(
                    f"{file}: {name} {_MEANT_FOR[name]}, not for {file.suffix}; received "
                    f"{value!r:.60}"
                )
        with reading(file), counted_from_the_start():
            loaded = format.read(file, **{name: options.get(name) for name in takes})
            if strict and loaded.left:
                raise ModelFileError(
                    f"strict: {len(loaded.left)} stored arrays are not used: "
                    f"{', '.join(loaded.left)}"
                )
    return loaded


def load_weights(model: Model, path: str | Path) -> None:
    """Set a model's weights from a native or a Keras file.

    Raises ModelFileError if the file is damaged or its arrays do not fit, MissingFileError, and
    UnsupportedError for an unknown format, or one whose weights cannot be read alone.
    """
    with on_disk(path) as file:
        load = _format_of(file).load_weights
        if isinstance(load, str):
            raise UnsupportedError(f"{file}: {load}")
        with reading(file):
            load(model, file)


def _format_of(path: Path) -> ModelFormat:
    """Return the format of a model file that exists, by its suffix in lower case."""
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        require_file(path)
        names = {"source": json.dumps(path.name), "target": json.dumps(f"{path.stem}.safetensors")}
        raise UnsupportedError(f"{path}: {_CONVERT.format(**names)}")
    plugins = plugin_names("format")
    if suffix not in _SUFFIXES and suffix[1:] not in plugins:
        suffixes = (*_SUFFIXES, *(f".{name}" for name in plugins))
        raise UnsupportedError(
            f"{path}: unknown suffix {path.suffix!r}; expected one of {', '.join(suffixes)}"
            + ("" if plugins else f", or the suffix of a plug-in. {HOW_TO_INSTALL}")
        )
    require_file(path)
    if suffix == ".safetensors":
        from streamrnn.nn.formats.native import NATIVE

        return NATIVE
    if suffix in _SUFFIXES:
        from streamrnn.nn.formats.keras.load import HDF5, KERAS

        return KERAS if suffix == ".keras" else HDF5
    with reading(path):  # the file needs a plug-in that may not be installed
        reader = load_plugin("format", suffix[1:])
    no_weights = (
        f"weights cannot be read from an {suffix[1:].upper()} graph; load it with load_model(path)"
    )
    return ModelFormat(reader, no_weights)


@contextmanager
def on_disk(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a model file on a disk: the file itself, or a copy of a URI's object.

    The copy lies in its own folder, under the object's name, and is removed afterwards.
    StreamRNNErrors raised meanwhile name the URI, without credentials. Raises MissingFileError,
    DataError if the object cannot be read, and ConfigError or DTypeError for an invalid path.
    """
    if not isinstance(path, str | os.PathLike):
        raise DTypeError(f"expected the path of a model file, received {path!r:.80}")
    text = os.fspath(path)
    if fault := uri_fault(text):
        raise ConfigError(f"{location(text)}: {fault}")
    if "://" not in text:
        yield Path(text)
        return
    from streamrnn.base.storage import fetch  # loads Arrow, which model files on a disk do not need

    with tempfile.TemporaryDirectory(prefix="streamrnn-") as folder:
        copy = os.path.join(folder, file_name(text))
        fetch(text, copy, "model file")
        try:
            yield Path(copy)
        except StreamRNNError as error:
            error.args = (str(error).replace(copy, location(text)),)
            raise


def file_name(path: str) -> str:
    """Return the name of a file; options of a URI are left out.

    >>> file_name("s3://models/weather.onnx?region=eu-west-3"), file_name("m/weather.keras")
    ('weather.onnx', 'weather.keras')
    """
    return os.path.basename(path) if "://" not in path else posixpath.basename(urlsplit(path).path)
