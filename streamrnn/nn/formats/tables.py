"""[[model.layers]]: the architecture of files with weights only, one table per layer.

`type` is the class of a layer, or PyTorch's name for it; `weights` is the prefix of its arrays'
names; `inputs`, in a model to be trained, names the layers that it reads; all other keys are
arguments of the layer's constructor, as in Keras.

The tables of a PyTorch state_dict are guessed from its arrays. They are in the order of the names,
unless only another order makes each layer read as many features as the previous one returns: a
module's members need not be defined in the order of their calls.
"""

import inspect
import json
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
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
    """A recurrent layer of PyTorch: its gates in PyTorch's order, in the letters of SweptKind.

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
_GATES = {len(cell.gates): cell.name for cell in TORCH_CELLS.values()}
INNER_KEYS = ("layer", "cell", "backward_layer")

MAX_TABLES = 40
MAX_TRIED = 20_000
"""The most tables that are suggested, and the most orders, complete or begun, that are tried."""

TensorShape = tuple[int, ...]
_Shapes = dict[str, TensorShape]
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

    def make(self, config: Mapping[str, object] | None = None) -> Layer:
        """Build the layer of a config, by default the table's own config.

        Raises ArgumentError if an argument is unknown or invalid, ConfigError if one is missing, or
        if a class of another package raises TypeError.
        """
        try:
            layer: Layer = registry.deserialize(config or self.config())
        except TypeError as error:
            if isinstance(error, StreamRNNError):
                raise
            raise ConfigError(f"{self}: {self._missing() or error}") from None
        return layer

    def _missing(self) -> str:
        """Describe missing required arguments and present ones with similar names; "" if none."""
        parameters = inspect.signature(registry.get(self.kind)).parameters
        missing = [
            name
            for name, p in parameters.items()
            if name not in self.arguments
            and (p.default, p.kind) == (p.empty, p.POSITIONAL_OR_KEYWORD)
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
    """Return a layer's type in streamrnn, for this type or PyTorch's name."""
    return _FROM_TORCH.get(name, name)


def parse(tables: Tables, *, graph: bool = False) -> list[LayerTable]:
    """Return checked tables; only a `graph` may have `inputs`. Raises ConfigError."""
    entries = _from_toml(tables) if isinstance(tables, str | Path) else tables
    if not isinstance(entries, Sequence) or not entries:
        raise ConfigError(
            f"layers: expected a list of tables, one per layer, received {entries!r:.60}"
        )
    parsed = [_parse_one(number, table, outer=True) for number, table in enumerate(entries, 1)]
    if not graph and (wired := next((table for table in parsed if table.inputs), None)):
        raise ConfigError(
            f"{wired}: `inputs` are for a model that is to be trained; with a file that has only "
            "weights, each layer reads the layer before it. Remove `inputs`"
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
    """Return the config of an inner table, or of each in a list; other values unchanged."""
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


@dataclass(frozen=True)
class _Guess:
    """A table, and how many features its layer reads and returns: None for ids, or if unknown."""

    prefix: str
    kind: str
    remark: str
    reads: int | None
    returns: int | None

    def __str__(self) -> str:
        remark = f"  # {self.remark}" if self.remark else ""
        weights = json.dumps(self.prefix)
        return f'[[model.layers]]\ntype = "{self.kind}"{remark}\nweights = {weights}'


def tables_of(arrays: Mapping[str, TensorShape]) -> str:
    """Return a [[model.layers]] table for each prefix whose arrays fit a layer, ready to paste.

    Comments state what is guessed, and name arrays that no layer can take. Tables beyond MAX_TABLES
    are only counted.
    """
    guesses, others = [], []
    for prefix, shapes in shapes_by_prefix(arrays).items():
        if kinds := kinds_of(shapes):
            guesses.append([_guess(prefix, kind, shapes) for kind in kinds])
        else:
            listed = ", ".join(f"{json.dumps(name)} {shape}" for name, shape in shapes.items())
            others.append(f"# weights = {json.dumps(prefix)}: no layer can take {listed}")
    chosen, note = _chain(guesses)
    tables = [f"{_gap(guess.prefix, arrays)}{guess}" for guess in chosen] + others
    if len(tables) > MAX_TABLES:
        tables[MAX_TABLES:] = [f"# … and {len(tables) - MAX_TABLES} more"]
    return "\n".join([*note, *tables])


def _gap(prefix: str, names: Collection[str]) -> str:
    """Return a comment if the member before this one in its Sequential has no weights, else ""."""
    parent, dot, index = prefix.rpartition(".")
    if not (index.isdecimal() and index.strip("0")):
        return ""
    before = f"{parent}{dot}{int(index) - 1}"
    if any(name.startswith(f"{before}.") for name in names):
        return ""
    return f"# {before} has no weights: if it is an activation, its table goes here.\n"


def shapes_by_prefix(arrays: Mapping[str, TensorShape]) -> dict[str, _Shapes]:
    """Return the shapes of arrays by prefix, in natural order, then by the rest of their names."""
    groups: dict[str, _Shapes] = {}
    for name in naturally_sorted(arrays):
        prefix, _, short = name.rpartition(".")
        groups.setdefault(prefix, {})[short] = arrays[name]
    return groups


def naturally_sorted(names: Collection[str]) -> list[str]:
    """Return names sorted with numbers as numbers: a.2 comes before a.10."""

    def parts(name: str) -> list[tuple[int, str]]:
        split = re.split(r"([0-9]{1,18})", name)
        return [(int(p), "") if p.isdecimal() and len(p) < 19 else (-1, p) for p in split]

    return sorted(names, key=parts)


def kinds_of(shapes: Mapping[str, TensorShape]) -> list[str]:
    """Return PyTorch's names of the layers that may have arrays of these names and shapes."""
    weight = shapes.get("weight", ())
    recurrent = next((name for name in shapes if name.startswith("weight_hh")), None)
    if recurrent is not None and len(shapes[recurrent]) == 2:
        return _recurrent(shapes, recurrent)
    if "running_mean" in shapes:
        return ["BatchNorm1d"]
    if len(weight) == 1:
        return ["LayerNorm"]
    if len(weight) == 2:
        return ["Linear"] if "bias" in shapes else ["Embedding", "Linear"]
    return []


