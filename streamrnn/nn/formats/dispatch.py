"""The choice of a reader: by the file's suffix, and for .safetensors by its contents."""

import json
from collections.abc import Mapping
from pathlib import Path

from streamrnn.base.plugin import HOW_TO_INSTALL, load_plugin, plugin_names
from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError
from streamrnn.nn.formats import tables
from streamrnn.nn.formats.architecture import check_layers
from streamrnn.nn.formats.assignment import Loaded
from streamrnn.nn.formats.guard import reading, require_file
from streamrnn.nn.formats.remote import on_disk
from streamrnn.nn.formats.tables import Tables
from streamrnn.nn.layers.naming import counted_from_the_start
from streamrnn.nn.models import Model

_HDF5 = (".h5", ".hdf5")
_SUFFIXES = (".safetensors", ".keras", *_HDF5)
"""Of the formats in this room; others are plug-ins, whose names are their suffixes."""
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


def read(
    path: str | Path,
    *,
    layers: Tables | None = None,
    node: str | None = None,
    strict: bool = False,
    state: Mapping[str, str] | None = None,
) -> Loaded:
    """Read a model file with the sources of its weights. The arguments are those of load_model."""
    with on_disk(path) as file:
        suffix = _suffix(file)
        _refuse_options(file, suffix, layers=layers, node=node, state=state)
        with reading(file), counted_from_the_start():
            loaded = _read(file, suffix, layers, node, state)
            if strict and loaded.left:
                raise ModelFileError(
                    f"strict: {len(loaded.left)} stored arrays are not used: "
                    f"{', '.join(loaded.left)}"
                )
    return loaded


def load_weights(model: Model, path: str | Path) -> None:
    """Set a model's weights from a native or a Keras file. Raises ModelFileError."""
    with on_disk(path) as file:
        suffix = _suffix(file)
        if suffix == ".safetensors":
            from streamrnn.nn.formats import native

            native.load_weights(model, file)
        elif suffix == ".onnx":
            raise UnsupportedError(
                f"{file}: weights cannot be read from an ONNX graph; load it with load_model(path)"
            )
        else:
            from streamrnn.nn.formats.keras import load

            load.load_weights(model, file)


def _read(
    path: Path,
    suffix: str,
    layers: Tables | None,
    node: str | None,
    state: Mapping[str, str] | None,
) -> Loaded:
    if suffix not in _SUFFIXES:
        loaded: Loaded = load_plugin("format", suffix[1:])(path, node=node, state=state)
        return loaded
    if suffix == ".safetensors":
        return _safetensors(path, layers)
    from streamrnn.nn.formats.keras.load import load_keras

    if layers is None:
        return load_keras(path)
    from streamrnn.nn.formats.keras import from_tables

    return from_tables.load_with_tables(path, tables.parse(layers))


def _safetensors(path: Path, layers: Tables | None) -> Loaded:
    from streamrnn.nn.formats import native

    metadata, arrays = native.read(path)
    if layers is None or metadata.get("format") == "streamrnn":
        loaded = native.loaded(metadata, arrays)
        if layers is not None:
            check_layers(loaded.model, layers)
        return loaded
    from streamrnn.nn.formats import torch

    return torch.load_state_dict(arrays, tables.parse(layers))


def _suffix(path: Path) -> str:
    """Return the suffix of a model file that exists, in lower case."""
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        require_file(path)
        names = {"source": json.dumps(path.name), "target": json.dumps(f"{path.stem}.safetensors")}
        raise UnsupportedError(f"{path}: {_CONVERT.format(**names)}")
    plugins = plugin_names("format")
    if suffix not in _SUFFIXES and suffix[1:] not in plugins:
        known = (*_SUFFIXES, *(f".{name}" for name in plugins))
        raise UnsupportedError(
            f"{path}: unknown suffix {path.suffix!r}; expected one of {', '.join(known)}"
            + ("" if plugins else f", or of a plug-in. {HOW_TO_INSTALL}")
        )
    require_file(path)
    return suffix


def _refuse_options(
    path: Path,
    suffix: str,
    *,
    layers: Tables | None,
    node: str | None,
    state: Mapping[str, str] | None,
) -> None:
    if layers is not None and suffix not in (".safetensors", *_HDF5):
        raise ConfigError(f"{path}: layers are for weights without an architecture, not {suffix}")
    for name, value in {"node": node, "state": state}.items():
        if value and suffix != ".onnx":
            raise ConfigError(f"{path}: {name} is for ONNX graphs, received {value!r}")
