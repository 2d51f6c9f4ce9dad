"""Choose a format by the file's suffix."""

import inspect
import json
from pathlib import Path

from streamrnn.base.plugin import HOW_TO_INSTALL, load_plugin, plugin_names
from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError
from streamrnn.nn.formats.assignment import Loaded, ModelFormat
from streamrnn.nn.formats.guard import reading, require_file
from streamrnn.nn.formats.remote import on_disk
from streamrnn.nn.layers.naming import counted_from_the_start
from streamrnn.nn.models import Model

_MEANT_FOR = {
    "layers": "are for weights without an architecture",
    "node": "is for ONNX graphs",
    "state": "is for ONNX graphs",
}
"""Option of `load_model` -> what it is for."""
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")
_CONVERT = """a pickle can run code and is never opened. Convert it once in PyTorch:
    import torch
    from safetensors.torch import save_file
    weights = torch.load({source}, map_location="cpu", weights_only=True)
    weights = {{name: tensor.float().contiguous().clone() for name, tensor in weights.items()}}
    save_file(weights, {target})
That is for a state_dict. One in a checkpoint is weights["model_state_dict"], or under another key.
A whole module needs weights_only=False, which runs code of the file: only if you trust it; then
weights.state_dict(). TorchScript: torch.jit.load({source}).state_dict(). Load the result: the
message lists the layers that its names and shapes suggest."""


def read(path: str | Path, *, strict: bool = False, **options: object) -> Loaded:
    """Read a model file with the sources of its weights. Arguments: see load_model."""
    with on_disk(path) as file:
        format = _format_of(file)
        for name, value in options.items():
            if name not in format.takes and value not in (None, "", {}):
                raise ConfigError(
                    f"{file}: {name} {_MEANT_FOR[name]}, not {file.suffix}; received {value!r:.60}"
                )
        with reading(file), counted_from_the_start():
            loaded = format.read(file, **{name: options.get(name) for name in format.takes})
            if strict and loaded.left:
                raise ModelFileError(
                    f"strict: {len(loaded.left)} stored arrays are not used: "
                    f"{', '.join(loaded.left)}"
                )
    return loaded


def load_weights(model: Model, path: str | Path) -> None:
    """Set a model's weights from a native or a Keras file. Raises ModelFileError."""
    with on_disk(path) as file:
        load = _format_of(file).load_weights
        if isinstance(load, str):
            raise UnsupportedError(f"{file}: {load}")
        load(model, file)


def _format_of(path: Path) -> ModelFormat:
    """Return the format of a model file that exists, by its suffix in lower case."""
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        require_file(path)
        names = {"source": json.dumps(path.name), "target": json.dumps(f"{path.stem}.safetensors")}
        raise UnsupportedError(f"{path}: {_CONVERT.format(**names)}")
    plugins = plugin_names("format")
    if suffix not in _FORMATS and suffix[1:] not in plugins:
        suffixes = (*_FORMATS, *(f".{name}" for name in plugins))
        raise UnsupportedError(
            f"{path}: unknown suffix {path.suffix!r}; expected one of {', '.join(suffixes)}"
            + ("" if plugins else f", or of a plug-in. {HOW_TO_INSTALL}")
        )
    require_file(path)
    if suffix in _FORMATS:
        return _FORMATS[suffix]()
    with reading(path):  # the file needs a plug-in that may not be installed
        return _of_plugin(suffix[1:])


def _of_plugin(name: str) -> ModelFormat:
    """Return the format of a plug-in's reader, which takes the options in its signature."""
    read = load_plugin("format", name)
    no_weights = (
        f"weights cannot be read from an {name.upper()} graph; load it with load_model(path)"
    )
    takes = [option for option in inspect.signature(read).parameters if option in _MEANT_FOR]
    return ModelFormat(read, no_weights, tuple(takes))


def _native() -> ModelFormat:
    from streamrnn.nn.formats.native import NATIVE

    return NATIVE


def _keras() -> ModelFormat:
    from streamrnn.nn.formats.keras.from_tables import KERAS

    return KERAS


def _hdf5() -> ModelFormat:
    from streamrnn.nn.formats.keras.from_tables import HDF5

    return HDF5


_FORMATS = {".safetensors": _native, ".keras": _keras, ".h5": _hdf5, ".hdf5": _hdf5}
"""Suffix -> format, for the formats in this folder; others are plug-ins, named by suffix."""
