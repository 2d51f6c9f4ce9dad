"""Keras's configs of all ages, brought to the one form that `registry.deserialize` reads.

Nothing is imported or run for a config: a class is one of ours, or one that was registered.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamrnn.errors import ModelFileError, StreamRNNError, UnsupportedError
from streamrnn.formats.guard import MAX_LAYERS
from streamrnn.formats.keras import nodes
from streamrnn.formats.keras.keras1 import renamed
from streamrnn.layers import initializers, registry

_MODELS = {"Functional": "Model", "Model": "Model", "Sequential": "Sequential"}
_CUDNN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}
_RECURRENT = ("SimpleRNN", "GRU", "LSTM", "SimpleRNNCell", "GRUCell", "LSTMCell")
_OPERATIONS = {
    "NotEqual": "NotEqual",
    "Any": "Any",
    "LogicalOr": "LogicalOr",
    "ExpandDims": "ExpandDims",
    "ZerosLike": "ZerosLike",
    "OnesLike": "OnesLike",
    "Concatenate": "JoinedMasks",
}
"""What masks of functional graphs are made of, as our layers."""
_ACTIVATIONS = ("activation", "recurrent_activation")
_DTYPES_THAT_MATTER_NOT = (None, "float32", "int64", "int32", "string")

_IGNORED = {
    # What only matters to training, to other devices, or to how Keras computes.
    "*": (
        "activity_regularizer autocast build_config compile_config input_dtype jit_compile "
        "lora_alpha module shared_object_id"
    ),
    "InputLayer": "ragged sparse optional trainable input_tensor type_spec",
    "SpatialDropout1D": "noise_shape data_format",
    "StringLookup": "idf_weights pad_to_max_tokens sparse vocabulary_dtype vocabulary_size",
    "IntegerLookup": "idf_weights pad_to_max_tokens sparse vocabulary_size",
    "CategoryEncoding": "sparse",
    "Normalization": "input_mean input_variance",
    "BatchNormalization": "fused virtual_batch_size adjustment",
    "RNN": "cell_type num_constants",
    "Bidirectional": "num_constants",
}
"""Class -> keys that change no number, left out; other unknown keys are refused by the layer."""


@dataclass(frozen=True)
class WrittenBy:
    """Who wrote a config: it decides what some names mean."""

    version: str

    @property
    def major(self) -> int:
        """1, 2 or 3; 3 where the file does not say."""
        found = re.match(r"\d+", self.version)
        return int(found.group()) if found else 3


def translate(entry: Any, origin: WrittenBy) -> dict[str, Any]:
    """The config of a layer or model, as ours; raises UnsupportedError naming layer and class."""
    if not isinstance(entry, Mapping) or "class_name" not in entry or "config" not in entry:
        raise ModelFileError(f"expected a config with class_name and config, found {entry!r:.100}")
    name = str(entry["class_name"])
    kind = _MODELS.get(name)
    registered = entry.get("registered_name")
    if kind == "Sequential":
        made = _sequential(entry["config"], origin)
        if shape := (entry.get("build_config") or {}).get("input_shape"):
            made.setdefault("build_input_shape", shape)
        return {"class_name": kind, "config": made}
    if kind == "Model":
        return {"class_name": kind, "config": _functional(entry["config"], origin)}
    if not isinstance(entry["config"], Mapping):
        raise ModelFileError(f"the config of a {name} is {entry['config']!r:.60}")
    if ".ops" in str(entry.get("module", "")):
        if name not in _OPERATIONS:
            raise _refused(entry, f"the operation {name} (keras.ops) is not supported, only layers")
        ours = _OPERATIONS[name]
        return {"class_name": ours, "config": _layer(ours, name, entry["config"], origin)}
    try:
        ours = registry.get(_CUDNN.get(name, registered or name)).__name__
    except StreamRNNError as error:
        raise _refused(entry, str(error)) from None
    own = ours == _CUDNN.get(name, name) and ours in registry.names()
    class_name = ours if own else str(registered or name)
    return {"class_name": class_name, "config": _layer(class_name, name, entry["config"], origin)}


def _refused(entry: Mapping[str, Any], why: str) -> UnsupportedError:
    config = entry.get("config")
    name = entry.get("name") or (config.get("name") if isinstance(config, Mapping) else None)
    return UnsupportedError(f"layer {name!r} ({entry['class_name']}): {why}")


def _layer(ours: str, theirs: str, config: Mapping[str, Any], origin: WrittenBy) -> dict[str, Any]:
    if origin.major == 1:
        config = renamed(theirs, config)
    ignored = set(f"{_IGNORED['*']} {_IGNORED.get(ours, '')}".split())
    made: dict[str, Any] = {}
    for key, value in config.items():
        if key in ignored:
            continue
        if key == "dtype":
            if ours == "InputLayer" or _dtype(value) not in _DTYPES_THAT_MATTER_NOT:
                made[key] = _dtype(value)
        elif key in _ACTIVATIONS:
            made[key] = _activation(value, origin)
        elif key.endswith("_initializer"):
            made[key] = _known_initializer(value)
        elif key == "cells" and isinstance(value, list):
            made[key] = [translate(cell, origin) for cell in value]
        elif key == "cell" and isinstance(value, list):
            stacked = {"class_name": "StackedRNNCells", "config": {"cells": value}}
            made[key] = translate(stacked, origin)
        elif key in ("layer", "backward_layer", "cell") and isinstance(value, Mapping):
            made[key] = translate(value, origin)
        else:
            made[key] = _unwrapped(value)
    return _with_defaults(ours, theirs, made, origin)


def _unwrapped(value: Any) -> Any:
    """An array argument, which Keras 3 wraps, as lists of numbers."""
    if isinstance(value, Mapping) and value.get("class_name") == "__numpy__":
        inner = value.get("config")
        return inner.get("value") if isinstance(inner, Mapping) else None
    return value


def _dtype(value: Any) -> Any:
    if isinstance(value, Mapping):  # a DTypePolicy
        inner = value.get("config")
        return inner.get("name") if isinstance(inner, Mapping) else None
    return value


def _activation(value: Any, origin: WrittenBy) -> Any:
    """`hard_sigmoid` has two slopes: that of Keras 3, and 0.2 before."""
    name = value.get("config") if isinstance(value, Mapping) else value
    return "hard_sigmoid_02" if name == "hard_sigmoid" and origin.major < 3 else value


def _known_initializer(value: Any) -> Any:
    """An initializer of the user's own is not needed to read what it once began as."""
    try:
        initializers.get(value)
    except (StreamRNNError, LookupError, TypeError):
        return "zeros"
    return value


