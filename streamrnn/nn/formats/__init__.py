"""Model files: reading and writing. `load_model` selects the reader by the file's suffix."""

from collections.abc import Mapping
from pathlib import Path

from streamrnn.nn.formats.architecture import (
    EmbeddedIds,
    check_layers,
    embedded_ids,
    inputs_of,
    untrained,
)
from streamrnn.nn.formats.dispatch import file_name, load_weights, on_disk, read
from streamrnn.nn.formats.guard import reading
from streamrnn.nn.formats.tables import Tables
from streamrnn.nn.layers.precision import set_precision
from streamrnn.nn.models import Model


def load_model(
    path: str | Path,
    *,
    layers: Tables | None = None,
    node: str | None = None,
    strict: bool = False,
    state: Mapping[str, str] | None = None,
    precision: str = "auto",
) -> Model:
    """Read a model file: .safetensors (native, or PyTorch's weights), .keras, .h5, .hdf5, .onnx.

    path: a file, or a URI that pyarrow.fs supports, such as s3://bucket/model.safetensors.
    layers: for weights without an architecture, a list of tables, or a TOML file with such a list.
    A table is a layer: its type, `weights` (the prefix of its arrays' names), Keras's arguments.
    node: the recurrent node to extract from an ONNX graph.
    state: for an ONNX graph in a pipeline, input name -> name of the output that is its next value.
    strict: refuse a file with arrays that no layer uses.
    precision: "int16" or "int8" rounds the weights of LSTM, GRU and SimpleRNN (including nodes of
    an ONNX graph), and of Dense and Conv1D with 128 inputs (times taps) and 64 units or more, to
    integers: faster, with a rounding error (`streamrnn convert --check` shows it). "auto": as
    stored in the file.

    Raises MissingFileError, UnsupportedError (suffix, layer, option, operator), ConfigError (an
    argument) or ModelFileError (damaged, or arrays that do not fit), naming the file.
    """
    model = read(path, layers=layers, node=node, strict=strict, state=state).model
    with reading(path):
        set_precision(model, precision)
    return model


__all__ = [
    "EmbeddedIds", "check_layers", "embedded_ids", "file_name", "inputs_of", "load_model",
    "load_weights", "on_disk", "untrained",
]  # fmt: skip
