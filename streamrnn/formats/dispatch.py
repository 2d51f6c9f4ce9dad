"""The choice of a reader: by the file's suffix, and for .safetensors by its contents."""

import os
from collections.abc import Mapping
from pathlib import Path

from streamrnn.errors import ConfigError, DTypeError, ModelFileError, UnsupportedError
from streamrnn.formats import tables
from streamrnn.formats.architecture import check_layers
from streamrnn.formats.assignment import Loaded
from streamrnn.formats.guard import reading, refuse_uri, require_file
from streamrnn.formats.tables import Tables
from streamrnn.layers.naming import counted_from_the_start
from streamrnn.models import Model

_HDF5 = (".h5", ".hdf5")
_SUFFIXES = (".safetensors", ".keras", *_HDF5, ".onnx")
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")


def read(
    path: str | Path,
    *,
    layers: Tables | None = None,
    node: str | None = None,
    strict: bool = False,
    state: Mapping[str, str] | None = None,
) -> Loaded:
    """Read a model file with the sources of its weights. The arguments are those of load_model."""
    path = _checked_path(path)
    suffix = path.suffix.lower()
    _refuse_options(path, suffix, layers=layers, node=node, state=state)
    with reading(path), counted_from_the_start():
        loaded = _read(path, suffix, layers, node, state)
        if strict and loaded.left:
            raise ModelFileError(
                f"strict: {len(loaded.left)} stored arrays are not used: {', '.join(loaded.left)}"
            )
    return loaded


def load_weights(model: Model, path: str | Path) -> None:
    """Set a model's weights from a native or a Keras file. Raises ModelFileError."""
    path = _checked_path(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        from streamrnn.formats import native

        native.load_weights(model, path)
    elif suffix == ".onnx":
        raise UnsupportedError(
            f"{path}: weights cannot be read from an ONNX graph; load it with load_model(path)"
        )
    else:
        from streamrnn.formats.keras import load

        load.load_weights(model, path)


def _read(
    path: Path,
    suffix: str,
    layers: Tables | None,
    node: str | None,
    state: Mapping[str, str] | None,
) -> Loaded:
    if suffix == ".onnx":
        from streamrnn.formats.onnx.load import load_onnx

        return load_onnx(path, node=node, state=state)
    if suffix == ".safetensors":
        return _safetensors(path, layers)
    from streamrnn.formats.keras.load import load_keras

    if layers is None:
        return load_keras(path)
    from streamrnn.formats.keras import from_tables

    return from_tables.load_with_tables(path, tables.parse(layers))


def _safetensors(path: Path, layers: Tables | None) -> Loaded:
    from streamrnn.formats import native

    metadata, arrays = native.read(path)
    if layers is None or metadata.get("format") == "streamrnn":
        loaded = native.loaded(metadata, arrays)
        if layers is not None:
            check_layers(loaded.model, layers)
        return loaded
    from streamrnn.formats import torch

    return torch.load_state_dict(arrays, tables.parse(layers))


def _checked_path(path: str | Path) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise DTypeError(f"expected the path of a model file, received {path!r:.80}")
    refuse_uri(path, "a model is read from a file, not from a URI: copy it to a disk first")
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        from streamrnn.formats.torch_advice import conversion_advice

        raise UnsupportedError(f"{path}: {conversion_advice(require_file(path))}")
    if suffix not in _SUFFIXES:
        raise UnsupportedError(
            f"{path}: unknown suffix {path.suffix!r}; expected one of {', '.join(_SUFFIXES)}"
        )
    return require_file(path)


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
