"""Configs of all versions of Keras, translated to the form that `registry.deserialize` reads.

No config causes an import or runs code: its classes belong to streamrnn or are registered.
"""

import re
from collections.abc import Mapping
from typing import Any

from streamrnn.errors import ModelFileError, StreamRNNError, UnsupportedError
from streamrnn.nn.formats.guard import MAX_LAYERS
from streamrnn.nn.formats.keras import nodes
from streamrnn.nn.formats.keras.legacy import KERAS_CELLS, renamed, row_of
from streamrnn.nn.formats.keras.nodes import LayerConfig
from streamrnn.nn.formats.tables import INNER_KEYS
from streamrnn.nn.layers import initializers, registry

_MODELS = {"Functional": "Model", "Model": "Model", "Sequential": "Sequential"}
_CUDNN = {f"CuDNN{name}": name for name, row in KERAS_CELLS.items() if row.cudnn}
OPERATIONS = {
    "NotEqual": "NotEqual",
    "Any": "Any",
    "LogicalOr": "LogicalOr",
    "ExpandDims": "ExpandDims",
    "ZerosLike": "ZerosLike",
    "OnesLike": "OnesLike",
    "Concatenate": "JoinedMasks",
}
"""The operations that masks of functional graphs consist of -> streamrnn's layers."""
ACTIVATION_KEYS = ("activation", "recurrent_activation")
_IGNORED_DTYPES = (None, "float32", "int64", "int32", "string")

_IGNORED = {
    # Only for training, for other devices, or for Keras's own execution.
    "*": "autocast build_config compile_config jit_compile lora_alpha module shared_object_id",
    "InputLayer": "ragged sparse optional trainable input_tensor type_spec",
    "SpatialDropout1D": "noise_shape data_format",
    "StringLookup": "sparse vocabulary_dtype vocabulary_size",
    "IntegerLookup": "sparse vocabulary_size",
    "CategoryEncoding": "sparse",
    "BatchNormalization": "fused virtual_batch_size adjustment",
}
"""Class -> keys that change no result and are dropped; layers refuse other unknown keys."""


def major_of(version: str) -> int:
    """Return the major version of Keras, such as 2; 3 if none is named.

    The meaning of some names depends on it.
    """
    match = re.match(r"\d+", version)
    return int(match.group()) if match else 3


def translate(entry: object, version: str) -> LayerConfig:
    """Translate the config of a layer or model. Raises UnsupportedError, naming layer and class."""
    if not isinstance(entry, Mapping) or "class_name" not in entry or "config" not in entry:
        raise ModelFileError(
            f"expected a config with class_name and config, received {entry!r:.100}"
        )
    name = str(entry["class_name"])
    kind = _MODELS.get(name)
    registered = entry.get("registered_name")
    if kind == "Sequential":
        config = entry["config"]
        if isinstance(config, list):  # the form of Keras 1 and early Keras 2
            config = {"layers": config}
        stack: dict[str, object] = {"layers": [translate(e, version) for e in _entries(config)]}
        stack |= {key: config[key] for key in ("name", "trainable") if key in config}
        built = (entry.get("build_config") or {}).get("input_shape")
        if shape := config.get("build_input_shape") or built:
            stack["build_input_shape"] = shape
        return {"class_name": kind, "config": stack}
    if kind == "Model":
        return {"class_name": kind, "config": _functional(entry["config"], version)}
    if not isinstance(entry["config"], Mapping):
        raise ModelFileError(
            f"the config of a {name} is not a JSON object: {entry['config']!r:.60}"
        )
    if _is_operation(entry):
        if name not in OPERATIONS:
            why = f"the operation {name} (keras.ops) is not supported, only layers"
            raise _unsupported(entry, why)
        class_name = OPERATIONS[name]
    else:
        try:
            class_name = registry.get(_CUDNN.get(name, registered or name)).__name__
        except StreamRNNError as error:
            raise _unsupported(entry, str(error)) from None
        if class_name != _CUDNN.get(name, name) or class_name not in registry.names():
            class_name = str(registered or name)
    return {"class_name": class_name, "config": _layer(class_name, name, entry["config"], version)}


def _is_operation(entry: Mapping[str, object]) -> bool:
    return ".ops" in str(entry.get("module", ""))


def _is_of_masks(entry: Mapping[str, Any]) -> bool:
    """Return whether an operation has a form in which Keras writes masks."""
    kind, config = str(entry.get("class_name")), entry["config"]
    if kind == "NotEqual":
        args = [v for n in entry["inbound_nodes"] for v in (*n["args"], *n["kwargs"].values())]
        return sum(isinstance(value, Mapping) for value in args) == len(entry["inbound_nodes"])
    if kind == "Any":
        return config.get("axis") in (-1, [-1], 2, [2]) and not config.get("keepdims")
    if kind == "ExpandDims":
        return bool(config.get("axis") == -1) and _first_dtype(entry) != "float32"
    if kind == "Concatenate":
        return _first_dtype(entry) != "float32"
    if kind in ("ZerosLike", "OnesLike"):
        return bool(config.get("dtype") == "bool")
    return kind in OPERATIONS


