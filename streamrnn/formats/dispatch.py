"""Which reader a model file needs: by its ending, and for .safetensors by what is in it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamrnn.errors import ConfigError, DTypeError, ModelFileError, UnsupportedError
from streamrnn.formats.assignment import Loaded
from streamrnn.formats.guard import reading, require_file
from streamrnn.models import Model

_HDF5 = (".h5", ".hdf5")
_ENDINGS = (".safetensors", ".keras", *_HDF5, ".onnx")
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")

_FROM_PICKLE = """a pickle can run code and is never opened. In PyTorch, once:
    import torch
    from safetensors.torch import save_file
    save_file(torch.load("{name}", weights_only=True), "{stem}.safetensors")
(save_file takes a state_dict; call .contiguous() on tensors that it refuses)"""


def read(
    path: str | Path,
    *,
    layers: Any = None,
    node: str | None = None,
    strict: bool = False,
    state: Mapping[str, str] | None = None,
) -> Loaded:
    """The model in a file, and where its weights came from. Arguments: those of load_model."""
    path = _known(path)
    ending = path.suffix.lower()
    _refuse_options(path, ending, layers=layers, node=node, state=state)
    with reading(path):
        loaded = _read(path, ending, layers, node, state)
        if strict and loaded.left:
            raise ModelFileError(
                f"strict: {len(loaded.left)} stored arrays are not used: {', '.join(loaded.left)}"
            )
    return loaded


def load_weights(model: Model, path: str | Path) -> None:
    """Set a model's weights from a native or a Keras file. Raises ModelFileError."""
    path = _known(path)
    ending = path.suffix.lower()
    if ending == ".safetensors":
        from streamrnn.formats import native

        native.load_weights(model, path)
    elif ending == ".onnx":
        raise UnsupportedError(f"{path}: a graph is a model of its own; call load_model(path)")
    else:
        from streamrnn.formats.keras import load

        load.load_weights(model, path)


def _read(
    path: Path, ending: str, layers: Any, node: str | None, state: Mapping[str, str] | None
) -> Loaded:
    if ending == ".onnx":
        from streamrnn.formats.onnx.load import load_onnx

        return load_onnx(path, node=node, state=state)
    if ending == ".safetensors":
        return _safetensors(path, layers)
    from streamrnn.formats.keras.load import load_keras

    if layers is None:
        return load_keras(path)
    from streamrnn.formats import tables
    from streamrnn.formats.keras import from_tables

    return from_tables.load_with_tables(path, tables.parse(layers))


def _safetensors(path: Path, layers: Any) -> Loaded:
    from streamrnn.formats import native

    metadata, arrays = native.read(path)
    if layers is None:
        return native.loaded(metadata, arrays)
    from streamrnn.formats import tables, torch

    if metadata.get("format") == "streamrnn":
        raise ConfigError("layers: this file is in the native format and knows its own layers")
    return torch.load_state_dict(arrays, tables.parse(layers))


def _known(path: str | Path) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise DTypeError(f"expected the path of a model file, received {path!r:.80}")
    path = Path(path)
    ending = path.suffix.lower()
    if ending in _PICKLES:
        raise UnsupportedError(f"{path}: " + _FROM_PICKLE.format(name=path.name, stem=path.stem))
    if ending not in _ENDINGS:
        raise UnsupportedError(
            f"{path}: unknown ending {path.suffix!r}; model files end in {', '.join(_ENDINGS)}"
        )
    return require_file(path)


def _refuse_options(
    path: Path, ending: str, *, layers: Any, node: Any, state: Mapping[str, str] | None
) -> None:
    if layers is not None and ending not in (".safetensors", *_HDF5):
        raise ConfigError(f"{path}: layers are for weights without an architecture, not {ending}")
    wrong: Sequence[tuple[str, Any]] = (("node", node), ("state", state))
    for name, value in wrong:
        if value and ending != ".onnx":
            raise ConfigError(f"{path}: {name} is for ONNX graphs, received {value!r}")
