"""The arrays of one table of [[model.layers]], and the layer that is made from them."""

from collections.abc import Mapping
from dataclasses import dataclass

from streamrnn.base.arrays import Array
from streamrnn.errors import ConfigError, ModelFileError
from streamrnn.nn.formats.tables import LayerTable
from streamrnn.nn.layers.layer import Layer

Arrays = Mapping[str, Array]
TorchWeights = list[tuple[str, str, Array]]
"""(source, name of the weight in its layer, array)"""


@dataclass
class TorchLayer:
    """A layer, the sources of its weights, and its number of input features."""

    layer: Layer
    weights: TorchWeights
    features: int | None = None


class Group:
    """The arrays under one prefix, by the rest of their names; records which were used."""

    def __init__(self, table: LayerTable, arrays: Arrays) -> None:
        prefix = f"{table.weights}." if table.weights else ""
        self.table = table
        self.full = {n[len(prefix) :]: n for n in arrays if n.startswith(prefix)}
        self.arrays = arrays
        self.used: set[str] = set()

    def use(self, short: str, axes: int) -> Array:
        """Return an array and record its use. Raises ModelFileError if missing or of other axes."""
        if short not in self.full:
            raise ModelFileError(
                f"{self.table}: array {self.name(short)!r} not found; arrays with this prefix: "
                f"{', '.join(self.full) or 'none'}"
            )
        array = self.arrays[self.full[short]]
        self.used.add(self.full[short])
        if array.ndim != axes:
            raise ModelFileError(
                f"{self.name(short)} has shape {array.shape}, expected {axes} axes for {self.table}"
            )
        return array

    def name(self, short: str) -> str:
        """Return the full name."""
        return self.full.get(
            short, f"{self.table.weights}.{short}" if self.table.weights else short
        )


def layer_name(group: Group, suffix: str = "") -> dict[str, str]:
    """Return the layer's name: that of the table, else its prefix."""
    base = group.table.arguments.get("name") or group.table.weights
    return {"name": f"{base}{suffix}"} if base else {}


def make(group: Group, implied: Mapping[str, object], suffix: str = "") -> Layer:
    """Build the layer with the arguments implied by its arrays.

    Raises ConfigError if the table contradicts them.
    """
    arguments = group.table.arguments
    for key, value in implied.items():
        if key not in ("epsilon", "return_sequences") and arguments.get(key, value) != value:
            raise ConfigError(
                f"{group.table}: {key} = {arguments[key]!r}, but the arrays imply {value!r}"
            )
    config = {**implied, **arguments, **layer_name(group, suffix)}
    return group.table.make({"class_name": group.table.kind, "config": config})
