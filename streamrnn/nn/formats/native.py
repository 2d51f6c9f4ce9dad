"""The native format: one safetensors file.

Tensors: float32, one per weight, named by layer and weight ("lstm/cell/kernel"). Metadata:
`format` = "streamrnn", `version` = "1", `config` = the model's config as JSON, `order` = the
weights' names as JSON, in the order of `model.weights`. Equal models are saved as equal bytes.

A model of lower precision has version "2": some weights are integers. The weight "lstm/cell/kernel"
is then stored as its integers (int8 or int16) under that name, with "lstm/cell/kernel.scales"
(float32, one per column) and "lstm/cell/kernel.exponents" (int8, one per row; see
`kernels.integers`). The metadata `integers` is JSON: the name of each such weight -> `top`, or
[`top`, "inputs last"].
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError, UnsupportedError
from streamrnn.nn.formats.architecture import check_layers
from streamrnn.nn.formats.guard import (
    TORCH_SUFFIX,
    Assignment,
    Loaded,
    ModelFormat,
    assign_weights,
    build,
    checked_target,
    parse_json,
    write_atomically,
)
from streamrnn.nn.formats.tables import Tables, parse, tables_of
from streamrnn.nn.kernels.integers import Integers, why_invalid
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.initializers import Initializer
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.precision import assign_integers, packed_weights
from streamrnn.nn.layers.registry import counted_from_the_start, is_own
from streamrnn.nn.models import Eager, Model
from streamrnn.nn.models.graph import is_all_built_in

NATIVE_VERSION, INTEGERS_VERSION = "1", "2"
_PARTS = ("scales", "exponents")
_LAST = "inputs last"

_KINDS = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8")


def save(model: Model, path: str | Path) -> None:
    """Write a model atomically: after an error, an earlier file at `path` is unchanged.

    Raises SinkError where no file can be written, OSError if writing fails, UnsupportedError if
    the name does not end in .safetensors, or ends in .torch.safetensors, and the errors of
    `encoded`.
    """
    form = "the native format, which `streamrnn convert` turns into .keras or .onnx"
    path = checked_target(path, ".safetensors", form)
    if path.name.lower().endswith(TORCH_SUFFIX):
        raise UnsupportedError(
            f"{path}: {TORCH_SUFFIX} is the ending of a PyTorch state_dict, which `streamrnn "
            "convert` writes. Choose another name for a file in the native format"
        )
    write_atomically({path: encoded(model)})


def encoded(model: Model) -> bytes:
    """Return the bytes of a native file.

    Raises ConfigError for a model that is not built, UnsupportedError for a model with a user's
    classes that could not be read back.
    """
    weights, packed = model.named_weights(), packed_weights(model)
    metadata = {
        "format": "streamrnn",
        "version": INTEGERS_VERSION if packed else NATIVE_VERSION,
        "order": json.dumps(list(weights)),
    }
    if not isinstance(model, Eager):
        model.graph  # noqa: B018 (raises where the model is not built)
        config = json.dumps(registry.serialize(model), separators=(",", ":"))
        metadata["config"] = config
        _refuse_own_initializers(model)
        if not is_all_built_in(model):
            _require_readable(model, json.loads(config))
    if packed:
        tops = {name: [i.top, _LAST] if i.inputs_last else i.top for name, i in packed.items()}
        metadata["integers"] = json.dumps(tops, separators=(",", ":"))
    arrays = dict(weights)
    for name, integers in packed.items():
        arrays[name] = integers.values
        arrays |= {f"{name}.{part}": getattr(integers, part) for part in _PARTS}
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return _in_order(to_bytes(arrays, metadata))


def _names_layers(layer: Layer) -> bool:
    """Return whether a layer, or one inside it, is a model of a user's class.

    Such a model's constructor makes its layers, whose names may differ from the names in a file.
    """
    of_user = isinstance(layer, Model) and not layer.is_built_in()
    return of_user or any(map(_names_layers, layer.children().values()))


def _refuse_own_initializers(layer: Layer) -> None:
    for name, value in vars(layer).items():
        is_foreign = isinstance(value, Initializer) and not is_own(type(value))
        if is_foreign and name in layer.get_config():
            raise UnsupportedError(
                f"{layer}: a file could not be read back: the class of its {name} is not of this "
                "package. The values that it made are in the weights: set the attribute "
                f"{name} of the layer (or of layer.cell) to initializers.Zeros(), then save the "
                "model"
            )
    for child in layer.children().values():
        _refuse_own_initializers(child)


def _require_readable(model: Model, config: dict[str, Any]) -> None:
    """Raise UnsupportedError unless a config gives a model whose weights have the same shapes."""
    try:
        with counted_from_the_start():
            again = build(config, model.count_params()).named_weights()
    except Exception as error:  # of any class: what is called is a user's
        raise _unreadable(model, str(error)) from error
    weights = model.named_weights()
    shapes = {name: array.shape for name, array in again.items()}
    expected = {name: array.shape for name, array in weights.items()}
    in_order = [*shapes.values()] == [*expected.values()]
    if not (in_order if _names_layers(model) else shapes == expected):
        raise _unreadable(model, f"its weights would be {shapes}")


def _unreadable(model: Model, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"{model}: a file could not be read back: {why}. A class needs a get_config that returns "
        "what its from_config (by default, its constructor) takes to make the same layers; the "
        "same graph without such a class is Model(model.inputs, model.outputs)"
    )


def _in_order(data: bytes) -> bytes:
    """Return a safetensors file with sorted metadata: the library writes it in arbitrary order.

    A file consists of the length of its header (8 bytes), the header (JSON, padded to a multiple of
    8 bytes) and the tensors.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:start])
    entries["__metadata__"] = dict(sorted(entries["__metadata__"].items()))
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(data)[start:]))


