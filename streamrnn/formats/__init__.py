"""Model files in and out. `load_model` goes by the file's ending."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamrnn.formats.dispatch import load_weights, read
from streamrnn.models import Model


def load_model(
    path: str | Path,
    *,
    layers: Any = None,
    node: str | None = None,
    strict: bool = False,
    state: Mapping[str, str] | None = None,
) -> Model:
    """The model in a file: .safetensors (native, or PyTorch's weights), .keras, .h5, .hdf5, .onnx.

    layers: for weights without an architecture, a list of tables (or a TOML file that holds them),
    one a layer: its type, `weights` (the prefix of its arrays' names), and Keras's arguments.
    node: the one recurrent node of an ONNX graph to take out of it.
    state: for an ONNX graph, input name -> name of the output that carries it on, for pipelines.
    strict: refuse a file that holds arrays which no layer takes.

    Raises MissingFileError, UnsupportedError (ending, layer, option, operator), ConfigError (an
    argument) or ModelFileError (damaged, or arrays that do not fit), naming the file.
    """
    return read(path, layers=layers, node=node, strict=strict, state=state).model


__all__ = ["load_model", "load_weights"]