def _recurrent(shapes: Mapping[str, TensorShape], name: str) -> list[str]:
    projection = shapes.get(name.replace("_hh", "_hr"), ())
    rows, units = shapes[name]
    if len(projection) == 2:
        units = projection[1]
    kind = _GATES.get(rows // max(units, 1))
    if kind is None or (projection and kind != "LSTM"):
        return []
    return [kind if "_l" in name.removeprefix("weight") else f"{kind}Cell"]


def _guess(prefix: str, kind: str, shapes: Mapping[str, TensorShape]) -> _Guess:
    if kind in ("LayerNorm", "BatchNorm1d"):
        first = next(iter(shapes.values()))
        features = first[0] if first else None
        return _Guess(prefix, kind, "", features, features)
    if kind == "Embedding":
        remark = 'or "Linear" without a bias'
        return _Guess(prefix, kind, remark, None, shapes["weight"][1])
    if kind == "Linear":
        remark = "" if "bias" in shapes else 'or "Embedding"'
        return _Guess(prefix, kind, remark, shapes["weight"][1], shapes["weight"][0])
    remark = 'add nonlinearity = "relu" if the RNN has it' if kind.startswith("RNN") else ""
    inputs = [shape for name, shape in shapes.items() if name.startswith("weight_ih")]
    last = max(name.removesuffix("_reverse") for name in shapes if name.startswith("weight_hh"))
    both = 2 if f"{last}_reverse" in shapes else 1
    reads = inputs[0][1] if inputs and len(inputs[0]) == 2 else None
    return _Guess(prefix, kind, remark, reads, both * shapes[last][1])


def _chain(guesses: Sequence[Sequence[_Guess]]) -> tuple[list[_Guess], list[str]]:
    """Return one guess per group, in an order that fits if one is found; comment on the order."""
    by_name = [options[0] for options in guesses]
    if len(guesses) < 2:
        return by_name, []
    if (fitting := _fitting(guesses)) is None:
        return by_name, [
            "# The order is taken from the names: no order was found in which each layer reads"
            " what the one before it returns."
        ]
    if [guess.prefix for guess in fitting] == [guess.prefix for guess in by_name]:
        return fitting, ["# The order is taken from the names, and the shapes fit."]
    return fitting, ["# The order is guessed from the shapes: the order of the names does not fit."]


def _fitting(guesses: Sequence[Sequence[_Guess]]) -> list[_Guess] | None:
    """Return the first order in which the shapes fit; None if none is found within the limits.

    Orders that begin with a layer that reads ids come first; then the order of the names decides.
    """
    if len(guesses) > MAX_TABLES:
        return None
    tried = 0
    stack: list[list[tuple[int, _Guess]]] = [[]]
    while stack and tried < MAX_TRIED:
        path = stack.pop()
        tried += 1
        if len(path) == len(guesses):
            return [guess for _, guess in path]
        taken = {i for i, _ in path}
        width = path[-1][1].returns if path else None
        following = [
            [*path, (i, guess)]
            for i, options in enumerate(guesses)
            if i not in taken
            for guess in options
            if (not path or guess.reads == width)
        ]
        ids_first = sorted(following, key=lambda p: bool(p[-1][1].reads)) if not path else following
        stack += reversed(ids_first)
    return None
