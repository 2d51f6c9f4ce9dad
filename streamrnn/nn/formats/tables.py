"""[[model.layers]]: the architecture of files with weights only, one table per layer.

`type` is the class of a layer, or PyTorch's name for it; `weights` is the prefix of its arrays'
names; all other keys are arguments of the layer's constructor, as in Keras.
"""

import inspect
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from streamrnn.base.display import closest
from streamrnn.errors import ConfigError, ModelFileError, StreamRNNError
from streamrnn.nn.formats.guard import require_file
from streamrnn.nn.kernels.swept import SweptKind
from streamrnn.nn.layers import Input, registry
from streamrnn.nn.layers.gated import GatedCell
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.models import Sequential


class TorchCell(NamedTuple):
    """A recurrent layer of PyTorch: its gates, in PyTorch's order, as letters of the cell's kind.

    `implied`: arguments that make the layer here compute the same. `nonlinearities`: the
    values of PyTorch's argument nonlinearity; without any, the layer has tanh and sigmoid.
    """

    name: str
    gates: str
    implied: Mapping[str, object] = MappingProxyType({})
    nonlinearities: tuple[str, ...] = ()


TORCH_CELLS = {
    "LSTM": TorchCell("LSTM", "ifco"),
    "GRU": TorchCell("GRU", "rzh", MappingProxyType({"reset_after": True})),
    "SimpleRNN": TorchCell("RNN", "h", nonlinearities=("tanh", "relu")),
}
"""Name of the layer here -> PyTorch's cell."""


def kind_of(layer: str) -> SweptKind:
    """Return the kind of a recurrent layer's cell, which says where its gates are."""
    cell = registry.get(f"{layer}Cell")
    assert issubclass(cell, GatedCell)
    return cell.kind


_FROM_TORCH = {
    "Linear": "Dense",
    **{cell.name: layer for layer, cell in TORCH_CELLS.items()},
    **{f"{cell.name}Cell": layer for layer, cell in TORCH_CELLS.items()},
    "LayerNorm": "LayerNormalization",
    "BatchNorm1d": "BatchNormalization",
}
INNER_KEYS = ("layer", "cell", "backward_layer")

Tables = str | Path | Sequence[Mapping[str, object]]
"""A list of tables, or the path of a TOML file with them."""


@dataclass(frozen=True)
class LayerTable:
    """One layer: its class, the prefix of its weights (None if not set), and its arguments.

    `inputs` are the names of the layers that it reads; if empty, it reads the layer before it.
    """

    number: int
    kind: str
    weights: str | None
    arguments: dict[str, object]
    inputs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"[[model.layers]] number {self.number} ({self.kind})"

    def make(self, config: Mapping[str, object]) -> Layer:
        """Build the layer of a config.

        Raises ArgumentError if an argument is unknown or invalid, ConfigError if one is missing, or
        if a class of another package raises TypeError.
        """
        try:
            layer: Layer = registry.deserialize(config)
        except TypeError as error:
            if isinstance(error, StreamRNNError):
                raise
            raise ConfigError(f"{self}: {self._missing() or error}") from None
        return layer

    def _missing(self) -> str:
        """Describe missing required arguments, and arguments that may be meant for them."""
        parameters = inspect.signature(registry.get(self.kind)).parameters.values()
        missing = [
            p.name
            for p in parameters
            if p.default is p.empty
            and p.kind is p.POSITIONAL_OR_KEYWORD
            and p.name not in self.arguments
        ]
        hints = [
            f"; received {near!r}: did you mean {name!r}?"
            for name in missing
            if (near := closest(name, self.arguments))
        ]
        return f"{', '.join(missing)} is missing{''.join(hints)}" if missing else ""

    def config(self) -> dict[str, object]:
        """Return the layer's config."""
        return {"class_name": self.kind, "config": dict(self.arguments)}


def layer_type(name: str) -> str:
    """Return a layer's type in streamrnn, given this type or PyTorch's name."""
    return _FROM_TORCH.get(name, name)


def parse(tables: Tables, *, graph: bool = False) -> list[LayerTable]:
    """Check and return the tables. Raises ConfigError that names the invalid table.

    A table may have inputs only in a `graph`.
    """
    entries = _from_toml(tables) if isinstance(tables, str | Path) else tables
    if not isinstance(entries, Sequence) or not entries:
        raise ConfigError(
            f"layers: expected a list of tables, one per layer, received {entries!r:.60}"
        )
    parsed = [_parse_one(number, table, outer=True) for number, table in enumerate(entries, 1)]
    if not graph and (wired := next((table for table in parsed if table.inputs), None)):
        raise ConfigError(
            f"{wired}: `inputs` are for a model to train; in a file of weights alone, each "
            "layer reads the one before it. Remove `inputs`"
        )
    return parsed


def _from_toml(name: str | Path) -> object:
    path = require_file(name, "file of layers")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None
    layers: object = content.get("layers") or content.get("model", {}).get("layers")
    if layers is None:
        raise ConfigError(f"{path}: expected tables [[layers]] or [[model.layers]], found none")
    return layers


def _parse_one(number: int, table: object, *, outer: bool) -> LayerTable:
    if not isinstance(table, Mapping) or not isinstance(table.get("type"), str):
        raise ConfigError(
            f'[[model.layers]] number {number}: expected a type, such as type = "LSTM", received '
            f"{table!r:.80}"
        )
    arguments = {k: _inner(v) if k in INNER_KEYS else v for k, v in table.items()}
    kind = str(arguments.pop("type"))
    if outer and "cell" not in arguments:
        kind = layer_type(kind)
    weights = arguments.pop("weights", None)
    if weights is not None and not isinstance(weights, str):
        raise ConfigError(
            f"[[model.layers]] number {number}: weights must be the prefix of arrays' names, "
            f"received {weights!r:.60}"
        )
    inputs = arguments.pop("inputs", None) if outer else None
    names: Any = [inputs] if isinstance(inputs, str) else inputs
    listed = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    if inputs is not None and not listed:
        raise ConfigError(
            f"[[model.layers]] number {number}: inputs must be the name of a layer before it, or a "
            f"list of names, received {inputs!r:.60}"
        )
    registry.get(kind)
    return LayerTable(number, kind, weights, arguments, tuple(names or ()))


def _inner(value: object) -> object:
    """Return the config of the layer inside a wrapper, or of an RNN's cell, or a list of these."""
    if isinstance(value, list):
        return [_inner(item) for item in value]
    if isinstance(value, Mapping) and "type" in value:
        return _parse_one(0, value, outer=False).config()
    return value


def stack(layers: Sequence[Layer], features: int | None) -> Sequential:
    """Return the layers as a model with a known input.

    features: the number of features of the input; needed if the first layer reads numbers and has
    no input shape.
    """
    model = Sequential()
    first = layers[0]
    if first.input_dtype != "float32":
        model.add(Input((None,), dtype=first.input_dtype))
    elif first.batch_input_shape is None:
        if features is None:
            raise ModelFileError(
                "the weights do not determine the number of features; set input_shape = "
                "[steps, features] in the first layer"
            )
        model.add(Input((None, features)))
    for layer in layers:
        model.add(layer)
    return model