def _first_dtype(entry: Mapping[str, Any]) -> object:
    """Return the dtype of the first tensor that an operation is called on, None if not stated."""
    value: Any = entry.get("inbound_nodes")
    while isinstance(value, list) and value:
        first = value[0]
        value = first["args"] if isinstance(first, Mapping) and "args" in first else first
    config = value.get("config") if isinstance(value, Mapping) else None
    return config.get("dtype") if isinstance(config, Mapping) else None


def _unsupported(entry: Mapping[str, Any], reason: str) -> UnsupportedError:
    name = entry.get("name") or entry["config"].get("name")
    return UnsupportedError(f"layer {name!r} ({entry['class_name']}): {reason}")


def _layer(
    class_name: str, keras_name: str, config: Mapping[str, object], version: str
) -> dict[str, object]:
    if major_of(version) == 1:
        config = renamed(keras_name, config)
    ignored = set(f"{_IGNORED['*']} {_IGNORED.get(class_name, '')}".split())
    arguments: dict[str, object] = {}
    for key, value in config.items():
        if key in ignored:
            continue
        if key == "dtype":
            if class_name == "InputLayer" or _dtype(value) not in _IGNORED_DTYPES:
                arguments[key] = _dtype(value)
        elif key in ACTIVATION_KEYS:
            name = value.get("config") if isinstance(value, Mapping) else value
            has_other_slope = name == "hard_sigmoid" and major_of(version) < 3  # 0.2
            arguments[key] = "hard_sigmoid_02" if has_other_slope else value
        elif key.endswith("_initializer"):
            arguments[key] = _known_initializer(value)
        elif key == "cells" and isinstance(value, list):
            arguments[key] = [translate(cell, version) for cell in value]
        elif key == "cell" and isinstance(value, list):
            stacked = {"class_name": "StackedRNNCells", "config": {"cells": value}}
            arguments[key] = translate(stacked, version)
        elif key in INNER_KEYS and isinstance(value, Mapping):
            arguments[key] = translate(value, version)
        else:
            arguments[key] = nodes.unwrapped(value)
    row = row_of(class_name)
    if row and keras_name in _CUDNN:
        return {**arguments, **(row.cudnn or {})}
    if row and major_of(version) < 3:  # defaults of that time, for keys that are missing
        return {**row.before_3, **arguments}
    return arguments


def _dtype(value: object) -> object:
    if isinstance(value, Mapping):  # a DTypePolicy
        inner = value.get("config")
        return inner.get("name") if isinstance(inner, Mapping) else None
    return value


def _known_initializer(value: object) -> object:
    """Return an initializer, or "zeros" for a custom class: the weights are in the file."""
    try:
        initializers.get(value)
    except (StreamRNNError, TypeError):
        return "zeros"
    return value


def _functional(config: object, version: str) -> dict[str, object]:
    if not isinstance(config, Mapping) or not {"input_layers", "output_layers"} <= set(config):
        raise UnsupportedError(
            "the file of a subclassed model contains no graph: rebuild the model with Sequential "
            "or Model, and read its weights with load_weights(path)"
        )
    layers = []
    for entry in _entries(config):
        if not isinstance(entry, Mapping):
            raise ModelFileError(f"expected a layer's config, received {entry!r:.80}")
        if _is_operation(entry) and not _is_of_masks(entry):
            layers.append(nodes.operation_config(entry))
            continue
        layer = translate(entry, version)
        name = entry.get("name") or entry["config"]["name"]
        layer["config"] = {**layer["config"], "name": name}
        layer["name"] = name
        layer["inbound_nodes"] = nodes.translated(
            entry.get("inbound_nodes", []),
            name,
            layer,
            takes_state=registry.get(layer["class_name"]).takes_state,
        )
        layers.append(layer)
    outputs = config["output_layers"]
    if major_of(version) < 3 and isinstance(outputs, list) and len(outputs) == 1:
        outputs = outputs[0]  # before Keras 3, a single output is in a list, too
    return {
        "name": config.get("name"),
        "trainable": config.get("trainable", True),
        "layers": layers,
        "input_layers": config["input_layers"],
        "output_layers": outputs,
    }


def _entries(config: object) -> list[object]:
    entries = config.get("layers") if isinstance(config, Mapping) else None
    if not isinstance(entries, list):
        raise ModelFileError(f"a model's config has no list of layers: {config!r:.80}")
    if len(entries) > MAX_LAYERS:
        raise UnsupportedError(f"the model has {len(entries)} layers; the maximum is {MAX_LAYERS}")
    return entries