def _with_defaults(
    ours: str, theirs: str, config: dict[str, Any], origin: WrittenBy
) -> dict[str, Any]:
    """What an old file does not say, because it was the only way."""
    if theirs in _CUDNN:
        config |= {"activation": "tanh", "recurrent_activation": "sigmoid"}
        if ours == "GRU":
            config["reset_after"] = True
    elif ours in _RECURRENT and origin.major < 3:
        if not ours.startswith("SimpleRNN"):
            config.setdefault("recurrent_activation", "hard_sigmoid_02")
        if ours.startswith("GRU"):
            config.setdefault("reset_after", False)
    return config


def _sequential(config: Any, origin: WrittenBy) -> dict[str, Any]:
    if isinstance(config, list):  # as Keras 1 and early Keras 2 wrote it
        config = {"layers": config}
    entries = _entries(config)
    made: dict[str, Any] = {"layers": [translate(entry, origin) for entry in entries]}
    for key in ("name", "trainable"):
        if key in config:
            made[key] = config[key]
    if shape := config.get("build_input_shape"):
        made["build_input_shape"] = shape
    return made


def _functional(config: Any, origin: WrittenBy) -> dict[str, Any]:
    if not isinstance(config, Mapping) or not {"input_layers", "output_layers"} <= set(config):
        raise UnsupportedError(
            "a subclassed model has no graph in its file: rebuild it with Sequential or Model, and "
            "read its weights with load_weights(path)"
        )
    layers = []
    for entry in _entries(config):
        if not isinstance(entry, Mapping):
            raise ModelFileError(f"expected a layer's config, found {entry!r:.80}")
        layer = translate(entry, origin)
        name = entry.get("name") or entry["config"]["name"]
        layer["config"] = {**layer["config"], "name": name}
        layer["name"] = name
        layer["inbound_nodes"] = nodes.translated(
            entry.get("inbound_nodes", []), name, layer, takes_state=_takes_state(layer)
        )
        layers.append(layer)
    return {
        "name": config.get("name"),
        "trainable": config.get("trainable", True),
        "layers": layers,
        "input_layers": config["input_layers"],
        "output_layers": _outputs(config["output_layers"], origin),
    }


def _takes_state(layer: Mapping[str, Any]) -> bool:
    return registry.get(layer["class_name"]).takes_state


def _outputs(places: Any, origin: WrittenBy) -> Any:
    """Before Keras 3 one output stood in a list as well."""
    if origin.major < 3 and isinstance(places, list) and len(places) == 1:
        return places[0]
    return places


def _entries(config: Any) -> list[Any]:
    entries = config.get("layers") if isinstance(config, Mapping) else None
    if not isinstance(entries, list):
        raise ModelFileError(f"a model's config has no list of layers: {config!r:.80}")
    if len(entries) > MAX_LAYERS:
        raise UnsupportedError(f"a model of {len(entries)} layers; up to {MAX_LAYERS} are read")
    return entries
