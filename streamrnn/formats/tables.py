"""[[model.layers]]: the architecture of files that hold weights only, one table a layer.

`type` is a layer of ours, or PyTorch's name for it; `weights` says where its arrays stand (a prefix
of their names); everything else is an argument of the layer's constructor, as in Keras.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamrnn.errors import ConfigError, MissingFileError, ModelFileError, StreamRNNError
from streamrnn.formats.guard import Budget
from streamrnn.layers import Input, initializers, registry
from streamrnn.layers.layer import Layer
from streamrnn.models import Sequential

_FROM_TORCH = {
    "Linear": "Dense",
    "RNN": "SimpleRNN",
    "LSTMCell": "LSTM",
    "GRUCell": "GRU",
    "RNNCell": "SimpleRNN",
    "LayerNorm": "LayerNormalization",
    "BatchNorm1d": "BatchNormalization",
}
_INSIDE = ("layer", "cell", "backward_layer")


@dataclass(frozen=True)
class LayerTable:
    """One layer: its class, where its weights are (None: not said), its arguments."""

    number: int
    kind: str
    weights: str | None
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return f"[[model.layers]] number {self.number} ({self.kind})"

    def make(self, config: Mapping[str, Any]) -> Layer:
        """The layer of a config. Raises ConfigError where an argument is missing or wrong."""
        try:
            layer: Layer = registry.deserialize(config)
        except TypeError as error:
            if isinstance(error, StreamRNNError):
                raise
            raise ConfigError(f"{self}: {error}") from None
        return layer

    def config(self, **more: Any) -> dict[str, Any]:
        """The layer's config; what the table says comes before `more`."""
        return {"class_name": self.kind, "config": {**more, **self.arguments}}


def parse(tables: Any) -> list[LayerTable]:
    """The tables, checked. Raises ConfigError that names the one that is wrong."""
    if isinstance(tables, str | Path):
        tables = _from_toml(Path(tables))
    if not isinstance(tables, Sequence) or not tables:
        raise ConfigError(
            f"layers: expected a list of tables, one a layer, received {tables!r:.60}"
        )
    return [_parse_one(number, table, outer=True) for number, table in enumerate(tables, 1)]


def _from_toml(path: Path) -> Any:
    if not path.is_file():
        raise MissingFileError(f"{path}: there is no such file of layers")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no TOML ({error})") from None
    found = content.get("layers") or content.get("model", {}).get("layers")
    if found is None:
        raise ConfigError(f"{path}: expected tables [[layers]] or [[model.layers]], found none")
    return found


def _parse_one(number: int, table: Any, *, outer: bool) -> LayerTable:
    if not isinstance(table, Mapping) or not isinstance(table.get("type"), str):
        raise ConfigError(
            f'[[model.layers]] number {number}: expected a type, such as type = "LSTM", received '
            f"{table!r:.80}"
        )
    arguments = {k: _inner(v) if k in _INSIDE else v for k, v in table.items()}
    kind = str(arguments.pop("type"))
    if outer and "cell" not in arguments:
        kind = _FROM_TORCH.get(kind, kind)
    weights = arguments.pop("weights", None)
    if weights is not None and not isinstance(weights, str):
        raise ConfigError(
            f"[[model.layers]] number {number}: weights is the prefix of arrays' names, received "
            f"{weights!r:.60}"
        )
    registry.get(kind)
    return LayerTable(number, kind, weights, arguments)


def _inner(value: Any) -> Any:
    """A layer inside a layer: that of Bidirectional or TimeDistributed, the cells of an RNN."""
    if isinstance(value, list):
        return [_inner(item) for item in value]
    if isinstance(value, Mapping) and "type" in value:
        return _parse_one(0, value, outer=False).config()
    return value


def stack(layers: Sequence[Layer], features: int | None, stored: int) -> Sequential:
    """The layers as a model that knows its input.

    features: of the input, where the first layer reads numbers and does not say.
    stored: the number of values in the file, more than which no model is made.
    """
    model = Sequential()
    first = layers[0]
    with initializers.replaced_by(Budget(stored).zeros):
        if first.input_dtype != "float32":
            model.add(Input((None,), dtype=first.input_dtype))
        elif first.batch_input_shape is None:
            if features is None:
                raise ModelFileError(
                    "the number of features cannot be seen from the weights; give the first layer "
                    "input_shape = [steps, features]"
                )
            model.add(Input((None, features)))
        for layer in layers:
            model.add(layer)
    return model