def load_weights(model: Model, path: Path) -> None:
    """Set the weights of a model from a native file, by name, or by order if names differ."""
    metadata, stored = read(path)
    _assign(model, _order(metadata), *_joined(metadata, stored))


def _order(metadata: Mapping[str, str]) -> list[str]:
    order = parse_json(metadata.get("order", "[]"), "order")
    if not isinstance(order, list):
        raise ModelFileError(f"the metadata `order` is not a list of names: {order!r:.60}")
    return order


def read(path: str | Path) -> tuple[dict[str, str], dict[str, Array]]:
    """Return the metadata and arrays of any .safetensors file."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata, arrays = dict(file.metadata() or {}), {}
            for name in file.keys():  # noqa: SIM118 (the file is not a mapping)
                kind = file.get_slice(name).get_dtype()
                if kind not in _KINDS:
                    raise UnsupportedError(
                        f"{name} is stored as {kind}; save it as float32 (.float() in PyTorch)"
                    )
                arrays[name] = file.get_tensor(name)
            return metadata, arrays
    except SafetensorError as error:
        raise ModelFileError(f"not a safetensors file, or damaged ({error})") from None


def _assign(
    model: Model, order: list[str], arrays: Mapping[str, Array], packed: Mapping[str, Integers]
) -> list[Assignment]:
    """Assign an array to every weight, and use every array once.

    Arrays are matched to weights by name. If the names differ and `order` lists the names of all
    arrays, they are matched in this order. Arrays in `packed` become the integers of their layers
    and cells.
    """
    names = list(model.named_weights())
    by_order = set(names) != set(arrays) == set(order) and len(order) == len(names)
    sources = dict(zip(names, order if by_order else names, strict=True))
    assignments = [Assignment(s, target, arrays[s]) for target, s in sources.items() if s in arrays]
    used = set(sources.values())
    assigned = assign_weights(model, assignments, [name for name in arrays if name not in used])
    assign_integers(model, {t: packed[s] for t, s in sources.items() if s in packed})
    return assigned


def _joined(
    metadata: Mapping[str, str], arrays: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Integers]]:
    """Return all weights as floats, by name, and the integer weights as they are stored."""
    floats, packed = dict(arrays), {}
    tops = parse_json(metadata.get("integers", "{}"), "integers")
    if not isinstance(tops, dict):
        raise ModelFileError(f"the metadata `integers` is not a JSON object: {tops!r:.60}")
    for name, top in tops.items():
        keys = [name, *(f"{name}.{part}" for part in _PARTS)]
        if missing := [key for key in keys if key not in floats]:
            raise ModelFileError(f"the file lacks {', '.join(missing)}, needed for {name}")
        values, scales, exponents = (np.ascontiguousarray(floats.pop(key)) for key in keys)
        last = isinstance(top, list) and top[1:] == [_LAST]
        integers = Integers(values, scales, exponents, top[0] if last else top, last)
        if why := why_invalid(integers):
            raise ModelFileError(f"{name} cannot be read as integer weights: {why}")
        floats[name], packed[name] = integers.floats(), integers
    return floats, packed


def _read(path: Path, layers: Tables | None) -> Loaded:
    metadata, arrays = read(path)
    if layers is None and "layers" in metadata:  # a state_dict that this package wrote
        stored = parse_json(metadata["layers"], "layers")
        if not isinstance(stored, list):
            raise ModelFileError(f"the metadata `layers` is not a list of tables: {stored!r:.60}")
        layers = stored
    if layers is not None and metadata.get("format") != "streamrnn":
        from streamrnn.nn.formats import torch

        return torch.load_state_dict(arrays, parse(layers))
    if metadata.get("format") != "streamrnn" or "config" not in metadata:
        suggested = tables_of({name: array.shape for name, array in arrays.items()})
        raise ModelFileError(
            "this safetensors file is not a streamrnn model (no config in its metadata); PyTorch "
            "weights need the architecture: [[model.layers]] in the pipeline file, "
            "load_model(path, layers=…), or streamrnn convert IN OUT --layers FILE, whose OUT "
            "needs no layers. The arrays suggest these layers; put them in the order in which the "
            "model calls them, with layers that have no weights (activations) in between:\n"
            f"{suggested}"
        )
    if metadata.get("version") not in (NATIVE_VERSION, INTEGERS_VERSION):
        raise ModelFileError(
            f"the file has version {metadata.get('version')!r} of the native format; this release "
            f"reads {NATIVE_VERSION!r} and {INTEGERS_VERSION!r}"
        )
    config = parse_json(metadata["config"], "the config")
    if not isinstance(config, Mapping):
        raise ModelFileError(f"the config is not a JSON object: {config!r:.60}")
    floats, packed = _joined(metadata, arrays)
    model = build(config, sum(int(array.size) for array in floats.values()))
    if not isinstance(model, Model):
        raise ModelFileError("the config does not describe a model")
    order = _order(metadata) if _names_layers(model) else []
    assignments = _assign(model, order, floats, packed)
    model.check_weights()
    if layers is not None:
        check_layers(model, layers)
    return Loaded(model, assignments)


NATIVE = ModelFormat(_read, load_weights)
"""The format of .safetensors: native, or PyTorch's weights; the contents decide."""
